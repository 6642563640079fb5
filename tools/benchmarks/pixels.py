"""Speed of the vectorised layout beside a loop over modalities, and of von Mises-Fisher beside Gaussian posteriors.

    python -m tools.benchmarks.pixels                 (or `make bench`)

Training steps with 784 pixels as modalities, the same shared networks and the same bound: a loop in Python encodes,
decodes and scores one pixel after the other. On a CPU both do the same operations, so only the loop's overhead is
saved; it is negligible if a pixel's networks are large. Images are random.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from common.errors import require_positive
from common.experts import product_of_experts
from common.models import MultimodalVAE
from common.models.families import FAMILIES
from common.objectives import StandardElbo
from mnist.parts.model import N_PIXELS, build
from tools.benchmarks.race import Turn, machine, race, ratio
from training import devices, run_from_command_line

LATENTS = 64
DRAWS = 50  # of a turn, since a single draw takes less time than waking the process
OPTIONS = {
    "layout": "pixels",
    "decoder": "shared",
    "fusion": "poe",
    "posterior": "gaussian",
    "likelihood": "bernoulli",
    "learn_prior": False,
    "n_latents": 20,
    "layers": 1,
    "embed_dim": None,
}


@dataclass
class Config:
    """The options of the benchmark."""

    batch_sizes: tuple[int, ...] = (10, 100)
    """images in a batch"""
    hidden: tuple[int, ...] = (32, 200)
    """widths of the networks"""
    posteriors: int = 3840
    """number of posteriors of 64 dimensions to sample from, with gradients"""
    rounds: int = 8
    """turns of each implementation, alternating; the first turn is a warm-up that does not count"""


def main(config: Config) -> None:
    """Print both tables."""
    require_positive(config, "batch_sizes", "hidden", "posteriors")
    print(f"{machine()}\n")
    print("| 784 pixels, training step | loop, images/s | ours, images/s | ratio | range |\n|---|---|---|---|---|")
    for n in config.batch_sizes:
        for hidden in config.hidden:
            times = race(
                {bound.__name__: partial(step, n, hidden, bound) for bound in (loop, vectorised)}, config.rounds
            )
            speeds = " | ".join(f"{n / t.median:,.0f}" for t in times.values())
            median, least, most = ratio(times["loop"], times["vectorised"])
            name = f"batch {n}, width {hidden}"
            print(f"| {name} | {speeds} | {median:.1f} | {least:.1f} to {most:.1f} |", flush=True)
    print("\n| samples of D = 64, with gradients | Gaussian, a second | vMF, a second | ratio | range |")
    print("|---|---|---|---|---|")
    times = race({name: partial(sampling, config.posteriors, name) for name in ("gaussian", "vmf")}, config.rounds)
    speeds = " | ".join(f"{DRAWS * config.posteriors / t.median:,.0f}" for t in times.values())
    median, least, most = ratio(times["vmf"], times["gaussian"])
    print(f"| {config.posteriors} | {speeds} | {median:.2f} | {least:.2f} to {most:.2f} |")


def step(n: int, hidden: int, bound: Callable[[MultimodalVAE, Tensor], Tensor]) -> Turn:
    """A training step on n images that maximises the bound."""
    devices.select(cuda=False)
    model, x = build(SimpleNamespace(**OPTIONS, hidden=hidden)), torch.rand(n, N_PIXELS, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def turn() -> None:
        optimizer.zero_grad()
        (-bound(model, x).mean()).backward()
        optimizer.step()

    return turn


def vectorised(model: MultimodalVAE, x: Tensor) -> Tensor:
    """The ELBO of images (B, 784, 1), (B,), in nats."""
    return StandardElbo(model).bound({"pixel": x}).value


def loop(model: MultimodalVAE, x: Tensor) -> Tensor:
    """The same, pixel by pixel."""
    encoder, decoder = model.encoder["pixel"], model.decoder["pixel"]
    experts = [encoder.rest(encoder.first(x[:, i]) * encoder.scale[i] + encoder.shift[i]) for i in range(N_PIXELS)]
    mu, logvar = product_of_experts(*(torch.stack(p) for p in zip(*experts, strict=True)))
    z = mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    bound = -0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(dim=1)
    for i in range(N_PIXELS):
        logits = decoder.rest(decoder.first(z) * decoder.scale[i] + decoder.shift[i])
        bound = bound - binary_cross_entropy_with_logits(logits, x[:, i], reduction="none").sum(dim=1)
    return bound


def sampling(n: int, posterior: str) -> Turn:
    """DRAWS samples of n posteriors of a family, with gradients."""
    devices.select(cuda=False)
    family = FAMILIES[posterior]
    params = [torch.randn(n, LATENTS, requires_grad=True) for _ in range(family.n_params)]
    build_posterior = family.posterior((LATENTS,))

    def turn() -> None:
        for _ in range(DRAWS):
            build_posterior(tuple(params)).rsample().square().sum().backward()

    return turn


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
