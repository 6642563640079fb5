"""Time of a training step as something grows: the batch, samples, modalities, latents, texts, data.

    python -m tools.benchmarks.growth                              all; examples to 10^7 take 8 GB on the disk
    python -m tools.benchmarks.growth batch latents --largest 512  some, up to a size
    python -m tools.benchmarks.growth --out-dir DIR                also a chart of each in DIR

Ours, beside plain code in the originals' manner and the package multivae (`pip install -e ".[bench]"`) where they
have the same: mnist's model for batches, latents and data, mnist_svhn's under DReG for samples, two texts under MVAE's
objective for their length. Modalities are single numbers: either elements of a set with shared networks, under the
ELBO, or named modalities with stacked networks, under MVAE's objective.

Examples are random images in a file, which a stream reads batch by batch (`common.data.streams`). "Cached":
the system still holds the file in memory; "from the disk": it was told to drop it.

The exponent is the slope of log time over log size, by least squares: 1 is linear growth.
"""

import math
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import nn
from tqdm import tqdm

import mnist.model
from common.data import Examples, Stream, mapped_rows
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, StackedDecoder, StackedLinear
from common.errors import require, require_positive
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GroupedLikelihood
from common.models import VAE
from common.objectives import DregIwaeElbo, MvaeElbo, Objective, StandardElbo
from multimnist.model import TextDecoder, TextEncoder
from reports import plots
from tools.benchmarks import plain, plain_mmvae
from tools.benchmarks.experiments import BETA, EXPERIMENTS, digits, pairs
from tools.benchmarks.race import Turn, check_rounds, machine, timed
from training import devices, run_from_command_line
from training.steps import Step

CPU = torch.device("cpu")
DRAWN_AT_ONCE = 10**6
STEPS = 50  # of a turn on a stream of examples
WARM_UP = 20  # steps of ours before the first turn on samples
WIDTH, LATENTS = 32, 20  # size of a single number's networks
N_WORDS = 32
SIZES = {
    "batch": (32, 128, 512, 2048, 4096),
    "samples": (1, 3, 10, 30, 100, 300, 1000),
    "modalities": (2, 7, 49, 196, 784),
    "latents": (16, 64, 256, 1024),
    "text": (4, 16, 64, 256),
    "examples": (10**4, 10**5, 10**6, 10**7),
}
MOST = {"named, multivae": 7}  # it lists all subsets, 2^m of them


@dataclass
class Config:
    """The options of the benchmark."""

    what: tyro.conf.Positional[
        Annotated[tuple[Literal[tuple(SIZES)], ...], tyro.conf.arg(metavar="WHAT", help="what grows")]
    ] = tuple(SIZES)
    largest: int = 10**7
    """leave out larger sizes"""
    batch_size: int = 100
    """examples in a batch of modalities, latents, texts and data; those of samples have a tenth of it"""
    rounds: int = 5
    """turns of each size, alternating; the first turn is a warm-up that does not count"""
    folder: Path | None = None
    """folder for temporary files. Default: the system's"""
    out_dir: Path | None = None
    """folder of the charts"""


def main(config: Config) -> None:
    """Print a table for each thing that grows, and save its chart."""
    require_positive(config, "batch_size")
    devices.select(cuda=False)
    print(f"{machine()}; batch {config.batch_size}")
    with tempfile.TemporaryDirectory(dir=config.folder) as folder:
        for what in config.what:
            sizes = [n for n in SIZES[what] if n <= config.largest]
            smallest = min(SIZES[what])
            require(len(sizes) > 0, f"--largest {config.largest} leaves no size of {what}: give {smallest} or more")
            report(what, sizes, measured(what, sizes, config, Path(folder)), config.out_dir)


def measured(what: str, sizes: Sequence[int], config: Config, folder: Path) -> dict[str, dict[int, float]]:
    """Milliseconds of a step by implementation and size."""
    if what != "examples":
        made = implementations(what).items()
        makers = {
            (name, n): partial(make, n, config.batch_size)
            for name, make in made
            for n in sizes
            if n <= MOST.get(name, n)
        }
        return by_name(in_turns(makers, config.rounds))
    files, times = {n: written(folder, n) for n in sizes}, {}
    for name in ("cached", "from the disk"):  # cached first, while the system still holds what was just written
        cold = name != "cached"
        makers = {(name, n): partial(streaming, files[n], n, cold, config.batch_size) for n in sizes}
        times |= by_name({key: ms / STEPS for key, ms in in_turns(makers, config.rounds).items()})
    return times


