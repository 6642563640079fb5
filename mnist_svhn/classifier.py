"""Digit classifiers, to measure coherence and how hard the images are."""

import os
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from common import distributed
from common.checkpoints import load, save
from common.data import Examples
from common.errors import InputError

STEPS = 3000  # training steps
BATCH_SIZE = 128
SHAPES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}
FLAT = {"mnist": 320, "svhn": 500}  # numbers after the convolutions


def classifier(kind: str, name: str, train: Examples, cache: Path | None) -> nn.Module:
    """A trained digit classifier of a modality, in evaluation mode; see `build` for its kind.

    If the cache exists, the network is loaded from there, else it is trained and saved there. The seed is fixed: the
    same images give the same network.

    Args:
        name: "mnist" or "svhn".
        train: training examples with this modality and "digit".

    Raises:
        InputError: the cache is damaged, or holds another network.
    """
    torch.manual_seed(0)
    network = build(kind, name).to(train.device)
    if cache and cache.exists():
        try:
            network.load_state_dict(load(cache))
        except RuntimeError as error:
            raise InputError(f"{cache} holds another network: delete it, and it will be made again") from error
        return network.eval()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for _ in tqdm(range(STEPS), desc=f"{kind} classifier of {name}", unit=" steps", disable=None):
        batch = train[torch.randint(len(train), (BATCH_SIZE,)).to(train.device)].modalities
        optimizer.zero_grad()
        cross_entropy(network(batch[name]), batch["digit"]).backward()
        optimizer.step()
    if cache and os.access(cache.parent, os.W_OK):
        save(cache, {key: x.cpu() for key, x in network.state_dict().items()})
    return network.eval()


def build(kind: str, name: str) -> nn.Sequential:
    """An untrained classifier: images (N, C, H, W) in [0, 1] -> logits (N, 10) of the digits.

    Args:
        kind: "convolutional" (layers of the authors' analysis) or "linear".
        name: "mnist" or "svhn".
    """
    channels, height, width = SHAPES[name]
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, 10))
    return nn.Sequential(
        *(nn.Conv2d(channels, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(FLAT[name], 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
    )


@torch.no_grad()
def accuracy(network: nn.Module, name: str, test: Examples) -> float:
    """Share of the test images of a modality whose digit a network recognises."""

    def right(rows: Tensor) -> dict[str, Tensor]:
        x = test[rows].modalities
        return {"right": network(x[name]).argmax(dim=1) == x["digit"]}

    return distributed.map_rows(len(test), 500, right, f"accuracy, {name}")["right"].double().mean().item()
