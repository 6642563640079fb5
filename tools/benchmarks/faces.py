"""The costs of CelebA's size: drawing a random subset of 19 modalities, caching its images, and memory.

    python -m tools.benchmarks.faces                  (or `make bench`)
    python -m tools.benchmarks.faces --memory         also the memory of training on a cache of its size

The draw of a subset stands beside a search among all 2^19 subsets, which the authors' code holds; the time of the cache
is for 202,599 images.
"""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from celeba.attributes import ATTRIBUTES
from common.data import Examples, image_caches
from common.errors import require_positive
from common.subsets import random_subsets
from tools.benchmarks import plain_faces
from tools.benchmarks.experiments import EXPERIMENTS
from tools.benchmarks.race import machine, most_memory, timed
from training import run_from_command_line
from training.steps import Step

N_IMAGES = 202_599  # of CelebA
N_TRAIN = 162_770
FULL = (178, 218)  # pixels of each
KIND = image_caches.Kind()


@dataclass
class Config:
    """The options of the benchmark."""

    images: int = 4000
    """images of CelebA's size to make a cache of"""
    memory: bool = False
    """take a hundred training steps on a cache of CelebA's size, 2.5 GB on disk"""


def main(config: Config) -> None:
    """Print the figures."""
    require_positive(config, "images")
    print(f"{machine()}\n")
    subsets = plain_faces.pool(19)
    search = timed(lambda: [plain_faces.drawn(subsets) for _ in range(5)]) / 5
    draw = timed(lambda: [random_subsets(19, 1) for _ in range(1000)]) / 1000
    print(f"a random subset of 19: {1e6 * draw:.0f} us; by search among 2^19: {1e3 * search:.1f} ms")
    rate = cache_rate(config.images)
    minutes = N_IMAGES / rate / 60
    print(f"cache: {rate:,.0f} images of {FULL[0]} x {FULL[1]} a second, {minutes:.1f} minutes for {N_IMAGES:,}")
    if config.memory:
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            print(f"resident in 100 steps of celeba on {N_TRAIN:,} images: {alone.submit(memory).result():.2f} GiB")


def cache_rate(n: int) -> float:
    """Images of CelebA's size cached a second, on all cores, including the start of the threads."""
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{i}.jpg" for i in range(n)]
        for i, name in enumerate(names):
            noise = np.random.default_rng(i).integers(0, 256, (28, 23, 3), dtype=np.uint8)
            Image.fromarray(noise).resize(FULL, Image.Resampling.BICUBIC).save(Path(folder) / name, quality=90)
        return n / timed(lambda: image_caches.load(Path(folder), names, Path(folder) / "all.npy", KIND))


def memory() -> float:
    """Peak memory of this process, in GiB, after reading every image of a full-size cache and 100 training steps."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        file.truncate(N_TRAIN * int(np.prod(KIND.shape)))
        images = torch.from_numpy(np.memmap(file.name, np.uint8, "c", 0, (N_TRAIN, *KIND.shape)))
        examples = Examples({"image": images, "attrs": torch.zeros(N_TRAIN, len(ATTRIBUTES))})
        for index in torch.randperm(N_TRAIN).split(1000):
            examples[index]
        objective = EXPERIMENTS["celeba"].objective(EXPERIMENTS["celeba"].build())
        step = Step(objective, torch.optim.Adam(objective.parameters(), fused=True))
        for _ in range(100):
            step(examples, torch.randint(N_TRAIN, (100,)), 100, 1.0)
    return most_memory()


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
