"""Speed of the Variational Homoencoder's framework beside plain code, in alternating turns.

    python -m tools.benchmarks.vhe                    (or `make bench`)

Support sets: batches of all examples, each with 5 of its class and itself, beside a loop over the elements like the
original's (`benchmarks.plain_vhe`; the goal is a ratio of 20). For images, both spend most of the time copying pixels.
Training steps: `VHE.score` beside the same networks with the bound written out, with the same optimiser and batch (the
goal is a ratio of at least 1/1.2). Data are random: three numbers an example with the linear networks of
`vhe.example_czx`, and images of 28 x 28 with the networks of `vhe.model`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import vhe.model
from common.errors import require_positive
from common.execution import devices
from tools.benchmarks import plain_vhe
from tools.benchmarks.race import Turn, machine, race, ratio
from training import run_from_command_line
from vhe import VHE, Batch, DataLoader
from vhe.example_czx import Px, Qc, Qz

import torch

BATCH_SIZE, CLASS_SIZE = 100, 20
K_SHOT = {"c": 5, "z": 1}
IMAGES = SimpleNamespace(model="character", decoder="deconv", n_latents=64)


class Experiment(NamedTuple):
    """A model and the shape of its random data."""

    build: Callable[[], VHE]
    shape: tuple[int, ...]
    n_steps: int  # training steps of a turn


EXPERIMENTS = {
    "numbers": Experiment(lambda: VHE([Qc(), Qz()], Px()), (3,), 200),
    "images": Experiment(partial(vhe.model.build, IMAGES), (1, 28, 28), 4),
}


@dataclass
class Config:
    """The options of the benchmark."""

    passes: int = 5
    """passes over the examples in a turn, which draws support sets for each example"""
    examples: int = 20_000
    """examples in memory"""
    rounds: int = 8
    """turns of each implementation, alternating; the first turn is a warm-up that does not count"""


def main(config: Config) -> None:
    """Print the table."""
    require_positive(config, "passes", "examples")
    print(f"{machine()}; batch {BATCH_SIZE}, fp32\n")
    print("| | plain, examples/s | ours, examples/s | ratio | range of the ratio |\n|---|---|---|---|---|")
    for name, experiment in EXPERIMENTS.items():
        report(f"{name}, support sets", config.passes * config.examples, draws, name, config)
        report(f"{name}, training step", experiment.n_steps * BATCH_SIZE, steps, name, config)


def report(row: str, n: int, turn: Callable[..., Turn], name: str, config: Config) -> None:
    """Print a row: the speed of turns of n examples, plain and ours."""
    makers = {version: partial(turn, name, config, version == "ours") for version in ("plain", "ours")}
    times = race(makers, config.rounds)
    speeds = " | ".join(f"{n / t.median:,.0f}" for t in times.values())
    median, least, most = ratio(times["plain"], times["ours"])
    print(f"| {row} | {speeds} | {median:.2f} | {least:.2f} to {most:.2f} |", flush=True)


def loader(name: str, n: int, ours: bool) -> DataLoader | plain_vhe.Loader:
    """A loader of n random examples in classes of 20."""
    labels = {"c": [i // CLASS_SIZE for i in range(n)], "z": range(n)}
    data = torch.rand(n, *EXPERIMENTS[name].shape).round()
    return (DataLoader if ours else plain_vhe.Loader)(data, labels, K_SHOT, BATCH_SIZE)


def draws(name: str, config: Config, ours: bool) -> Turn:
    """A turn of drawing support sets."""
    devices.select(cuda=False)
    batches = loader(name, config.examples, ours)

    def turn() -> None:
        for _ in range(config.passes):
            for _ in batches:
                pass

    return turn


def steps(name: str, config: Config, ours: bool) -> Turn:
    """A turn of training steps on one batch."""
    devices.select(cuda=False)
    experiment = EXPERIMENTS[name]
    step = (training_step if ours else plain_vhe.training_step)(experiment.build())
    batch = next(iter(loader(name, config.examples, ours=True)))

    def turn() -> None:
        for _ in range(experiment.n_steps):
            step(batch)

    return turn


def training_step(model: VHE) -> Callable[[Batch], None]:
    """A training step that maximises `VHE.score`."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        (-model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
