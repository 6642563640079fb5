"""Speed of MMVAE on MNIST-SVHN beside a plain implementation in the original's manner, in alternating turns.

    python -m benchmarks.mmvae                  (or `make bench`)

Training steps of DReG, and log-likelihoods: of both modalities, and of each with samples of each encoder. Plain
(`benchmarks.plain_mmvae`): all samples of a batch at once, a pass for each encoder and decoder, an unfused Adam.
Random images. bf16: ours with bfloat16 networks beside plain's float32.
"""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
import tyro

from benchmarks import plain_mmvae
from benchmarks.race import Turn, machine, operations, race
from common import devices
from common.data import Examples
from common.models import MultimodalVAE
from common.objectives import DregElbo
from common.steps import Step
from mnist_svhn.loglike import evaluate
from mnist_svhn.model import build

OPTIONS = {"model": "mmvae", "n_latents": 20, "num_hidden_layers": 1, "learn_prior": True, "llik_scaling": 0.0}
THEIR_PAIRS = 10  # whose likelihoods are estimated at once


@dataclass
class Config:
    K: int = 30
    """samples of each encoder"""
    batch_size: int = 128
    """pairs a step"""
    pairs: int = 20
    """pairs whose likelihoods are estimated in a turn"""
    n_samples: int = 1000
    """importance samples of a likelihood"""
    rounds: int = 8
    """turns of each implementation, alternating; the first of each warms up and is not counted"""


def main(config: Config) -> None:
    print(f"{machine()}\n")
    print("| | plain, pairs/s | ours, pairs/s | ratio | range | ratio of operations |\n|---|---|---|---|---|---|")
    step = f"DReG step, K = {config.K}, batch {config.batch_size}"
    rows = [
        (f"{step}, fp32", config.batch_size, plain_step, partial(our_step, precision="fp32")),
        (f"{step}, bf16", config.batch_size, plain_step, partial(our_step, precision="bf16")),
        (f"log-likelihoods, {config.n_samples} samples", config.pairs, plain_likelihoods, our_likelihoods),
    ]
    for name, n, theirs, ours in rows:
        counts = [operations(make(config)) for make in (theirs, ours)]
        seconds, (ratio, least, most) = race([partial(theirs, config), partial(ours, config)], config.rounds)
        print(
            f"| {name} | {n / seconds[0]:,.1f} | {n / seconds[1]:,.1f} | {ratio:.2f} | {least:.2f} to {most:.2f} "
            f"| {counts[0] / counts[1]:.2f} |",
            flush=True,
        )


def model() -> MultimodalVAE:
    return build(SimpleNamespace(**OPTIONS, prior_and_posterior="laplace"))


def pairs(n: int) -> Examples:
    shapes = {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}
    return Examples({name: torch.randint(256, (n, *shape), dtype=torch.uint8) for name, shape in shapes.items()})


def our_step(config: Config, precision: str) -> Turn:
    ours = devices.prepare(model(), devices.select(cuda=False), precision, compile=False)
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-3, amsgrad=True, fused=True)
    step = Step(DregElbo(ours, config.K, looser=True), optimizer, pairs(config.batch_size))
    return lambda: step(torch.arange(config.batch_size), 1.0)


def plain_step(config: Config) -> Turn:
    step, batch = plain_mmvae.training_step(model(), config.K), pairs(config.batch_size)[:]
    return lambda: step(batch)


def our_likelihoods(config: Config) -> Turn:
    devices.select(cuda=False)
    ours, some = model().eval(), pairs(config.pairs)
    return lambda: evaluate(ours, some, config.n_samples)


def plain_likelihoods(config: Config) -> Turn:
    plain, some = plain_mmvae.Plain(model()).eval(), pairs(config.pairs)
    return lambda: [plain.likelihoods(batch.modalities, config.n_samples) for batch in some.batches(THEIR_PAIRS)]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
