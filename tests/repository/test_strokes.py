"""Drawings are read as the digits of MNIST are, whatever the brush, the size and the place."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.morphology import skeletonize
from torch.nn.functional import cross_entropy

from mnist.data import load
from tests.helpers import handwriting
from tests.helpers.data_config import data_config
from tools.exploration import strokes

DRAWN = handwriting.digits(2, seed=1)


def thickness(pixels):
    """Ink for each pixel of the skeleton; MNIST's test digits have 2.8 on average."""
    return (pixels / 255).sum() / skeletonize(pixels > 127).sum()


def read(canvas):
    return strokes.digit(canvas.getchannel("A"))


@pytest.mark.parametrize(("digit", "canvas"), DRAWN)
def test_a_drawn_digit_has_the_thickness_place_and_size_of_those_of_mnist(digit, canvas):
    pixels = read(canvas)
    assert pixels.shape == (28, 28) and pixels.dtype == np.uint8 and pixels.max() == 255
    assert 2.2 < thickness(pixels) < 3.5
    rows, columns = np.nonzero(pixels > 127)
    assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    mass = pixels / pixels.sum()
    assert [(mass.sum(1 - axis) * np.arange(28)).sum() for axis in (0, 1)] == pytest.approx([13.5, 13.5], abs=0.5)


@pytest.mark.parametrize("digit", [2, 4, 8])
def test_brush_size_and_place_do_not_matter(digit):
    (way, *_) = handwriting.WAYS[digit]
    shape = [handwriting.curve(np.array(stroke)) * (0.6, 1) for stroke in way]
    drawn = [
        read(handwriting.draw([stroke * height + corner for stroke in shape], width)) / 255
        for height, corner, width in [
            (100, (20, 20), 10),
            (100, (160, 150), 10),
            (220, (50, 30), 10),
            (220, (50, 30), 24),
        ]
    ]
    for other in drawn[1:]:
        assert abs(other - drawn[0]).mean() < 0.02, "an eighth of the ink"
    assert abs(drawn[0] - read(DRAWN[0][1]) / 255).mean() > 0.08, "another digit"


def test_digits_that_keep_their_place_have_the_thickness_of_their_size():
    ink = Image.new("L", (280, 280))
    ink.paste(255, (56, 28, 84, 252))  # a line of 28 pixels, 5 of 50
    pixels = strokes.in_place(ink, 50, 1.3)
    columns = np.nonzero(pixels.max(axis=0) > 127)[0]
    assert columns.mean() == pytest.approx(12, abs=0.6) and len(columns) <= 3
    assert pixels.shape == (50, 50) and thickness(pixels) == pytest.approx(2.4 / 1.3, abs=0.35)


@pytest.mark.real_data
@pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of datasets")
def test_a_classifier_of_mnist_reads_drawn_digits():
    """45 of 50 at least; it has two layers and sees each digit three times."""
    examples = load("train", data_config(Path(os.environ["DATA_ROOT"]) / "mnist", limit=30_000)).modalities
    images, labels = examples["image"].flatten(1).float() / 255, examples["text"]
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for rows in torch.randperm(len(images)).repeat(3).split(100):
        optimiser.zero_grad()
        cross_entropy(model(images[rows]), labels[rows]).backward()
        optimiser.step()
    drawn = handwriting.digits(5)
    pixels = np.stack([read(canvas) for _, canvas in drawn])
    found = model(torch.from_numpy(pixels).flatten(1).float() / 255).argmax(dim=1)
    right = found == torch.tensor([digit for digit, _ in drawn])
    assert right.sum() >= 45, right.view(10, 5).sum(dim=1)
