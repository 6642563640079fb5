"""The demo's model, trained with its own settings."""

from fashionmnist import train
from fashionmnist.data import FASHIONMNIST
from tests.helpers.data_config import data_config
from tests.helpers.demos import accuracy, nearest, trained

import pytest
import torch


@pytest.mark.demos
def test_the_demo_learns_garments_and_their_classes(tmp_path):
    model = trained(train, tmp_path)
    known, test = (FASHIONMNIST.load(split, data_config("", demo=True)) for split in ("train", "test"))
    images, labels = test[:].modalities.values()
    with torch.no_grad():
        inferred = model.reconstruct({"image": images})["text"]
        asked = torch.arange(10).repeat(20)
        torch.manual_seed(0)
        drawn = model.decode(model.posterior({"text": asked}).sample())["image"].mean
    assert accuracy(inferred, labels) > 0.8
    assert accuracy(nearest(drawn, *known.modalities.values()), asked) > 0.3, "a tenth is chance"
