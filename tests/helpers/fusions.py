"""The linear-Gaussian model under every fusion, and the exact components of its mixtures."""

import itertools

from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from tests.helpers.linear_gaussian import NAMES, D, exact_posterior, linear_gaussian

import torch
from torch import nn

PATTERNS = [("a", "b", "c"), ("b",), ("a", "c"), ("b", "c"), ()]


class Exact(nn.Module):
    """p(z|x_S) of the linear-Gaussian model: its mean and -log of its precision, less the prior's 1 where told."""

    def __init__(self, weights, scales, names, excess=False):
        super().__init__()
        precision = sum((weights[name] ** 2).sum(dim=0) / scales[name] ** 2 for name in names)
        self.log_precision = nn.Parameter((precision if excess else 1 + precision).log())
        self.means = nn.ParameterList(weights[name] / scales[name] ** 2 / (1 + precision) for name in names)

    def forward(self, *xs):
        mu = sum(x @ mean for x, mean in zip(xs, self.means, strict=True))
        return mu, -self.log_precision.expand_as(mu)


def with_fusion(fusion, n_modalities=2, backwards=False):
    """The linear-Gaussian model with other experts; those of "quotient", "own", "joint" and "jnf" are exact posteriors.

    Args:
        backwards: name the encoders in the reverse order.
    """
    model, weights, scales = linear_gaussian(n_modalities)
    encoder = dict(model.encoder)
    if fusion == "quotient":
        encoder = {name: Exact(weights, scales, (name,), excess=True) for name in weights}
    if fusion == "own":
        keys = [",".join(names) for r in range(n_modalities) for names in itertools.combinations(weights, r + 1)]
        encoder = {key: Exact(weights, scales, key.split(",")) for key in keys}
    if fusion in ("joint", "jnf"):
        encoder = {key: Exact(weights, scales, key.split(",")) for key in (*weights, ",".join(weights))}
    encoder = dict(reversed(encoder.items())) if backwards else encoder
    model = VAE(fusion, encoder, dict(model.decoder), model.likelihood, latent_dim=D)
    return model.double().eval(), weights, scales


def row(inputs, i):
    return {name: x[i : i + 1] for name, x in inputs.items()}


def mask_of(patterns, names=NAMES[:3]):
    return torch.tensor([[name in pattern for name in names] for pattern in patterns])


def subsets_of(pattern):
    return [s for r in range(1, len(pattern) + 1) for s in itertools.combinations(pattern, r)]


def components(fusion, weights, scales, inputs, pattern):
    """Means and variances (T, D) of a mixture for one example, by textbook formulas with full matrices."""
    if not pattern:
        return torch.zeros(1, D, dtype=torch.float64), torch.ones(1, D, dtype=torch.float64)
    parts = []
    for subset in [(name,) for name in pattern] if fusion == "moe" else subsets_of(pattern):
        if fusion == "mopoe" or (fusion == "mopoe-published" and len(subset) == len(weights)):
            parts.append(exact_posterior(weights, scales, inputs, subset))
        else:  # the likelihood of z alone: least squares
            covariance = torch.linalg.inv(sum(weights[name].T @ weights[name] / scales[name] ** 2 for name in subset))
            mean = sum(inputs[name] @ weights[name] / scales[name] ** 2 for name in subset) @ covariance
            parts.append((mean, covariance.diag()[None]))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


# fusions whose posterior holds p(z) as N(0, I)
STANDARD_PRIOR = [
    name
    for name, fusion in FUSIONS.items()
    if fusion.strategy and fusion.strategy(FAMILIES["gaussian"], dict.fromkeys(("a", "b", "a,b"))).needs_standard_prior
]


def learns_prior(fusion, family):
    """Whether a model with a fusion of a family's experts can learn its prior."""
    return fusion not in STANDARD_PRIOR and not FAMILIES[family].fixed_prior
