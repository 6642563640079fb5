"""FashionMNIST in its original idx files, and drawn garments for the demo."""

from common.data import Examples
from common.data.files import DataConfig
from fashionmnist.demo import draw
from mnist.data import class_dataset, read

import torch

CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
N_DEMO = {"train": 2000, "test": 500}


def load(split: str, config: DataConfig) -> Examples:
    """Load a split of FashionMNIST, see `mnist.data.load`. The demo draws 2,000 and 500 garments from a fixed seed."""
    examples = _garments(split) if config.demo else read("FashionMNIST", split, config.data_dir, config.download)
    return examples.take(slice(config.limit))


def _garments(split: str) -> Examples:
    """Draw the demo's split: image (N, 1, 28, 28) uint8 and text (N,) int64."""
    generator = torch.Generator().manual_seed(0 if split == "train" else 1)
    labels = torch.randint(len(CLASSES), (N_DEMO[split],), generator=generator)
    return Examples({"image": draw(labels, generator), "text": labels})


FASHIONMNIST = class_dataset("fashionmnist", load, CLASSES)
