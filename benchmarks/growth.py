"""Time of a training step as the data outgrow memory, and as the number of modalities grows.

    python -m benchmarks.growth                              to 10^7 examples (8 GB on the disk), 784 modalities
    python -m benchmarks.growth --examples 10000 100000 --folder DIR  fewer, in files in DIR

Examples are random images of MNIST's size in shards; mnist's model gets random batches of them as a stream
(`common.data.streams`). "Cached": the system still holds the files in memory; "from the disk": it was told to drop
them. Modalities are single numbers: either elements of a set with shared networks, under the ELBO, or named modalities
with stacked networks, under MVAE's sub-sampled objective (all, each alone, and a random subset).
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.experiments import EXPERIMENTS
from benchmarks.race import machine, timed
from common.data import Examples, Shards, Stream
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, StackedDecoder, StackedLinear
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood
from common.models import VAE
from common.objectives import MvaeElbo, Objective, StandardElbo
from common.training import devices, run_from_command_line
from common.training.steps import Step

Key = TypeVar("Key")
CPU = torch.device("cpu")
SHARD = 10**6  # examples a file
WIDTH, LATENTS = 32, 20  # size of a modality's networks


@dataclass
class Config:
    """The options of the benchmark."""

    examples: tuple[int, ...] = (10**4, 10**5, 10**6, 10**7)
    """sizes of the split"""
    modalities: tuple[int, ...] = (49, 196, 784)
    """numbers of modalities"""
    batch_size: int = 100
    """examples in a batch, for many modalities too"""
    steps: int = 100
    """training steps in a turn"""
    rounds: int = 5
    """turns of each size, alternating; the first turn is a warm-up that does not count"""
    folder: Path | None = None
    """folder for temporary files. Default: the system's"""


def main(config: Config) -> None:
    """Print both tables."""
    devices.select(cuda=False)
    print(f"{machine()}; batch {config.batch_size}\n")
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        paths = {n: written(Path(folder), n) for n in config.examples}
        # cached first, while the system still holds the files that were just written
        cached, cold = (
            in_turns({n: partial(streaming, paths[n], n, cold, config) for n in paths}, config.rounds)
            for cold in (False, True)
        )
    print("| examples | GB | cached, ms a step | ratio | from the disk, ms a step | ratio |")
    print("|---|---|---|---|---|---|")
    first = config.examples[0]
    for n in config.examples:
        columns = " | ".join(f"{1e3 * s[n] / config.steps:.1f} | {s[n] / s[first]:.2f}" for s in (cached, cold))
        print(f"| {n:,} | {n * 784 / 1e9:.2f} | {columns} |")
    makers = {(m, kind): partial(kind, m, config.batch_size) for m in config.modalities for kind in (elements, named)}
    seconds = in_turns(makers, config.rounds)
    print("\n| modalities | elements of a set, ms a step | us a modality | named, ms a step | us a modality |")
    print("|---|---|---|---|---|")
    for m in config.modalities:
        columns = " | ".join(f"{1e3 * s:.1f} | {1e6 * s / m:.0f}" for s in (seconds[m, elements], seconds[m, named]))
        print(f"| {m} | {columns} |")


def in_turns(makers: dict[Key, Callable[[], Callable[[], float]]], rounds: int) -> dict[Key, float]:
    """The median time of a turn of each, in seconds; they alternate, and the first turn of each is not counted."""
    turns = {key: make() for key, make in makers.items()}
    times = {key: [] for key in turns}
    for _ in tqdm(range(rounds), unit=" rounds", leave=False):
        for key, turn in turns.items():
            times[key].append(turn())
    return {key: statistics.median(seconds[1:]) for key, seconds in times.items()}


def written(folder: Path, n: int) -> list[Path]:
    """Write n random images; returns the files."""
    paths = []
    for start in tqdm(range(0, n, SHARD), desc=f"{n:,} examples", unit=" files", leave=False):
        paths.append(folder / f"{n}_{len(paths)}.npy")
        rng, size = np.random.default_rng(start), min(SHARD, n - start)
        np.save(paths[-1], rng.integers(0, 256, (size, 1, 28, 28), dtype=np.uint8))
    os.sync()  # the system cannot drop what is not on the disk yet
    return paths


def streaming(paths: Sequence[Path], n: int, cold: bool, config: Config) -> Callable[[], float]:
    """A turn of steps on a stream of the n images in files, cold or cached; it returns its seconds."""
    step = step_of(MvaeElbo(EXPERIMENTS["mnist"].build()))
    text, generator = torch.randint(10, (n,)), torch.Generator().manual_seed(0)

    def turn() -> float:
        if cold:
            forget(paths)
        stream = Stream(Examples({"image": Shards(paths), "text": text}), CPU)
        batches = torch.randint(n, (config.steps, config.batch_size), generator=generator)

        def work() -> None:
            for examples, index in stream.feed(batches):
                step(examples, index, len(index), 1.0)

        return timed(work)

    return turn


def forget(paths: Sequence[Path]) -> None:
    """Tell the system to drop the files from memory."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def elements(m: int, batch_size: int) -> Callable[[], float]:
    """A step of a model of m elements of a set; it returns its seconds."""
    encoder = {"x": experts(m)}
    decoder = {"x": SharedNetwork(m, nn.Linear(LATENTS, WIDTH), nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, 1)))}
    model = VAE("poe", encoder, decoder, GroupedLikelihood(x=BernoulliLikelihood()), LATENTS)
    return partial(step_on, step_of(StandardElbo(model)), {"x": torch.rand(batch_size, m, 1)})


def named(m: int, batch_size: int) -> Callable[[], float]:
    """A step of a model of m named modalities; it returns its seconds."""
    names = [f"x{i}" for i in range(m)]
    key, likelihood = ",".join(names), GroupedLikelihood(**{name: BernoulliLikelihood() for name in names})
    layers = nn.Sequential(StackedLinear(m, LATENTS, WIDTH), nn.Tanh(), StackedLinear(m, WIDTH, 1))
    model = VAE("poe", {key: experts(m)}, {key: StackedDecoder(layers)}, likelihood, LATENTS)
    return partial(step_on, step_of(MvaeElbo(model, K=1)), {name: torch.rand(batch_size, 1) for name in names})


def experts(m: int) -> nn.Module:
    """A shared encoder of m single numbers."""
    return SharedNetwork(m, nn.Linear(1, WIDTH), nn.Sequential(nn.Tanh(), SplitLinearLayer(WIDTH, (LATENTS,) * 2)))


def step_of(objective: Objective) -> Step:
    """A training step that maximises the objective with Adam."""
    return Step(objective, torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True))


def step_on(step: Step, values: dict[str, Tensor]) -> float:
    """The seconds of a step on a batch."""
    examples, n = Examples(values), len(next(iter(values.values())))
    return timed(lambda: step(examples, torch.arange(n), n, 1.0))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
