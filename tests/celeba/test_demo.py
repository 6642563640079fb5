"""The demo's model, trained with its own settings."""

import pytest
import torch

from celeba import train
from celeba.data import load
from tests.helpers.data_config import data_config
from tests.helpers.demos import trained
from tests.helpers.faces import explained, shares


@pytest.mark.demos
def test_the_demo_learns_faces_and_their_attributes(tmp_path):
    model = trained(train, tmp_path)
    images, attributes = load("test", data_config("", demo=True, limit=300))[:].modalities.values()
    with torch.no_grad():
        decoded = model.reconstruct({"image": images})
        asked = model.reconstruct({"attrs": attributes})["image"]
    right, more_frequent = shares(decoded["attrs"], attributes)
    assert more_frequent < 0.73 and right > more_frequent + 0.05
    assert explained(decoded["image"], images) > 0.6
    assert explained(asked, images) > 0.07, "attributes tell skin, hair and hats, but not backgrounds"
