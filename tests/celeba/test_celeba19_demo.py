"""The demo's model of 19 modalities, trained with its own settings."""

import pytest
import torch

from celeba19 import train
from celeba19.data import load
from tests.helpers.data_config import data_config
from tests.helpers.demos import trained
from tests.helpers.faces import explained, shares


@pytest.mark.demos
def test_the_demo_learns_faces_and_each_attribute(tmp_path):
    model = trained(train, tmp_path)
    examples = load("test", data_config("", demo=True, limit=300))[:].modalities
    attributes = torch.stack([x for name, x in examples.items() if name != "image"], dim=1)
    with torch.no_grad():
        decoded = model.reconstruct({"image": examples["image"]})
        pale = [model.reconstruct({"Pale_Skin": torch.tensor([flag])})["image"] for flag in (0, 1)]
    inferred = torch.stack([decoded[name] for name in examples if name != "image"], dim=1)
    right, more_frequent = shares(inferred, attributes)
    assert more_frequent < 0.73 and right > more_frequent + 0.05
    assert explained(decoded["image"], examples["image"]) > 0.6
    cheeks = [image[0, :, 34:38, 24:40].mean() for image in pale]
    assert cheeks[1] - cheeks[0] > 0.05, "one attribute alone changes the face"
