"""Distributions in a form that torch.distributions lacks."""

import math

from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.distributions.kl import register_kl


class DiagonalGaussian(Independent):
    """N(mu, diag(exp(logvar))), one event of D dimensions.

    It keeps the log-variance, so that densities and KLs stay exact, with finite gradients, where a variance in float32
    is not.

    Args:
        mu, logvar: (..., D).
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        super().__init__(Normal(mu, (0.5 * logvar).exp(), validate_args=False), 1)
        self.logvar = logvar

    def log_prob(self, value: Tensor) -> Tensor:
        u = (value - self.mean) * (-0.5 * self.logvar).exp()
        return -0.5 * (u.square() + self.logvar + math.log(2 * math.pi)).sum(dim=-1)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "DiagonalGaussian":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.mean.expand(shape), self.logvar.expand(shape))


class Joined(Distribution):
    """n independent vectors of d dimensions as one of n d.

    Args:
        parts: a distribution of batch shape (..., n) and event shape (d,).
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, parts: Distribution) -> None:
        self.parts, self.shape = parts, (parts.batch_shape[-1], *parts.event_shape)
        super().__init__(parts.batch_shape[:-1], Size([self.shape[0] * self.shape[1]]), validate_args=False)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "Joined":
        return Joined(self.parts.expand((*batch_shape, self.shape[0])))

    @property
    def mean(self) -> Tensor:
        return self.parts.mean.flatten(-2)

    @property
    def variance(self) -> Tensor:
        return self.parts.variance.flatten(-2)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.parts.rsample(sample_shape).flatten(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.parts.log_prob(value.unflatten(-1, self.shape)).sum(dim=-1)


@register_kl(Joined, Joined)
def _kl_joined(q: Joined, p: Joined) -> Tensor:
    return kl_divergence(q.parts, p.parts).sum(dim=-1)


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl_diagonal_gaussians(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) in nats, summed over D: (...)."""
    ratio = q.logvar - p.logvar
    return 0.5 * (ratio.exp() + (q.mean - p.mean).square() * (-p.logvar).exp() - 1 - ratio).sum(dim=-1)
