"""Densities of location and scale beside torch's, spheres side by side, and two vectors in one."""

import math
from collections.abc import Callable

from common.distributions.base import Factorised, LatentDistribution

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, Laplace, Normal, constraints, kl_divergence
from torch.distributions.kl import register_kl

LOG_2, LOG_2_PI = math.log(2), math.log(2 * math.pi)


class DiagonalGaussian(Factorised):
    """N(mu, diag(exp(logvar))): batch shape (...), one event of D dimensions.

    It keeps the log-variance, so that densities and KLs stay exact and their gradients finite where a variance would
    overflow or vanish in float32.

    Args:
        mu, logvar: mean and log-variance, (..., D).
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        super().__init__(Normal(mu, (0.5 * logvar).exp(), validate_args=False))
        self.logvar = logvar

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of value (..., D), summed over D: (...), nats."""
        return self.log_prob_of_each(value).sum(dim=-1)

    def log_prob_of_each(self, value: Tensor) -> Tensor:
        """Log-density of each dimension of value (..., D): (..., D), nats."""
        u = (value - self.mean) * (-0.5 * self.logvar).exp()
        return -0.5 * (u.square() + self.logvar + LOG_2_PI)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "DiagonalGaussian":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.mean.expand(shape), self.logvar.expand(shape))

    def map_parameters(self, change: Callable[[Tensor], Tensor]) -> "DiagonalGaussian":
        """q with `change` applied to its mean and its log-variance, each (..., D)."""
        return DiagonalGaussian(change(self.mean), change(self.logvar))


class LaplaceOrNormal(Distribution):
    """Independent values, some Laplace and some normal: batch shape (...), so that one mixture can have both.

    Args:
        loc, scale: (...).
        laplace: (...) bool, True where a value is Laplace, False where it is normal.
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
        noise = (family(zero, one, validate_args=False).rsample(sample_shape) for family in (Laplace, Normal))
        return self.loc + self.scale * torch.where(self.laplace, *noise)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of each value, (...), nats."""
        u = (value - self.loc) / self.scale
        log_p = torch.where(self.laplace, -u.abs() - LOG_2, -0.5 * (u.square() + LOG_2_PI))
        return log_p - self.scale.log()


@register_kl(LaplaceOrNormal, Laplace)
@register_kl(LaplaceOrNormal, Normal)
def _kl_laplace_or_normal(q: LaplaceOrNormal, p: Laplace | Normal) -> Tensor:
    """KL(q || p) of each value, (...), nats."""
    kls = (kl_divergence(family(q.loc, q.scale, validate_args=False), p) for family in (Laplace, Normal))
    return torch.where(q.laplace, *kls)


@register_kl(LaplaceOrNormal, LaplaceOrNormal)
def _kl_of_two_laplace_or_normal(q: LaplaceOrNormal, p: LaplaceOrNormal) -> Tensor:
    """KL(q || p) of each value, (...), nats."""
    kls = (kl_divergence(q, family(p.loc, p.scale, validate_args=False)) for family in (Laplace, Normal))
    return torch.where(p.laplace, *kls)


class StudentT(Distribution):
    r"""Independent values of Student's t distribution with 3 degrees of freedom: batch shape (...).

    .. math:: p(x) = \frac{2}{\sqrt 3 \pi \sigma} \Big(1 + \frac{(x - \mu)^2}{3 \sigma^2}\Big)^{-2}

    So few degrees make its tails heavy, while its variance is finite and its KLs have a closed form.

    Args:
        loc, scale: mu and sigma, (...).
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, validate_args: bool | None = False) -> None:
        self.loc, self.scale = torch.broadcast_tensors(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "StudentT":
        return StudentT(self.loc.expand(batch_shape), self.scale.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return 3 * self.scale.square()

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        noise, *chi = self.loc.new_empty(4, *sample_shape, *self.loc.shape).normal_()
        return self.loc + self.scale * noise * torch.stack(chi).square().mean(dim=0).rsqrt()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of each value, (...), nats."""
        u = (value - self.loc) / self.scale
        return math.log(2 / (math.sqrt(3) * math.pi)) - self.scale.log() - 2 * (u.square() / 3).log1p()


