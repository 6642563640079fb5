"""Speed of MMVAE beside a plain implementation in the original's manner, in alternating turns.

    python -m benchmarks.mmvae                                         MNIST-SVHN (or `make bench`)
    python -m benchmarks.mmvae --experiment images --K 10 --batch-size 64        CUB's birds (or features)

Training steps of DReG, and log-likelihoods: of both modalities, and of each with samples of each encoder. Plain
(`benchmarks.plain_mmvae`): all samples of a batch at once, a pass for each encoder and decoder, an unfused Adam.
Random data. bf16: ours with bfloat16 networks beside plain's float32.
"""

from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Literal

import torch
import tyro

import cub.model
import mnist_svhn.model
from benchmarks import plain_mmvae
from benchmarks.race import Turn, machine, operations, race
from common import devices
from common.data import Examples
from common.models import MultimodalVAE
from common.objectives import DregElbo
from common.steps import Step
from cub.captions import END, PADDING
from mnist_svhn.loglike import evaluate

PAIRS = {"model": "mmvae", "n_latents": 20, "num_hidden_layers": 1, "prior_and_posterior": "laplace"}
BIRDS = {"n_latents": 128, "fusion": "moe", "vocabulary": ["word"] * 1590}
OPTIONS = {
    "mnist_svhn": PAIRS | {"llik_scaling": 0.0},
    "images": BIRDS | {"model": "images", "posterior": "laplace-normal", "llik_scaling": 0.0},
    "features": BIRDS | {"model": "features", "posterior": "softplus-normal", "llik_scaling": 0.002, "n_latents": 64},
}
IMAGES = {"mnist": (1, 28, 28), "svhn": (3, 32, 32), "image": (3, 64, 64)}
THEIR_PAIRS = 10  # whose likelihoods are estimated at once


@dataclass
class Config:
    experiment: Literal["mnist_svhn", "images", "features"] = "mnist_svhn"
    """MNIST-SVHN, or CUB's birds with photographs or with features"""
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


def model(experiment: str, **changed: str) -> MultimodalVAE:
    module = mnist_svhn.model if experiment == "mnist_svhn" else cub.model
    return module.build(SimpleNamespace(**OPTIONS[experiment] | changed, learn_prior=True))


def pairs(experiment: str, n: int) -> Examples:
    """Random ones of what the model takes; captions have 16 words."""
    x = {
        name: torch.randint(256, (n, *IMAGES[name]), dtype=torch.uint8)
        for name in model(experiment).modalities
        if name in IMAGES
    }
    if experiment == "features":
        x["feature"] = torch.rand(n, 2048)
    if experiment != "mnist_svhn":
        x["caption"] = torch.randint(3, 1590, (n, 32))
        x["caption"][:, 16], x["caption"][:, 17:] = END, PADDING
    return Examples(x)


def our_step(config: Config, precision: str) -> Turn:
    ours = devices.prepare(model(config.experiment), devices.select(cuda=False), precision, compile=False)
    optimizer = torch.optim.Adam(ours.parameters(), lr=1e-3, amsgrad=True, fused=True)
    step = Step(DregElbo(ours, config.K, looser=True), optimizer)
    examples, n = pairs(config.experiment, config.batch_size), config.batch_size
    return lambda: step(examples, torch.arange(n), n, 1.0)


def plain_step(config: Config) -> Turn:
    step = plain_mmvae.training_step(model(config.experiment), config.experiment, config.K)
    batch = pairs(config.experiment, config.batch_size)[:]
    return lambda: step(batch)


def our_likelihoods(config: Config) -> Turn:
    devices.select(cuda=False)
    ours, some = model(config.experiment).eval(), pairs(config.experiment, config.pairs)
    return lambda: evaluate(ours, some, config.n_samples)


def plain_likelihoods(config: Config) -> Turn:
    plain = plain_mmvae.Plain(model(config.experiment), config.experiment).eval()
    some = pairs(config.experiment, config.pairs)
    return lambda: [plain.likelihoods(batch.modalities, config.n_samples) for batch in some.batches(THEIR_PAIRS)]


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
