"""CelebA with each attribute as a modality of its own."""

from pathlib import Path

from celeba import data
from celeba.attributes import ATTRIBUTES
from common.data import Examples


def apart(examples: Examples) -> Examples:
    """image and attrs (N, 18) -> image and each attribute (N,) int64 under its name."""
    attributes = examples.modalities["attrs"].long().unbind(dim=1)
    return Examples({"image": examples.modalities["image"], **dict(zip(ATTRIBUTES, attributes, strict=True))})


def load_train(*args: Path | bool | int | None) -> tuple[Examples, Examples | None]:
    """As `celeba.data.load_train`."""
    train, valid = data.load_train(*args)
    return apart(train), valid and apart(valid)