def implementations(what: str) -> dict[str, Callable[[int, int], Turn]]:
    """What makes a step of each implementation, from a size and the size of a batch."""
    if what == "modalities":
        makers = {"elements of a set": elements, "named": named}
        return makers | ({"named, multivae": partial(of_package, of_named)} if find_spec("multivae") else {})
    of = {"batch": of_batch, "samples": of_samples, "latents": of_latents, "text": of_text}[what]
    makers = {"ours": partial(ours, of, WARM_UP if what == "samples" else 0)}
    if what != "text":
        makers["plain"] = partial(originals, of)
    return makers | ({"multivae": partial(of_package, of)} if find_spec("multivae") else {})


def report(what: str, sizes: Sequence[int], ms: Mapping[str, Mapping[int, float]], out_dir: Path | None) -> None:
    """Print the table of milliseconds, with the exponents in its last row, and save the chart."""
    print(f"\n| {what} | {' | '.join(f'{name}, ms per step' for name in ms)} |\n|{'---|' * (len(ms) + 1)}")
    for n in sizes:
        print(f"| {n:,} | {' | '.join(f'{x[n]:,.1f}' if n in x else '-' for x in ms.values())} |")
    if len(sizes) > 1:
        print(f"| exponent | {' | '.join(f'{exponent(x):.2f}' for x in ms.values())} |", flush=True)
    if out_dir:
        curves = {legend(name, x): [(x.get(n, math.nan), 0.0) for n in sizes] for name, x in ms.items()}
        plots.error_bars(out_dir / f"{what}.png", sizes, curves, (what, "ms per step"), log=True)


def legend(name: str, ms: Mapping[int, float]) -> str:
    """The name of a curve in the chart, with its exponent if it has one."""
    return f"{name}, exponent {exponent(ms):.2f}" if len(ms) > 1 else name


def exponent(ms: Mapping[int, float]) -> float:
    """The slope of log time over log size, by least squares; ms: {size: time}."""
    return statistics.linear_regression([math.log(n) for n in ms], [math.log(t) for t in ms.values()]).slope


def in_turns(makers: Mapping[tuple[str, int], Callable[[], Turn]], rounds: int) -> dict[tuple[str, int], float]:
    """The median milliseconds of a turn of each; they alternate, and the first turn of each is not counted."""
    check_rounds(rounds)
    turns = {key: make() for key, make in makers.items()}
    times = {key: [] for key in turns}
    for _ in tqdm(range(rounds), unit=" rounds", leave=False):
        for key, turn in turns.items():
            times[key].append(1e3 * timed(turn))
    return {key: statistics.median(seconds[1:]) for key, seconds in times.items()}


def by_name(ms: Mapping[tuple[str, int], float]) -> dict[str, dict[int, float]]:
    """The times of each implementation, {name: {size: time}}."""
    times = {}
    for (name, n), x in ms.items():
        times.setdefault(name, {})[n] = x
    return times


Compared = tuple[Objective, Examples, float]  # an objective, a batch, the weight of the KL


def of_batch(n: int, batch_size: int) -> Compared:
    """MVAE of digits with batches of n."""
    return EXPERIMENTS["mnist"].objective(EXPERIMENTS["mnist"].build()), digits(n), BETA


