"""What the built-in sets of drawn pictures have in common: seeds, shapes, splits, and labels that pixels tell."""

from collections.abc import Callable
from typing import NamedTuple

import celeba.data
import fashionmnist.data
import multimnist.data
import polymnist.data
import vision.data
from common.data import Examples
from cub.demo import demo as draw_birds
from multimnist.options import PAPER
from polymnist.options import DatasetOptions
from tests.helpers.data_config import data_config

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch.nn.functional import avg_pool2d


class DemoSet(NamedTuple):
    """gain: by how much a linear reader of pixels beats the most frequent label, at least."""

    load: Callable
    image: tuple[int, ...]
    labels: str | None
    gain: float


def birds(split, config):
    images, _, attributes = draw_birds(split, config.limit)
    return Examples({"image": images, "attributes": attributes})


def digits_on_photographs(split, config):
    images = polymnist.data.load(split, data_config("", DatasetOptions(n_modalities=2), demo=True, limit=config.limit))
    return Examples({"image": images.modalities["m0"], "digit": images.modalities["digit"]})


SETS = {
    "fashionmnist": DemoSet(fashionmnist.data.load, (1, 28, 28), "text", 0.8),
    "multimnist": DemoSet(multimnist.data.load, (1, 50, 50), "text", 0.05),
    "celeba": DemoSet(celeba.data.load, (3, 64, 64), "attrs", 0.08),
    "cub": DemoSet(birds, (3, 64, 64), "attributes", 0.05),
    "polymnist": DemoSet(digits_on_photographs, (3, 28, 28), "digit", 0.2),
    "vision": DemoSet(vision.data.load, (3, 64, 64), None, 0),
}


@pytest.mark.parametrize("name", SETS)
def test_drawn_pictures_are_seeded_shaped_and_tell_their_labels(name):
    demo = SETS[name]

    def load(split, n):
        celeba.data.drawn.cache_clear()
        return demo.load(split, data_config("", PAPER, demo=True, limit=n))

    torch.manual_seed(1)
    train = load("train", 1200 if demo.labels else 30)
    assert torch.rand(1).equal(torch.rand(1, generator=torch.Generator().manual_seed(1))), "their own generator"
    again, test = load("train", 30), load("test", 30)
    x, same, other = (examples[:30].modalities for examples in (train, again, test))
    assert all(same[key].equal(x[key]) and not other[key].equal(x[key]) for key in x)
    assert x["image"].shape == (30, *demo.image) and 0 <= x["image"].min() < 0.1 and 0.7 < x["image"].max() <= 1
    both = torch.cat([x["image"], other["image"]]).flatten(1)
    assert len(both.unique(dim=0)) > 0.8 * len(both), "pictures differ, but for those of no digit"
    if demo.labels:
        pixels = avg_pool2d(train[:].modalities["image"], 4, ceil_mode=True).flatten(1).numpy()
        labels = train.modalities[demo.labels].view(len(train), -1).long()
        values = torch.nn.functional.one_hot(labels).numpy()  # (N, G, V)
        reader = Ridge(alpha=1).fit(pixels[:900], values[:900].reshape(900, -1))
        read = reader.predict(pixels[900:]).reshape(300, *values.shape[1:]).argmax(axis=2)
        right, usual = (read == labels[900:].numpy()).mean(), values.mean(axis=0).max(axis=1).mean()
        assert right > usual + demo.gain, (right, usual)
        assert np.all(values.mean(axis=0).max(axis=1) < 0.95), "no label is the same in all"
