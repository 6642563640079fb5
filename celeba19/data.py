"""CelebA with each attribute as a separate modality."""

from functools import partial

from celeba import data
from celeba.attributes import ATTRIBUTES
from celeba.data import FaceConfig
from common.data import Examples


def apart(examples: Examples) -> Examples:
    """Split attrs (N, 18) into modalities: return image, and each attribute (N,) int64 under its name."""
    attributes = examples.modalities["attrs"].long().unbind(dim=1)
    return Examples({"image": examples.modalities["image"], **dict(zip(ATTRIBUTES, attributes, strict=True))})


def load(split: str, config: FaceConfig) -> Examples:
    """Load a split of CelebA (`celeba.data.load`) with each attribute as a separate modality."""
    return apart(data.load(split, config))


load_train = partial(data.load_train, load=load)
