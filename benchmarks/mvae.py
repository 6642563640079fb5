"""Speed of MVAE beside a plain implementation in the originals' manner, in alternating turns.

    python -m benchmarks.mvae                   all experiments (or `make bench`)
    python -m benchmarks.mvae fashionmnist      some

Plain (`benchmarks.plain`): one forward pass of both encoders and both decoders per ELBO term (three a batch), sums
written out, an unfused Adam, and for end to end a DataLoader over PIL images with ToTensor. Random data of the
dataset's shape and size. Operations are those of products and convolutions, a multiply-add two: their ratio would be
the ratio of the speeds if both did as many a second.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Literal, NamedTuple

import torch
import tyro

import fashionmnist.model
import mnist.model
import multimnist.model
from benchmarks import plain
from benchmarks.race import Turn, machine, operations, race, timed
from common import devices
from common.data import Batch, Examples
from common.models import MultimodalVAE
from common.objectives import MvaeElbo
from common.options import RunConfig
from common.training import Meter
from mnist.loglike import evaluate

OPTIONS = SimpleNamespace(n_latents=64, model="mvae", posterior="gaussian", teacher_forcing=False)
BATCH_SIZE = 100
Step = Callable[[Batch], None]


class Experiment(NamedTuple):
    build: Callable[[], MultimodalVAE]
    size: int = 28
    text: tuple[int, ...] = ()

    def examples(self, n: int) -> Examples:
        """Random images (n, 1, size, size) and texts (n, *text) of digits."""
        images = torch.randint(256, (n, 1, self.size, self.size), dtype=torch.uint8)
        return Examples({"image": images, "text": torch.randint(10, (n, *self.text))})


EXPERIMENTS = {
    "mnist": Experiment(partial(mnist.model.build, OPTIONS)),
    "fashionmnist": Experiment(partial(fashionmnist.model.build, OPTIONS)),
    "multimnist": Experiment(partial(multimnist.model.build, OPTIONS), size=50, text=(4,)),
}


@dataclass
class Config:
    experiments: tyro.conf.Positional[tuple[Literal["mnist", "fashionmnist", "multimnist"], ...]] = tuple(EXPERIMENTS)
    batches: int = 20
    """batches in a round"""
    rounds: int = 20
    """rounds of each implementation, alternating; the first of each warms up and is not counted"""
    images: int = 200
    """images whose likelihoods are estimated"""
    n_samples: int = 1000
    """importance samples an image"""


def main(config: Config) -> None:
    print(f"{machine()}; batch {BATCH_SIZE}, fp32\n")
    print(
        "| | plain, examples/s | ours, examples/s | ratio | range of the ratio | ratio of operations "
        "| ours, GFLOP/s |\n|---|---|---|---|---|---|---|"
    )
    for name in config.experiments:
        compare(name, config)
    devices.select(cuda=False)
    print(f"\n| log-likelihoods, {config.n_samples} samples | images/s | s for 10,000 images |\n|---|---|---|")
    for name in config.experiments:
        experiment = EXPERIMENTS[name]
        model, some = experiment.build().eval(), experiment.examples(config.images)
        rate = config.images / timed(lambda model=model, some=some: evaluate(model, some, config.n_samples))
        print(f"| {name} | {rate:.1f} | {10_000 / rate:.0f} |")


def compare(name: str, config: Config) -> None:
    """Print the rows of an experiment: steps on one batch, and end to end."""
    n = config.batches * BATCH_SIZE
    counts = [
        operations(partial(step(EXPERIMENTS[name].build()), EXPERIMENTS[name].examples(BATCH_SIZE)[:])) / BATCH_SIZE
        for step in (plain.training_step, training_step)
    ]
    for row, end_to_end in (("training step", False), ("end to end", True)):
        makers = [partial(make, name, config.batches, end_to_end) for make in (plain_turn, turn)]
        seconds, (ratio, least, most) = race(makers, config.rounds)
        rates = [n / s for s in seconds]
        print(
            f"| {name}, {row} | {rates[0]:,.0f} | {rates[1]:,.0f} | {ratio:.2f} | {least:.2f} to {most:.2f} "
            f"| {counts[0] / counts[1]:.2f} | {counts[1] * rates[1] / 1e9:.0f} |",
            flush=True,
        )


def turn(name: str, n_batches: int, end_to_end: bool) -> Turn:
    """Our batches: always the same, or shuffled out of a split in memory."""
    devices.select(cuda=False)
    examples, step = EXPERIMENTS[name].examples(n_batches * BATCH_SIZE), training_step(EXPERIMENTS[name].build())

    def go() -> None:
        same = [examples[:BATCH_SIZE]] * n_batches
        for batch in examples.batches(BATCH_SIZE, torch.randperm(len(examples))) if end_to_end else same:
            step(batch)

    return go


def plain_turn(name: str, n_batches: int, end_to_end: bool) -> Turn:
    """Theirs: always the same, or from their loader."""
    examples, step = EXPERIMENTS[name].examples(n_batches * BATCH_SIZE), plain.training_step(EXPERIMENTS[name].build())

    def go() -> None:
        same = [examples[:BATCH_SIZE]] * n_batches
        for batch in plain.loaded(examples, BATCH_SIZE) if end_to_end else same:
            step(batch)

    return go


def training_step(model: MultimodalVAE) -> Step:
    objective = MvaeElbo(model, weights={"image": plain.LAMBDA_IMAGE, "text": plain.LAMBDA_TEXT})
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)
    meter = Meter()

    def step(batch: Batch) -> None:
        loss, bound = objective.loss(batch, beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.add(bound, len(batch))
        if len(meter.pending) == RunConfig.log_interval:
            meter.check("in the benchmark")

    return step


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
