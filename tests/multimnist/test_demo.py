"""The demo's model, trained with its own settings."""

from multimnist import train
from multimnist.data import MULTIMNIST
from multimnist.options import DatasetOptions
from tests.helpers.data_config import data_config
from tests.helpers.demos import accuracy, trained

import pytest
import torch


@pytest.mark.demos
def test_the_demo_reads_strings_of_digits(tmp_path):
    model = trained(train, tmp_path)
    images, text = MULTIMNIST.load("test", data_config("", DatasetOptions(), demo=True))[:].modalities.values()
    with torch.no_grad():
        read = model.reconstruct({"image": images})["text"]
    likeliest = text.mode(dim=0).values.expand_as(text)  # the filler, but for the first character
    assert accuracy(likeliest, text) < 0.6
    assert accuracy(read, text) > 0.72
