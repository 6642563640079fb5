"""Speed of MVAE beside a plain implementation in the originals' manner, alternating in one process.

    python -m benchmarks.mvae                   all experiments (or `make bench`)
    python -m benchmarks.mvae fashionmnist      some

Plain (`benchmarks.plain`): one forward pass of both encoders and both decoders per ELBO term (three a batch), sums
written out, an unfused Adam, and for end to end a DataLoader over PIL images with ToTensor. Random data of the
dataset's shape and size. Operations are those of products and convolutions, a multiply-add two: their ratio would be
the ratio of the speeds if both did as many a second.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Literal, NamedTuple

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

import fashionmnist.model
import mnist.model
import multimnist.model
from benchmarks import plain
from common import devices
from common.data import Batch, Examples
from common.models import MultimodalVAE
from common.objectives import MvaeElbo
from common.runs import RunConfig
from common.training import Meter
from mnist.loglike import evaluate

OPTIONS = SimpleNamespace(n_latents=64, model="mvae", teacher_forcing=False)
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
    torch.manual_seed(0)
    devices.select(cuda=False)
    ours = torch.get_float32_matmul_precision()
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"batch {BATCH_SIZE}, fp32; a large convolution reaches {peak():.0f} GFLOP/s\n"
    )
    print(
        "| | plain, examples/s | ours, examples/s | ratio | range of the ratio | ratio of operations "
        "| ours, GFLOP/s |\n|---|---|---|---|---|---|---|"
    )
    for name in config.experiments:
        compare(name, EXPERIMENTS[name], config, ours)
    print(f"\n| log-likelihoods, {config.n_samples} samples | images/s | s for 10,000 images |\n|---|---|---|")
    for name in config.experiments:
        experiment = EXPERIMENTS[name]
        model, some = experiment.build().eval(), experiment.examples(config.images)
        rate = config.images / timed(lambda model=model, some=some: evaluate(model, some, config.n_samples))
        print(f"| {name} | {rate:.1f} | {10_000 / rate:.0f} |")


def compare(name: str, experiment: Experiment, config: Config, precision: str) -> None:
    """Print the rows of an experiment: steps on one batch, and end to end.

    Args:
        precision: of our matrix products (`torch.set_float32_matmul_precision`); theirs has torch's default.
    """
    n = config.batches * BATCH_SIZE
    examples = experiment.examples(n)
    batch = examples[:BATCH_SIZE]
    steps = plain.training_step(experiment.build()), training_step(experiment.build())
    operations = [count(step, batch) / BATCH_SIZE for step in steps]

    def same() -> Iterable[Batch]:
        return [batch] * config.batches

    def shuffled() -> Iterable[Batch]:
        return examples.batches(BATCH_SIZE, torch.randperm(n))

    def loaded() -> Iterable[Batch]:
        return plain.loaded(examples, BATCH_SIZE)

    for row, data in (("training step", (same, same)), ("end to end", (loaded, shuffled))):
        turns = [partial(go, *turn) for turn in zip(("highest", precision), steps, data, strict=True)]
        times = [[timed(turn) for turn in turns] for _ in range(config.rounds)]
        rates = [statistics.median(n / t for t in column) for column in zip(*times[1:], strict=True)]
        ratios = sorted(t[0] / t[1] for t in times[1:])
        print(
            f"| {name}, {row} | {rates[0]:,.0f} | {rates[1]:,.0f} | {statistics.median(ratios):.2f} "
            f"| {ratios[0]:.2f} to {ratios[-1]:.2f} | {operations[0] / operations[1]:.2f} "
            f"| {operations[1] * rates[1] / 1e9:.0f} |",
            flush=True,
        )


def go(precision: str, step: Step, batches: Callable[[], Iterable[Batch]]) -> None:
    torch.set_float32_matmul_precision(precision)
    for batch in batches():
        step(batch)


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


def count(step: Step, batch: Batch) -> int:
    """Operations of a step, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        step(batch)
    return counter.get_total_flops()


def peak() -> float:
    """GFLOP/s, fp32."""
    x, weight = torch.randn(100, 128, 28, 28), torch.randn(128, 128, 3, 3)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    return 2e-9 * 100 * 26**2 * weight.numel() / min(timed(lambda: torch.conv2d(x, weight)) for _ in range(10))


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
