"""The demo's model, trained with its own settings."""

import pytest
import torch

from tests.helpers.data_config import data_config
from tests.helpers.demos import trained
from tests.helpers.faces import explained
from vision import train
from vision.data import load


@pytest.mark.demos
def test_the_demo_learns_each_view_from_others(tmp_path):
    model = trained(train, tmp_path)
    views = load("test", data_config("", demo=True, limit=100))[:].modalities
    with torch.no_grad():
        of_image, of_gray, of_half = (model.reconstruct({name: views[name]}) for name in ("image", "gray", "obscured"))
    assert explained(of_image["image"], views["image"]) > 0.5
    assert explained(of_gray["gray"], views["gray"]) > 0.5
    assert explained(of_half["image"], views["image"]) > 0.3, "the other half is completed"