def of_samples(n: int, batch_size: int) -> Compared:
    """MMVAE of pairs of digits under DReG with n samples."""
    experiment = EXPERIMENTS["mnist_svhn"]
    return experiment.objective(experiment.build(), K=n), pairs(max(1, batch_size // 10)), 1.0


def of_latents(n: int, batch_size: int) -> Compared:
    """MVAE of digits with n latents."""
    model = mnist.model.build(SimpleNamespace(n_latents=n, model="mvae", posterior="gaussian"))
    return EXPERIMENTS["mnist"].objective(model), digits(batch_size), BETA


def of_text(n: int, batch_size: int) -> Compared:
    """MVAE of two texts of n words."""
    names = ("a", "b")
    model = VAE(
        "poe",
        {name: TextEncoder((LATENTS,) * 2, N_WORDS) for name in names},
        {name: TextDecoder(LATENTS, N_WORDS, n) for name in names},
        GroupedLikelihood(**{name: CategoricalLikelihood(event_dims=1) for name in names}),
        LATENTS,
    )
    return MvaeElbo(model), Examples({name: torch.randint(N_WORDS, (batch_size, n)) for name in names}), BETA


def of_named(n: int, batch_size: int) -> Compared:
    """MVAE of n single numbers, each with networks of its own."""
    names = [f"x{i}" for i in range(n)]
    encoder = {name: nn.Sequential(*expert()) for name in names}
    decoder = {name: nn.Sequential(nn.Linear(LATENTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)) for name in names}
    model = VAE("poe", encoder, decoder, GroupedLikelihood(**{name: BernoulliLikelihood() for name in names}), LATENTS)
    return MvaeElbo(model), Examples({name: torch.rand(batch_size, 1) for name in names}), BETA


def ours(of: Callable[[int, int], Compared], warm_up: int, n: int, batch_size: int) -> Turn:
    """A step of ours, after some steps (`benchmarks.experiments.Experiment.warm_up`)."""
    step = stepping(*of(n, batch_size))
    for _ in range(warm_up):
        step()
    return step


def originals(of: Callable[[int, int], Compared], n: int, batch_size: int) -> Turn:
    """A step in the manner of the originals."""
    objective, examples, _ = of(n, batch_size)
    if isinstance(objective, DregIwaeElbo):
        step = plain_mmvae.training_step(objective.model, "mnist_svhn", n)
    else:
        step = plain.training_step(objective.model)
    return partial(step, examples[:])


def of_package(of: Callable[[int, int], Compared], n: int, batch_size: int) -> Turn:
    """A step of the package multivae."""
    from tools.benchmarks import package  # needs the extra [bench]

    objective, examples, beta = of(n, batch_size)
    return partial(package.training_step(objective, beta), examples[:])


def elements(m: int, batch_size: int) -> Turn:
    """A step of ours with m elements of a set."""
    decoder = SharedNetwork(m, nn.Linear(LATENTS, WIDTH), nn.Sequential(nn.Tanh(), nn.Linear(WIDTH, 1)))
    model = VAE("poe", {"x": shared_experts(m)}, {"x": decoder}, GroupedLikelihood(x=BernoulliLikelihood()), LATENTS)
    return stepping(StandardElbo(model), Examples({"x": torch.rand(batch_size, m, 1)}))


def named(m: int, batch_size: int) -> Turn:
    """A step of ours with m named modalities, whose networks are stacked."""
    names = [f"x{i}" for i in range(m)]
    layers = nn.Sequential(StackedLinear(m, LATENTS, WIDTH), nn.Tanh(), StackedLinear(m, WIDTH, 1))
    key, likelihood = ",".join(names), GroupedLikelihood(**{name: BernoulliLikelihood() for name in names})
    model = VAE("poe", {key: shared_experts(m)}, {key: StackedDecoder(layers)}, likelihood, LATENTS)
    return stepping(MvaeElbo(model), Examples({name: torch.rand(batch_size, 1) for name in names}))


def expert() -> tuple[nn.Module, nn.Module]:
    """The first layer of a single number's encoder, and the rest."""
    return nn.Linear(1, WIDTH), nn.Sequential(nn.Tanh(), SplitLinearLayer(WIDTH, (LATENTS,) * 2))


def shared_experts(m: int) -> SharedNetwork:
    """An encoder of m single numbers, with one network for all."""
    return SharedNetwork(m, *expert())


def stepping(objective: Objective, examples: Examples, beta: float = 1.0) -> Turn:
    """A step of ours on all examples, with Adam."""
    index = torch.arange(len(examples))
    return partial(step_of(objective), examples, index, len(index), beta)


def step_of(objective: Objective) -> Step:
    """A training step that maximises the objective with Adam."""
    return Step(objective, torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True))


def written(folder: Path, n: int) -> Path:
    """Write n random images; returns the file."""
    path = folder / f"{n}.npy"
    images = np.lib.format.open_memmap(path, "w+", np.uint8, (n, 1, 28, 28))
    for start in tqdm(range(0, n, DRAWN_AT_ONCE), desc=f"{n:,} examples", leave=False):
        part = images[start : start + DRAWN_AT_ONCE]
        part[:] = np.random.default_rng(start).integers(0, 256, part.shape, dtype=np.uint8)
    images.flush()  # the system cannot drop what is not on the disk yet
    return path


def streaming(path: Path, n: int, cold: bool, batch_size: int) -> Turn:
    """A turn of steps on a stream of the n images in a file, cold or cached."""
    step = step_of(MvaeElbo(EXPERIMENTS["mnist"].build()))
    text, generator = torch.randint(10, (n,)), torch.Generator().manual_seed(0)

    def turn() -> None:
        if cold:
            forget(path)
        stream = Stream(Examples({"image": mapped_rows(path), "text": text}), CPU)
        for examples, index in stream.feed(torch.randint(n, (STEPS, batch_size), generator=generator)):
            step(examples, index, len(index), 1.0)

    return turn


def forget(path: Path) -> None:
    """Tell the system to drop the file from memory."""
    file = os.open(path, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