@register_kl(StudentT, StudentT)
def _kl_student_t(q: StudentT, p: StudentT) -> Tensor:
    r"""KL(q || p) of each value, (...), nats.

    With :math:`s = \sqrt 3 \sigma` and :math:`r = (\mu_q - \mu_p)^2 + (s_q + s_p)^2` the residue theorem gives

    .. math:: E_q \log((x - \mu_p)^2 + s_p^2) = \log r - 2 s_q (s_q + s_p) / r
    """
    s_q, s_p = math.sqrt(3) * q.scale, math.sqrt(3) * p.scale
    r = (q.loc - p.loc).square() + (s_q + s_p).square()
    return 2 * (r / 4).log() - s_q.log() - 3 * s_p.log() + 2 - 4 * s_q * (s_q + s_p) / r


class Spheres(LatentDistribution):
    """n independent vectors of d dimensions, each on a unit sphere, side by side: event shape (n d,).

    Args:
        factors: the distribution of the vectors, batch shape (..., n) and event shape (d,).
    """

    has_rsample = True

    def __init__(self, factors: Distribution) -> None:
        self.factors, self.shape = factors, (factors.batch_shape[-1], *factors.event_shape)
        super().__init__(factors.batch_shape[:-1], Size([self.shape[0] * self.shape[1]]), validate_args=False)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "Spheres":
        return Spheres(self.factors.expand((*batch_shape, self.shape[0])))

    @property
    def mean(self) -> Tensor:
        return self.factors.mean.flatten(-2)

    @property
    def variance(self) -> Tensor:
        return self.factors.variance.flatten(-2)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.factors.rsample(sample_shape).flatten(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of value (..., n d): (...), nats."""
        return self.factors.log_prob(value.unflatten(-1, self.shape)).sum(dim=-1)

    def project(self, z: Tensor) -> Tensor:
        """Scale each sphere's part of z to length 1: (..., n d) -> (..., n d)."""
        z = z.unflatten(-1, self.shape)
        return (z / z.norm(dim=-1, keepdim=True)).flatten(-2)

    @property
    def scales(self) -> Tensor:
        """1 / sqrt(kappa) of each latent's sphere, (..., n d), for von Mises-Fisher factors."""
        return self._concentration.rsqrt()

    def map_parameters(self, change: Callable[[Tensor], Tensor]) -> "Spheres":
        """q with `change` applied to mu and kappa of its von Mises-Fisher factors, each (..., n d)."""
        kappa = change(self._concentration).unflatten(-1, self.shape)[..., 0]
        return Spheres(type(self.factors)(change(self.factors.loc.flatten(-2)).unflatten(-1, self.shape), kappa))

    @property
    def _concentration(self) -> Tensor:
        """kappa of each latent's sphere, (..., n d)."""
        return self.factors.concentration.repeat_interleave(self.shape[1], dim=-1)


class Concatenated(LatentDistribution):
    """Two independent vectors, one after the other: batch shape (...), event shape (d_1 + d_2,).

    Args:
        first, second: their distributions, of the same batch shape.
    """

    def __init__(self, first: Distribution, second: Distribution) -> None:
        self.first, self.second, self.n = first, second, first.event_shape[0]
        super().__init__(first.batch_shape, Size([self.n + second.event_shape[0]]), validate_args=False)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "Concatenated":
        return Concatenated(self.first.expand(batch_shape), self.second.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        return torch.cat([self.first.mean, self.second.mean], dim=-1)

    @property
    def variance(self) -> Tensor:
        return torch.cat([self.first.variance, self.second.variance], dim=-1)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.cat([self.first.sample(sample_shape), self.second.sample(sample_shape)], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of value (..., d_1 + d_2): (...), nats."""
        return self.first.log_prob(value[..., : self.n]) + self.second.log_prob(value[..., self.n :])


@register_kl(Spheres, Spheres)
def _kl_spheres(q: Spheres, p: Spheres) -> Tensor:
    """KL(q || p), (...), nats."""
    return kl_divergence(q.factors, p.factors).sum(dim=-1)


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl_diagonal_gaussians(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p), summed over D: (...), nats."""
    ratio = q.logvar - p.logvar
    return 0.5 * (ratio.exp() + (q.mean - p.mean).square() * (-p.logvar).exp() - 1 - ratio).sum(dim=-1)
