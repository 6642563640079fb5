"""Classifiers that judge what models generate: trained once, and kept."""

import os
import zlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from common.checkpoints import check_fit
from common.data.batches import Examples
from common.data.files import DataConfig
from common.errors import require
from common.execution import processes, random_states
from common.io import AGAIN, load_tensors, save_tensors
from common.progress import progress_bar
from reports.metrics import Judge

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

MAX_EPOCHS = 60
FEATURES_END = -3  # index of a judge's first layer after its features


class NetworkFile(msgspec.Struct):
    """A file of a trained network: what it was made from, and its parameters and buffers."""

    made_from: dict[str, Any]
    state_dict: dict[str, Tensor]


def cached_network(
    build: Callable[[], nn.Module],
    train: Callable[[nn.Module], None],
    cache: Path | None,
    made_from: Mapping[str, Any],
    device: torch.device,
) -> nn.Module:
    """Return a trained network in evaluation mode: from the cache if that exists, else trained and kept there.

    Training has a fixed seed, so that the same examples give the same network, and runs on the first process alone. The
    random numbers of the caller go on as if nothing had been drawn.

    Args:
        build: makes the untrained network.
        train: trains it, in place.
        cache: file of the trained network; None keeps nothing.
        made_from: what determines the network, plain values such as the number of examples.
        device: of the network.

    Raises:
        InputError: the cache is damaged, or was made from something else.
    """
    with random_states.fixed_noise(0, device):
        network = build().to(device)
        made_from = {"network": str(network), **made_from}

        def parameters() -> dict[str, Tensor]:
            if cache and cache.exists():
                stored = load_tensors(cache, NetworkFile, AGAIN, AGAIN)
                changed = [key for key in made_from if stored.made_from.get(key) != made_from[key]]
                other = f"{cache} is a classifier trained with other data or by another version"
                require(not changed, f"{other} (other {', '.join(changed)}): {AGAIN}")
                check_fit(stored.state_dict, network, f"{cache} is damaged", AGAIN)
                return stored.state_dict
            train(network)
            state = {key: x.cpu() for key, x in network.state_dict().items()}
            if cache and os.access(next(x for x in cache.absolute().parents if x.exists()), os.W_OK):
                cache.parent.mkdir(parents=True, exist_ok=True)
                save_tensors(cache, {"made_from": made_from, "state_dict": state})
            return state

        network.load_state_dict(processes.on_first_process(parameters))
    return network.eval()


def judge_file(folder: Path, name: str, config: DataConfig) -> Path:
    """Where a judge is kept, so that the analyses of all runs share it.

    The judges of the demo, and those of the first examples (--limit), have names of their own.
    """
    file = folder / (f"demo_{name}" if config.demo else name)
    return file if config.limit is None else file.with_stem(f"{file.stem}_first_{config.limit}")


def judge(
    build: Callable[[], nn.Sequential], train: Examples, name: str, labels: Tensor, steps: int, cache: Path | None
) -> Judge:
    """A judge of an image modality: a network that is trained on its training images; see `cached_network`.

    Args:
        build: makes the untrained network, images -> logits (N, G, n_values), whose last layers are a dropout, a linear
            layer and one that gives the logits their shape.
        name: the modality.
        labels: what the training examples show, (N, G).
    """

    def train_network(network: nn.Module) -> None:
        on_device = labels.to(train.device)

        def loss(rows: Tensor) -> Tensor:
            rows = rows.to(train.device)
            logits = network(train[rows].modalities[name])  # (B, G, n_values)
            return cross_entropy(logits.flatten(0, 1), on_device[rows].flatten())

        fit(network, loss, len(train), steps, f"classifier of {name}")

    images = fingerprint(train.modalities[name])
    made_from = {"n": len(train), "images": images, "labels": fingerprint(labels), "steps": steps}
    network = cached_network(build, train_network, cache, made_from, train.device)
    return Judge(
        (name,),
        lambda values: network(values[name]).argmax(dim=2),
        features=lambda values: network[:FEATURES_END](values[name]),
    )


def fingerprint(x: Tensor) -> int:
    """A checksum of values, for `made_from`."""
    return zlib.crc32(x.cpu().contiguous().numpy())


def image_classifier(channels: int, size: int, n_labels: int, n_values: int) -> nn.Sequential:
    """An untrained network: images (N, C, size, size) in [0, 1] -> logits (N, G, n_values) of G labels."""
    widths, layers = (32, 64, 128) if size <= 32 else (32, 64, 128, 128), []
    for before, after in pairwise((channels, *widths)):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    features = widths[-1] * (size // 2 ** len(widths)) ** 2
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(features, 256), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(256, n_labels * n_values), nn.Unflatten(1, (n_labels, n_values)))


def fit(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    n: int,
    steps: int,
    desc: str,
    lr: float = 1e-3,
    batch_size: int = 128,
    weight_decay: float = 0.0,
) -> None:
    """Train a network on n examples with Adam, whose learning rate falls to zero.

    Args:
        loss: indices (B,) of examples, on the CPU -> their loss.
        steps: number of batches, at most those of `MAX_EPOCHS` passes over the examples.
        desc: shown beside the progress bar.
    """
    steps = min(steps, max(1, MAX_EPOCHS * n // batch_size))
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress_bar(range(steps), desc=desc, unit=" steps"):
        optimizer.zero_grad()
        loss(torch.randint(n, (batch_size,))).backward()
        optimizer.step()
        schedule.step()
