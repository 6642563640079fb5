"""Drawn garments beside photographs; what every built-in set has: tests/common/data/test_demo_sets.py."""

import os
from pathlib import Path

from fashionmnist.demo import draw
from mnist.idx_files import read_idx

import pytest
import torch
from torch.nn.functional import normalize

LABELS = torch.arange(1000) % 10


@pytest.fixture(scope="module")
def images():
    return draw(LABELS, torch.Generator().manual_seed(0))


def test_classes_stand_in_the_order_of_fashionmnist(images):
    """By the height of what is lit over its width, and by what lies in the middle."""
    height, width = ((images > 0).any(dim=dim).squeeze(1).sum(dim=1) for dim in (3, 2))
    ratio = torch.stack([(height / width)[label == LABELS].mean() for label in range(10)])
    trouser, dress, sandal, sneaker = ratio[[1, 3, 5, 7]]
    assert trouser == ratio.max() and trouser > 1.5 and dress > 1.2
    assert sneaker == ratio.min() and sneaker < 0.6 and sandal < 0.7
    middle = images[:, 0, :, 13:15].float().mean(dim=2)  # (N, 28)
    front = torch.stack([middle[label == LABELS].mean(dim=0) for label in range(10)])
    assert front[1, 20] < 20, "between the legs"
    assert front[4, 20] < 0.5 * front[[0, 2, 6], 20].min(), "a coat is open where a T-shirt, pullover and shirt are not"


@pytest.mark.real_data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of datasets")
def test_the_nearest_drawn_class_says_what_a_photograph_shows(images):
    folder = Path(os.environ["DATA_ROOT"]) / "fashionmnist"
    photographs = read_idx(folder / "t10k-images-idx3-ubyte.gz", (28, 28)).flatten(1).float()
    labels = read_idx(folder / "t10k-labels-idx1-ubyte.gz", ())
    means = torch.stack([images[label == LABELS].flatten(1).float().mean(dim=0) for label in range(10)])
    guesses = (normalize(photographs) @ normalize(means).T).argmax(dim=1)
    assert (guesses == labels).float().mean() > 0.4, "chance has 0.1"
