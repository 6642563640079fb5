"""Densities of latents, fitted to draws of them: a masked autoregressive flow, and a score network."""

import copy
import math
from collections.abc import Sequence
from typing import Literal

from common.distributions.flows import HIDDEN
from common.errors import Diverged, require
from common.execution.random_states import fixed_noise
from common.progress import progress_bar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from zuko.flows import MAF

Kind = Literal["maf", "score"]
FEWEST = 20  # examples; two of them are held out
BATCH_SIZE, LR, PATIENCE = 64, 1e-3, 20
DECAY = 0.995  # of the weights' moving average, each step
MAF_BLOCKS = 5
WIDTH, BLOCKS, FREQUENCIES = 256, 3, 8  # of the score network
BETA = (0.1, 20.0)  # of the VP-SDE at t = 0 and at t = 1
FIRST, STEPS = 1e-3, 250  # the smallest time in training; steps of the reverse SDE
GIVEN = 0.2  # the probability that training gives a modality's latents


class LatentPrior(nn.Module):
    """A density of z by its standardised values; `sample((n,))` draws (n, *event_shape), like torch's distributions.

    Args:
        event_shape: (D,), or (M, D) for M modalities with latents of their own.

    Attributes:
        draws: how often the loss of a held-out row is drawn.
    """

    draws = 1

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = torch.Size(event_shape)
        self.register_buffer("loc", torch.zeros(self.event_shape))
        self.register_buffer("scale", torch.ones(self.event_shape))


class MafPrior(LatentPrior):
    """A masked autoregressive flow (Papamakarios et al. 2017, arXiv 1705.07057)."""

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.flow = MAF(self.event_shape.numel(), transforms=MAF_BLOCKS, hidden_features=HIDDEN, passes=min(HIDDEN))

    def loss(self, z: Tensor) -> Tensor:
        """-log p(z) of z (B, *event_shape): (B,), nats."""
        return self.scale.log().sum() - self.flow().log_prob(((z - self.loc) / self.scale).flatten(1))

    @torch.no_grad()
    def sample(self, sample_shape: tuple[int, ...]) -> Tensor:
        return self.loc + self.scale * self.flow().sample(sample_shape).unflatten(-1, self.event_shape)


class ScorePrior(LatentPrior):
    r"""A network of the score of noisy latents, sampled by the reverse SDE (Song et al. 2021, arXiv 2011.13456).

    .. math:: dz = -\tfrac12 \beta(t) z \, dt + \sqrt{\beta(t)} \, dw, \qquad
              z_t = \alpha(t) z_0 + \sigma(t) \epsilon, \quad \nabla \log p(z_t) = -E[\epsilon|z_t] / \sigma(t)

    The network gives v in E[epsilon|z_t] = sigma z_t + alpha v; N(0, I) has v = 0. A factor of z_t in v, by time and
    latent, removes noise from more latents than a hidden layer has units. Each modality with its own latents has a
    time. It is 0 where the latents are given, so that the others are drawn given these (MLD, arXiv 2306.04445).
    """

    draws = 10

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__(event_shape)
        self.n_times, size = math.prod(self.event_shape[:-1]), self.event_shape.numel()  # M or 1
        self.first, self.last = nn.Linear(size + FREQUENCIES * self.n_times, WIDTH), nn.Linear(WIDTH, size, bias=False)
        self.factor = nn.Linear(FREQUENCIES * self.n_times, size)
        for zero in (self.last.weight, self.factor.weight, self.factor.bias):
            nn.init.zeros_(zero)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)) for _ in range(BLOCKS)
        )

    def noise(self, z: Tensor, t: Tensor) -> Tensor:
        """E[epsilon|z_t] of noisy latents (B, M, D) at times (B, M): (B, M, D)."""
        alpha, sigma = (x.unsqueeze(2) for x in signal_and_noise(t))
        waves = (0.5 * math.pi * sigma * torch.arange(1, FREQUENCIES + 1, device=z.device)).sin().flatten(1)
        h = self.first(torch.cat([z.flatten(1), waves], dim=1))
        for block in self.blocks:
            h = h + block(h)
        return sigma * z + alpha * (self.last(h).view_as(z) + self.factor(waves).view_as(z) * z)

    def loss(self, z: Tensor) -> Tensor:
        """The squared error of the noise at a random time, the mean over the latents, of z (B, *event_shape): (B,).

        It is divided by alpha(t), so that late times, at which what is given tells most, count for more. The times of a
        batch are evenly spaced, which lowers the variance (Kingma et al. 2021, arXiv 2107.00630).
        """
        z = ((z - self.loc) / self.scale).view(len(z), self.n_times, -1)  # (B, M, D)
        given = torch.rand(z.shape[:2], device=z.device) < (GIVEN if self.n_times > 1 else 0)
        even = (torch.rand(()).to(z) + torch.arange(len(z)).to(z) / len(z)) % 1  # (B,)
        t = (FIRST + (1 - FIRST) * even).unsqueeze(1).expand(given.shape).masked_fill(given, 0)
        noise = torch.randn_like(z)
        alpha, sigma = (x.unsqueeze(2) for x in signal_and_noise(t))
        error = ((self.noise(alpha * z + sigma * noise, t) - noise).square() / alpha).mean(dim=2)
        return error.masked_fill(given, 0).mean(dim=1)

    def sample(self, sample_shape: tuple[int, ...]) -> Tensor:
        return self.sample_given(self.loc.expand(*sample_shape, *self.event_shape), ())

    @torch.no_grad()
    def sample_given(self, z: Tensor, given: Sequence[int]) -> Tensor:
        """z (B, *event_shape) with new draws where the modality's index is not given, by Euler-Maruyama steps."""
        known = ((z - self.loc) / self.scale).view(len(z), self.n_times, -1)  # (B, M, D)
        is_given = torch.tensor([m in given for m in range(self.n_times)], device=z.device)
        x = torch.randn_like(known)
        for t in torch.linspace(1, 0, STEPS + 1, device=z.device, dtype=x.dtype)[:-1]:
            x = torch.where(is_given[:, None], known, x)
            score = -self.noise(x, torch.where(is_given, 0, t).expand(len(x), -1)) / signal_and_noise(t)[1]
            step = (BETA[0] + t * (BETA[1] - BETA[0])) / STEPS
            mean = x + step * (0.5 * x + score)
            x = mean + step.sqrt() * torch.randn_like(x)
        last = torch.where(is_given[:, None], known, mean)  # without the noise of the last step
        return self.loc + self.scale * last.view_as(z)


