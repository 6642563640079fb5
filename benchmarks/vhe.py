"""Speed of the Variational Homoencoder's framework beside plain code, in alternating turns.

    python -m benchmarks.vhe                    (or `make bench`)

Support sets: all examples once, each with 5 of its class and itself, in batches, beside a loop over the elements in
the original's manner (`benchmarks.plain_vhe`; at least 20 times as fast is wanted). Of images, copying their pixels is
most of the work of both. Training steps: `VHE.score` beside the same networks with the bound written out, the same
optimiser and batch (a ratio of at least 1/1.2 is wanted). Random data: three numbers an example with the linear
networks of `vhe.example_czx`, and images of 28 x 28 with those of `vhe.model`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import torch

import vhe.model
from benchmarks import plain_vhe
from benchmarks.race import Turn, machine, race, ratio
from common.training import devices, run_from_command_line
from vhe import VHE, Batch, DataLoader
from vhe.example_czx import Px, Qc, Qz

BATCH_SIZE, OF_A_CLASS = 100, 20
K_SHOT = {"c": 5, "z": 1}
IMAGES = SimpleNamespace(model="character", decoder="deconv", n_latents=64)


class Experiment(NamedTuple):
    build: Callable[[], VHE]
    shape: tuple[int, ...]
    n_steps: int  # a turn


EXPERIMENTS = {
    "numbers": Experiment(lambda: VHE([Qc(), Qz()], Px()), (3,), 200),
    "images": Experiment(partial(vhe.model.build, IMAGES), (1, 28, 28), 4),
}


@dataclass
class Config:
    draws: int = 100_000
    """examples whose support sets are drawn in a turn"""
    examples: int = 20_000
    """examples in memory"""
    rounds: int = 8
    """turns of each implementation, alternating; the first turn is a warm-up that does not count"""


def main(config: Config) -> None:
    print(f"{machine()}; batch {BATCH_SIZE}, fp32\n")
    print("| | plain, examples/s | ours, examples/s | ratio | range of the ratio |\n|---|---|---|---|---|")
    for name, experiment in EXPERIMENTS.items():
        report(f"{name}, support sets", config.draws, draws, name, config)
        report(f"{name}, training step", experiment.n_steps * BATCH_SIZE, steps, name, config)


def report(row: str, n: int, turn: Callable[..., Turn], name: str, config: Config) -> None:
    times = race({who: partial(turn, name, config, who == "ours") for who in ("plain", "ours")}, config.rounds)
    speeds = " | ".join(f"{n / of.median:,.0f}" for of in times.values())
    median, least, most = ratio(times["plain"], times["ours"])
    print(f"| {row} | {speeds} | {median:.2f} | {least:.2f} to {most:.2f} |", flush=True)


def loader(name: str, n: int, ours: bool) -> DataLoader | plain_vhe.Loader:
    labels = {"c": [i // OF_A_CLASS for i in range(n)], "z": range(n)}
    data = torch.rand(n, *EXPERIMENTS[name].shape).round()
    return (DataLoader if ours else plain_vhe.Loader)(data, labels, K_SHOT, BATCH_SIZE)


def draws(name: str, config: Config, ours: bool) -> Turn:
    devices.select(cuda=False)
    batches = loader(name, config.examples, ours)

    def turn() -> None:
        for _ in range(config.draws // config.examples):
            for _ in batches:
                pass

    return turn


def steps(name: str, config: Config, ours: bool) -> Turn:
    devices.select(cuda=False)
    experiment = EXPERIMENTS[name]
    step = (training_step if ours else plain_vhe.training_step)(experiment.build())
    batch = next(iter(loader(name, config.examples, ours=True)))

    def turn() -> None:
        for _ in range(experiment.n_steps):
            step(batch)

    return turn


def training_step(model: VHE) -> Callable[[Batch], None]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        (-model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
