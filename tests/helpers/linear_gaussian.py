"""A multimodal model whose every quantity is known exactly: z ~ N(0, I), x_m = W_m z + N(0, s_m^2).

The columns of each W_m are orthogonal, so that every posterior is a diagonal Gaussian and a product of exact experts.
"""

import math

from common.likelihoods import GroupedLikelihood
from common.models import MVAE

import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

D, N_FEATURES = 2, 3
NAMES = ("a", "b", "c", "d")


class Expert(nn.Module):
    """The likelihood p(x_m|z) as a function of z: a Gaussian with mean T^-1 W' x / s^2, precision T = W'W / s^2."""

    def __init__(self, weight, scale):
        super().__init__()
        self.precision = nn.Parameter((weight**2).sum(dim=0) / scale**2)
        self.mean = nn.Parameter(weight / scale**2 / self.precision.detach())

    def forward(self, x):
        mu = x @ self.mean
        return mu, -self.precision.log().expand_as(mu)


class Decoder(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z):
        assert z.dim() == 2, "networks only ever see (N, D)"
        return z @ self.weight.T


class Gaussian(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, mean):
        return Independent(Normal(mean, self.scale), 1)

    def point(self, p):
        return p.mean


def linear_gaussian(n_modalities, generator=None):
    """The model with its exact posterior, in float64, and its matrices W_m and scales s_m."""
    generator = generator or torch.Generator().manual_seed(1)
    names = NAMES[:n_modalities]
    scales = {name: 0.5 + 0.3 * m for m, name in enumerate(names)}
    weights = {}
    for name in names:
        q, _ = torch.linalg.qr(torch.randn(N_FEATURES, D, generator=generator, dtype=torch.float64))
        weights[name] = q * torch.tensor([1.5, 0.7], dtype=torch.float64)
    model = MVAE(
        encoder={name: Expert(weights[name], scales[name]) for name in names},
        decoder={name: Decoder(weights[name]) for name in names},
        likelihood=GroupedLikelihood(**{name: Gaussian(scales[name]) for name in names}),
        latent_dim=D,
    )
    return model.double(), weights, scales


def draw(weights, scales, n):
    z = torch.randn(n, n_latents(weights), dtype=torch.float64)
    return {name: z @ w.T + scales[name] * torch.randn(n, len(w), dtype=torch.float64) for name, w in weights.items()}


def n_latents(weights):
    """D, from matrices (N_m, D)."""
    return next(iter(weights.values())).shape[1]


def exact_log_p(weights, scales, inputs, target):
    """log p of the target modalities, (B,)."""
    w = torch.cat([weights[name] for name in target])
    noise = torch.cat([torch.full((len(weights[name]),), scales[name] ** 2, dtype=torch.float64) for name in target])
    x = torch.cat([inputs[name] for name in target], dim=1)
    return MultivariateNormal(torch.zeros(len(w), dtype=torch.float64), w @ w.T + noise.diag()).log_prob(x)


def exact_posterior(weights, scales, inputs, given):
    """Mean and variance of p(z|x_given), (B, D), by the textbook formula with full matrices."""
    precision = torch.eye(n_latents(weights), dtype=torch.float64)
    precision = precision + sum(weights[n].T @ weights[n] / scales[n] ** 2 for n in given)
    covariance = torch.linalg.inv(precision)
    mean = sum(inputs[n] @ weights[n] / scales[n] ** 2 for n in given) @ covariance
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-12
    return mean, covariance.diag().expand_as(mean)


def expected_log_p(weights, scales, inputs, name, mean, variance):
    """E log p(x_m|z) over z ~ N(mean, variance), (B, D)."""
    at_mean = Normal(mean @ weights[name].T, scales[name]).log_prob(inputs[name]).sum(dim=-1)
    return at_mean - 0.5 * (variance * weights[name].square().sum(dim=0)).sum(dim=-1) / scales[name] ** 2


def standard_error(x):
    return x.std().item() / math.sqrt(len(x))
