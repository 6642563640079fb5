"""The demo's digits: the scanned digits of scikit-learn, enlarged to MNIST's size."""

from functools import cache

from common.data import Examples, files

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

N_TEST = 297


def scanned_digits(split: str) -> Examples:
    """Return the 1,500 "train" or 297 "test" digits: image (N, 1, 28, 28) uint8 and text (N,) int64, the digit."""
    images, labels = _digits()
    rows = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    rows = rows[:-N_TEST] if split == "train" else rows[-N_TEST:]
    return Examples({"image": images[rows], "text": labels[rows]})


@cache  # a demo takes both splits
def _digits() -> tuple[Tensor, Tensor]:
    """All 1,797 images and their labels."""
    # not by sklearn.datasets, whose import takes one to two seconds
    rows = torch.from_numpy(np.loadtxt(files.of_package("sklearn", "datasets/data/digits.csv.gz"), delimiter=","))
    images = (rows[:, :-1] / 16).float().view(-1, 1, 8, 8)
    images = pad(interpolate(images, size=(20, 20), mode="bilinear"), (4, 4, 4, 4))  # MNIST's margins
    return (255 * images).round().to(torch.uint8), rows[:, -1].long()
