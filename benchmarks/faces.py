"""Speed of MVAE on faces (celeba, celeba19, vision) beside a plain implementation in the originals' manner.

    python -m benchmarks.faces                  all three (or `make bench`)
    python -m benchmarks.faces celeba19         some

Plain (`benchmarks.plain_faces`): for each ELBO term (3, 21 and 7 a batch) a forward pass of all encoders of what is
given and of all decoders, an unfused Adam. Random images, no data loader on either side. The authors' vision scores all
six views in each term, with gradients through all 42 decodings: a row of its own, since that is another loss than
ours. Operations are those of products and convolutions.

Also: the draw of a random subset of 19 modalities beside a search among all 2^19; how long the cache of CelebA's
202,599 images takes; and, with --memory, what training holds of a cache of that size.
"""

import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, NamedTuple

import numpy as np
import torch
import tyro
from PIL import Image

from benchmarks import plain_faces
from benchmarks.race import Turn, machine, operations, race, timed
from celeba.attributes import ATTRIBUTES
from common import devices, image_caches
from common.data import Batch, Examples
from common.models import MultimodalVAE
from common.objectives import MvaeElbo
from common.subsets import random_subsets

N_IMAGES = 202_599  # of CelebA
N_TRAIN = 162_770
FULL = (178, 218)  # pixels of each


class Experiment(NamedTuple):
    n_latents: int
    batch_size: int
    n_subsets: int = 0

    def model(self, name: str) -> MultimodalVAE:
        options = SimpleNamespace(n_latents=self.n_latents, fusion="poe", posterior="gaussian")
        return import_module(f"{name}.model").build(options)


EXPERIMENTS = {"celeba": Experiment(100, 100), "celeba19": Experiment(100, 100, 1), "vision": Experiment(250, 50)}


@dataclass
class Config:
    experiments: tyro.conf.Positional[tuple[Literal["celeba", "celeba19", "vision"], ...]] = tuple(EXPERIMENTS)
    rounds: int = 8
    """turns of each implementation, alternating; the first of each warms up and is not counted"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of our networks"""
    images: int = 4000
    """images of CelebA's size that a cache is made of"""
    memory: bool = False
    """take a hundred training steps on a cache of CelebA's size, 2.5 GB on the disk"""


def main(config: Config) -> None:
    print(f"{machine()}; ours in {config.precision}\n")
    print("| training step | plain, examples/s | ours, examples/s | ratio | range | ratio of operations |")
    print("|---|---|---|---|---|---|")
    for name in config.experiments:
        print(row(name, config), flush=True)
        if name == "vision":
            print(row(name, config, scores_all=True), flush=True)
    subsets = plain_faces.pool(19)
    search = timed(lambda: [plain_faces.drawn(subsets) for _ in range(5)]) / 5
    draw = timed(lambda: [random_subsets(19, 1) for _ in range(1000)]) / 1000
    print(f"\na random subset of 19: {1e6 * draw:.0f} us; by search among 2^19: {1e3 * search:.1f} ms")
    rate = cache_rate(config.images)
    minutes = N_IMAGES / rate / 60
    print(f"cache: {rate:,.0f} images of {FULL[0]} x {FULL[1]} a second, {minutes:.1f} minutes for {N_IMAGES:,}")
    if config.memory:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            print(f"resident in 100 steps of celeba on {N_TRAIN:,} images: {alone.submit(memory).result():.2f} GiB")


def row(name: str, config: Config, scores_all: bool = False) -> str:
    experiment = EXPERIMENTS[name]
    makers = [partial(plain_turn, name, scores_all), partial(turn, name, config.precision)]
    seconds, (ratio, least, most) = race(makers, config.rounds)
    counts = [operations(make()) for make in makers]
    rates = " | ".join(f"{experiment.batch_size / s:,.0f}" for s in seconds)
    name += ", all six scored in each plain term" if scores_all else ""
    return f"| {name} | {rates} | {ratio:.2f} | {least:.2f} to {most:.2f} | {counts[0] / counts[1]:.2f} |"


def turn(name: str, precision: str) -> Turn:
    """Our training step on a batch of random images."""
    devices.select(cuda=False)
    experiment = EXPERIMENTS[name]
    model = devices.prepare(experiment.model(name), torch.device("cpu"), precision, compile=False)
    objective = MvaeElbo(model, experiment.n_subsets, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    return partial(step, partial(objective, batch(name, experiment.batch_size), beta=0.5), optimizer)


def plain_turn(name: str, scores_all: bool) -> Turn:
    """Theirs, with the same subsets."""
    experiment = EXPERIMENTS[name]
    network, generator = plain_faces.PlainFaces(experiment.model(name), scores_all), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, foreach=False)
    loss = partial(network.loss, batch(name, experiment.batch_size), 0.5, experiment.n_subsets, generator)
    return partial(step, loss, optimizer)


def step(loss: Callable[[], torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def batch(name: str, n: int) -> Batch:
    if name == "vision":
        channels = import_module("vision.model").CHANNELS
        return Batch({view: torch.rand(n, c, 64, 64) for view, c in channels.items()})
    image, attributes = torch.rand(n, 3, 64, 64), torch.randint(2, (n, len(ATTRIBUTES)))
    if name == "celeba":
        return Batch({"image": image, "attrs": attributes.float()})
    return Batch({"image": image, **dict(zip(ATTRIBUTES, attributes.unbind(dim=1), strict=True))})


def cache_rate(n: int) -> float:
    """Images of CelebA's size that a cache takes a second, on all cores, start-up included."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{i}.jpg" for i in range(n)]
        for i, name in enumerate(names):
            noise = np.random.default_rng(i).integers(0, 256, (28, 23, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(FULL, Image.Resampling.BICUBIC).save(Path(folder) / name, quality=90)
        return n / timed(lambda: image_caches.load(Path(folder), names, Path(folder) / "all.npy", KIND))


KIND = image_caches.Kind()


def memory() -> float:
    """The most that this process has held, in GiB, after looking at every image of a full-size cache."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        file.truncate(N_TRAIN * int(np.prod(KIND.shape)))
        images = torch.from_numpy(np.memmap(file.name, np.uint8, "c", 0, (N_TRAIN, *KIND.shape)))
        examples = Examples({"image": images, "attrs": torch.zeros(N_TRAIN, len(ATTRIBUTES))})
        for index in torch.randperm(N_TRAIN).split(1000):
            examples[index]
        model = EXPERIMENTS["celeba"].model("celeba")
        objective, optimizer = MvaeElbo(model), torch.optim.Adam(model.parameters(), fused=True)
        for _ in range(100):
            optimizer.zero_grad()
            objective(examples[torch.randint(N_TRAIN, (100,))]).backward()
            optimizer.step()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
