"""The demos' models of faces, trained with the settings of their folders."""

import celeba.data
import celeba.train
import celeba19.data
import celeba19.train
import vision.data
import vision.train
from tests.helpers.data_config import data_config
from tests.helpers.demos import accuracy, trained

import pytest
import torch


def explained(decoded, true):
    """The share of the images' variance around their mean image that the decoded ones explain."""
    return 1 - ((decoded - true).square().mean() / (true - true.mean(dim=0)).square().mean()).item()


def assert_attributes_are_learnt(inferred, true):
    """More of both (N, 18) is right than if the more frequent value were always predicted."""
    true = (true > 0.5).float()
    more_frequent = torch.maximum(true.mean(dim=0), 1 - true.mean(dim=0)).mean().item()
    assert more_frequent < 0.73 and accuracy(inferred > 0.5, true) > more_frequent + 0.05


@pytest.mark.demos
def test_celeba_learns_faces_and_their_attributes(tmp_path):
    model = trained(celeba.train, tmp_path)
    images, attributes = celeba.data.load("test", data_config("", demo=True, limit=300))[:].modalities.values()
    with torch.no_grad():
        decoded = model.reconstruct({"image": images})
        asked = model.reconstruct({"attrs": attributes})["image"]
    assert_attributes_are_learnt(decoded["attrs"], attributes)
    assert explained(decoded["image"], images) > 0.6
    assert explained(asked, images) > 0.07, "attributes tell skin, hair and hats, but not backgrounds"


@pytest.mark.demos
def test_celeba19_learns_faces_and_each_attribute(tmp_path):
    model = trained(celeba19.train, tmp_path)
    examples = celeba19.data.load("test", data_config("", demo=True, limit=300))[:].modalities
    with torch.no_grad():
        decoded = model.reconstruct({"image": examples["image"]})
        pale = [model.reconstruct({"Pale_Skin": torch.tensor([flag])})["image"] for flag in (0, 1)]
    inferred, true = (torch.stack([x[n] for n in examples if n != "image"], dim=1) for x in (decoded, examples))
    assert_attributes_are_learnt(inferred, true)
    assert explained(decoded["image"], examples["image"]) > 0.6
    cheeks = [image[0, :, 34:38, 24:40].mean() for image in pale]
    assert cheeks[1] - cheeks[0] > 0.05, "one attribute alone changes the face"


@pytest.mark.demos
def test_vision_learns_each_view_from_others(tmp_path):
    model = trained(vision.train, tmp_path)
    views = vision.data.load("test", data_config("", demo=True, limit=100))[:].modalities
    with torch.no_grad():
        of_image, of_gray, of_half = (model.reconstruct({name: views[name]}) for name in ("image", "gray", "obscured"))
    assert explained(of_image["image"], views["image"]) > 0.5
    assert explained(of_gray["gray"], views["gray"]) > 0.5
    assert explained(of_half["image"], views["image"]) > 0.3, "the other half is completed"