def signal_and_noise(t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) of the VP-SDE, for t (...) in [0, 1]: (...) each; their squares add up to 1."""
    log_alpha = -0.25 * t.square() * (BETA[1] - BETA[0]) - 0.5 * t * BETA[0]
    return log_alpha.exp(), (-torch.expm1(2 * log_alpha)).sqrt()


KINDS: dict[Kind, type[LatentPrior]] = {"maf": MafPrior, "score": ScorePrior}


def fit(kind: Kind, z: Tensor, epochs: int) -> tuple[LatentPrior, list[float]]:
    """Fit a density to latents (N, *event_shape) with Adam; a tenth is held out, and selects the best epoch.

    Prints the held-out loss of each epoch, and stops after `PATIENCE` epochs without a better one. The random state
    decides all draws.

    Returns:
        the density, on the device of z, and the mean loss of the held-out latents after each epoch.

    Raises:
        InputError: too few examples.
        Diverged: a loss is not finite.
    """
    require(len(z) >= FEWEST, f"a density of latents needs {FEWEST} examples or more (got {len(z)}): raise --limit")
    held_out, z = z[torch.randperm(len(z)).to(z.device)].tensor_split([len(z) // 10])
    prior = KINDS[kind](z.shape[1:]).to(z)
    prior.loc.copy_(z.mean(dim=0))
    prior.scale.copy_(z.std(dim=0))
    held_out = held_out.repeat(prior.draws, *[1] * (z.dim() - 1))
    averaged = AveragedModel(prior, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    optimizer, losses, best = torch.optim.Adam(prior.parameters(), lr=LR), [], 0
    while len(losses) < epochs and len(losses) - best < PATIENCE:
        batches = torch.randperm(len(z)).to(z.device).split(BATCH_SIZE)
        for rows in progress_bar(batches, desc=f"epoch {len(losses) + 1}", unit=" batches", leave=False):
            optimizer.zero_grad()
            prior.loss(z[rows]).mean().backward()
            optimizer.step()
            averaged.update_parameters(prior)
        with torch.no_grad(), fixed_noise(0, z.device):
            losses.append(averaged.module.loss(held_out).mean().item())
        if not math.isfinite(losses[-1]):
            raise Diverged(f"the loss is {losses[-1]} in epoch {len(losses)}: take another --seed, or more examples")
        is_best = losses[-1] == min(losses)
        if is_best:
            best, state = len(losses), copy.deepcopy(averaged.module.state_dict())
        print(f"epoch {len(losses)}/{epochs}  held-out loss {losses[-1]:.4f}{' *' if is_best else ''}")
    prior.load_state_dict(state)
    return prior.eval(), losses
