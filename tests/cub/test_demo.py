"""The demo's model, trained with its own settings."""

from cub import sample, train
from cub.data import load
from cub.demo import CAPTIONS, agreement
from cub.trained_model import load_trained
from tests.helpers.demos import trained

import pytest
import torch


@pytest.mark.demos
def test_the_demo_says_what_birds_look_like(tmp_path):
    trained(train, tmp_path)
    config = sample.Config(tmp_path, demo=True)
    model, vocabulary = load_trained(config)
    birds = load("test", config, "feature", vocabulary)
    with torch.no_grad():
        said = model.reconstruct({"feature": birds.examples[::CAPTIONS].modalities["feature"]})["caption"]
    right, named = agreement(vocabulary.sentences(said), birds.attributes)
    of_others, _ = agreement(vocabulary.sentences(said.roll(1, dims=0)), birds.attributes)
    assert named > 2, "attributes a caption"
    assert right > of_others + 0.15, "others are chance"
