"""Inputs to click: the first examples of an experiment's built-in data."""

from importlib import import_module

from cub.captions import Vocabulary
from cub.demo import CAPTIONS, demo

from torch import Tensor

N = 5


def load(experiment: str) -> dict[str, Tensor]:
    """The first test examples of a folder's demo, {modality: (N, ...)}, images in [0, 1]."""
    config = import_module(f"{experiment}.train").Config(demo=True, limit=N)
    return import_module(f"{experiment}.data").load("test", config)[:N].modalities


def load_birds(words: Vocabulary) -> dict[str, Tensor]:
    """The first drawn birds, with captions (N, 32) in the words of a model."""
    images, captions, _ = demo("test", N)
    return {"image": images / 255, "caption": words.encode(captions[::CAPTIONS])}
