"""The classifiers of digits, to measure coherence (layers of the MMVAE authors' analysis)."""

from torch import nn

STEPS = 3000  # of training
SHAPES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}
FLAT = {"mnist": 320, "svhn": 500}  # numbers after the convolutions


def build(name: str) -> nn.Sequential:
    """An untrained classifier: images (N, C, H, W) in [0, 1] -> logits (N, 1, 10) of the digit.

    Args:
        name: "mnist" or "svhn".
    """
    return nn.Sequential(
        *(nn.Conv2d(SHAPES[name][0], 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(FLAT[name], 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10), nn.Unflatten(1, (1, 10))),
    )
