"""Distributions in a form that torch.distributions lacks."""

import math

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Independent, Laplace, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl

LOG_2, LOG_2_PI = math.log(2), math.log(2 * math.pi)


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
        return -0.5 * (u.square() + self.logvar + LOG_2_PI).sum(dim=-1)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "DiagonalGaussian":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.mean.expand(shape), self.logvar.expand(shape))


class LaplaceOrNormal(Distribution):
    """Independent values, each of a Laplace or of a normal distribution, so that experts of both make one mixture.

    Args:
        loc, scale: (...).
        laplace: (...) bool, which values are Laplace.
    """

    arg_constraints = {  # noqa: RUF012 (torch's own name)
        "loc": constraints.real,
        "scale": constraints.positive,
        "laplace": constraints.boolean,
    }
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, laplace: Tensor, validate_args: bool | None = False) -> None:
        self.loc, self.scale, self.laplace = torch.broadcast_tensors(loc, scale, laplace)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return torch.where(self.laplace, 2, 1) * self.scale.square()

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        zero, one = torch.zeros_like(self.loc), torch.ones_like(self.loc)
        noise = (of(zero, one, validate_args=False).sample(sample_shape) for of in (Laplace, Normal))
        return self.loc + self.scale * torch.where(self.laplace, *noise)

    def log_prob(self, value: Tensor) -> Tensor:
        u = (value - self.loc) / self.scale
        log_p = torch.where(self.laplace, -u.abs() - LOG_2, -0.5 * (u.square() + LOG_2_PI))
        return log_p - self.scale.log()


@register_kl(LaplaceOrNormal, Laplace)
@register_kl(LaplaceOrNormal, Normal)
def _kl_laplace_or_normal(q: LaplaceOrNormal, p: Laplace | Normal) -> Tensor:
    of_each = (kl_divergence(of(q.loc, q.scale, validate_args=False), p) for of in (Laplace, Normal))
    return torch.where(q.laplace, *of_each)


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
