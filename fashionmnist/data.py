"""FashionMNIST in its original idx files, and drawn garments for the demo."""

from pathlib import Path

import torch

from common.data import Examples
from fashionmnist.demo import draw
from mnist.data import of_classes, read

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
N_DEMO = {"train": 2000, "test": 500}


def load(split: str, data_dir: Path, demo: bool = False, fetch: bool = False, limit: int | None = None) -> Examples:
    """A split of FashionMNIST: see `mnist.data.load`. The demo's 2,000 and 500 garments are drawn from a seed."""
    examples = _garments(split) if demo else read("FashionMNIST", split, data_dir, fetch)
    return examples.take(slice(limit))


def _garments(split: str) -> Examples:
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    labels = torch.randint(len(CLASSES), (N_DEMO[split],), generator=generator)
    return Examples({"image": draw(labels, generator), "text": labels})


FASHIONMNIST = of_classes("fashionmnist", load, CLASSES)
