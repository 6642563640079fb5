"""Networks that recognise the attributes of drawn birds from images or features, to judge generated ones."""

from functools import partial
from pathlib import Path

from common.progress import progress_bar
from cub.demo import ATTRIBUTES, draw, features, random_attributes
from reports.classifiers import cached_network

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

BIRDS, BATCH_SIZE = 8000, 64
EPOCHS, LR = {"image": 6, "feature": 12}, {"image": 6e-3, "feature": 2e-3}
VALUES = [len(values) for values in ATTRIBUTES.values()]


def reader(source: str, cache: Path | None = None, limit: int | None = None) -> nn.Module:
    """A trained network that recognises attributes; see `build` for its inputs and outputs.

    It is trained on birds drawn for it, some of the images blurred, and kept (`cached_network`).

    Args:
        cache: file of the trained network.
        limit: draw no more than this number of birds.

    Raises:
        InputError: the cache is damaged.
    """
    n = min(BIRDS, limit or BIRDS)
    train = partial(_train, source=source, n=n)
    return cached_network(partial(build, source), train, cache, {"source": source, "birds": n}, torch.device("cpu"))


def build(source: str) -> nn.Sequential:
    """An untrained network: inputs -> logits (N, sum(VALUES)), those of each attribute's values side by side.

    Inputs are (N, 3, 64, 64) in [0, 1] for "image", (N, 2048) for "feature". The image network ends with a maximum over
    positions, so that it ignores where in the image the bird is.
    """
    n = sum(VALUES)
    if source == "feature":
        return nn.Sequential(nn.Dropout(0.3), nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, n))
    stages = [
        _stage(3, 16, 4, 2),
        _stage(16, 32, 4, 2),
        _stage(32, 32, 3, 1),
        _stage(32, 64, 4, 2),
        _stage(64, 64, 3, 1),
    ]
    return nn.Sequential(*stages, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, n))


def _train(network: nn.Module, source: str, n: int) -> None:
    """Train a network on n birds drawn for it; its batches come from torch's global generator."""
    generator = torch.Generator().manual_seed(9000)  # not a seed of the demo data
    attributes = random_attributes(n, generator)
    images = draw(attributes, generator)
    inputs = images if source == "image" else features(images)
    order = torch.cat([torch.randperm(n) for _ in range(EPOCHS[source])]).split(BATCH_SIZE)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR[source], len(order))
    for rows in progress_bar(order, desc=f"reader of birds ({source})", unit=" steps"):
        x = _augmented(inputs[rows]) if source == "image" else inputs[rows]
        optimizer.zero_grad()
        logits = network(x).split(VALUES, dim=1)
        sum(cross_entropy(*pair) for pair in zip(logits, attributes[rows].T, strict=True)).backward()
        optimizer.step()
        schedule.step()


def _stage(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, kernel, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


@torch.no_grad()
def read(network: nn.Module, x: Tensor) -> Tensor:
    """Most likely attributes (N, A) int64 of images or features, numbered as in `random_attributes`."""
    return torch.stack([y.argmax(dim=1) for y in network(x).split(VALUES, dim=1)], dim=1)


def _augmented(images: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) in [0, 1] from uint8: half of the batches mirrored, half of them blurred."""
    x = images.float() / 255
    x = x.flip(-1) if torch.rand(()) < 0.5 else x
    if torch.rand(()) < 0.5:
        return x
    small = interpolate(x, size=int(torch.randint(20, 44, ())), mode="bilinear", antialias=True)
    return interpolate(small, size=x.shape[-1], mode="bilinear")
