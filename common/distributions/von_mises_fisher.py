r"""The von Mises-Fisher distribution on the sphere S^{D-1}, and the uniform one.

Everything rests on :math:`h(\kappa) = {}_0F_1(; D/2; \kappa^2 / 4) = \Gamma(D/2) (2/\kappa)^\nu I_\nu(\kappa)`, with
:math:`\nu = D/2 - 1`, since the density relative to the uniform one is :math:`e^{\kappa \mu^\top z} / h(\kappa)`. Of it
the logarithm less kappa, which neither overflows nor cancels: an exponentially scaled Bessel function.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.kl import register_kl

from common.errors import require

LOWEST_ORDER = 16.0  # from which on six of Debye's terms are exact to 1e-10
N_TERMS = 6
QUADRATURE = np.polynomial.legendre.leggauss(16)  # of a sample's gradient: nodes in [-1, 1], weights
REACH = 8.0  # standard deviations that it covers


class HypersphericalUniform(Distribution):
    """The uniform distribution on the unit sphere in D dimensions.

    Args:
        like: a tensor of the device and type of what is drawn.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, dim: int, batch_shape: tuple[int, ...] = (), like: Tensor | None = None) -> None:
        super().__init__(torch.Size(batch_shape), torch.Size([dim]), validate_args=False)
        self.like = torch.empty(0) if like is None else like

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "HypersphericalUniform":
        return HypersphericalUniform(*self.event_shape, tuple(batch_shape), self.like)

    @property
    def mean(self) -> Tensor:
        return self.like.new_zeros(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        return self.like.new_full(self._extended_shape(), 1 / self.event_shape[0])

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        x = torch.randn(self._extended_shape(sample_shape), dtype=self.like.dtype, device=self.like.device)
        return x / x.norm(dim=-1, keepdim=True)

    def log_prob(self, value: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(*self.event_shape))

    def entropy(self) -> Tensor:
        return self.like.new_full(self.batch_shape, log_area(*self.event_shape))


class VonMisesFisher(Distribution):
    r"""vMF(mu, kappa) on the unit sphere in D dimensions: density proportional to :math:`e^{\kappa \mu^\top z}`.

    Samples by Wood's rejection (1994; Davidson et al. 2018, arXiv 1804.00891, algorithm 1); their gradients by kappa
    are implicit ones (Figurnov et al. 2018, arXiv 1805.08498), which see nothing of the rejection and are exact.

    Args:
        loc: mu, unit vectors (..., D), D from 2.
        concentration: kappa >= 0, (...).
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        require(loc.shape[-1] > 1, f"a sphere needs two dimensions or more, not {loc.shape[-1]}")
        super().__init__(concentration.shape, loc.shape[-1:], validate_args=False)
        self.loc, self.concentration = loc.expand(self._extended_shape()), concentration

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "VonMisesFisher":
        return VonMisesFisher(self.loc.expand(*batch_shape, -1), self.concentration.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """A(kappa) mu, inside of the sphere."""
        return self._resultant.to(self.loc).unsqueeze(-1) * self.loc

    @property
    def variance(self) -> Tensor:
        """Of each coordinate: the diagonal of (A / kappa) I + (1 - D A / kappa - A^2) mu mu^T."""
        d, ratio = self.event_shape[0], self._scaled()[1] / self.event_shape[0]
        along = 1 - d * ratio - self._resultant.square()
        return ratio.to(self.loc).unsqueeze(-1) + along.to(self.loc).unsqueeze(-1) * self.loc.square()

    def log_prob(self, value: Tensor) -> Tensor:
        # kappa (mu' z - 1) as a distance, which float32 keeps where mu' z is nearly 1
        apart = (value - self.loc).square().sum(dim=-1)
        return -self.concentration * apart / 2 - self._scaled()[0].to(value) - log_area(*self.event_shape)

    def entropy(self) -> Tensor:
        return log_area(*self.event_shape) - kl_from_uniform(self)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        v = self._sample_v(shape[:-1])  # 1 - mu' z
        noise = torch.randn(*shape[:-1], shape[-1] - 1, dtype=self.loc.dtype, device=self.loc.device)
        height = (v * (2 - v)).sqrt() / noise.norm(dim=-1)
        z = torch.cat([(1 - v).unsqueeze(-1), height.unsqueeze(-1) * noise], dim=-1)  # around e_1
        # the reflection that takes e_1 to mu or to -mu, whichever is farther, so that u is never short
        first = self.loc[..., :1]
        sign = torch.where(first < 0, -1.0, 1.0)
        u = torch.cat([1 + first.abs(), sign * self.loc[..., 1:]], dim=-1)  # e_1 +- mu
        return sign * ((z * u).sum(dim=-1, keepdim=True) / (1 + first.abs()) * u - z)

    @property
    def _resultant(self) -> Tensor:
        """A(kappa) = E[mu' z] = I_{nu+1}(kappa) / I_nu(kappa), (...), float64."""
        return self.concentration.double() * self._scaled()[1] / self.event_shape[0]

    def _scaled(self) -> tuple[Tensor, Tensor]:
        return log_scaled_h(self.event_shape[0], self.concentration.double())

    def _sample_v(self, shape: tuple[int, ...]) -> Tensor:
        """1 - mu' z, (*shape), with gradients by kappa."""
        d, kappa = self.event_shape[0], self.concentration.detach().expand(shape)
        flat = kappa.flatten()
        b = (d - 1) / (2 * flat + (4 * flat.square() + (d - 1) ** 2).sqrt())
        y = 2 * b / (1 + b)
        v, left = torch.empty_like(flat), torch.arange(len(flat), device=flat.device)
        half = flat.new_tensor((d - 1) / 2)
        while len(left):
            b_left, y_left = b[left], y[left]
            # of a uniform z one coordinate, whose (1 + t) / 2 is Wood's Beta((D - 1) / 2, (D - 1) / 2)
            t = torch.randn_like(b_left)
            t = t / (t.square() + 2 * torch._standard_gamma(half.expand(len(left)))).sqrt()
            proposed = 2 * b_left * (1 + t) / (1 - t + b_left * (1 + t))
            log_ratio = flat[left] * (y_left - proposed) + (d - 1) * torch.log(
                (y_left + proposed - y_left * proposed) / (y_left * (2 - y_left))
            )
            accepted = ~(log_ratio < torch.rand_like(t).log())  # NaN too, or it would be drawn for ever
            v[left[accepted]] = proposed[accepted]
            left = left[~accepted]
        v = v.view(shape).clamp(min=1e-30, max=2 - torch.finfo(v.dtype).eps)  # off the poles, where slopes are infinite
        if not (self.concentration.requires_grad and torch.is_grad_enabled()):
            return v
        slope = _implicit_slope(v, kappa, 1 - self._resultant.detach(), d)
        return v + slope * (self.concentration - self.concentration.detach())


@torch.no_grad()
def _implicit_slope(v: Tensor, kappa: Tensor, apart: Tensor, d: int) -> Tensor:
    r"""dv/dkappa of a sample at fixed quantile: :math:`-\partial_\kappa F(\theta) / f(\theta)`, by quadrature in theta.

    F's derivative is the integral of (cos s - A) f(s), on the side of theta where that keeps its sign.

    Args:
        apart: 1 - A(kappa), the batch shape, float64.
    """
    kappa = kappa.clamp(min=1e-6)
    apart = apart.to(v)
    theta = 2 * (v / 2).sqrt().asin()
    cosine = 2 * kappa / (d - 2 + ((d - 2) ** 2 + 4 * kappa.square()).sqrt())  # of theta's mode
    width = REACH / (kappa * (cosine + 1 / cosine)).sqrt()
    end = torch.where(v < apart, (theta - width).clamp(min=0), (theta + width).clamp(max=math.pi))
    nodes, weights = (torch.from_numpy(x).to(v).view(-1, *[1] * v.dim()) / 2 for x in QUADRATURE)
    p = ((theta + (end - theta) * (0.5 + nodes)) / 2).sin().square().clamp(max=1 - torch.finfo(v.dtype).eps)
    log_f = kappa * (v - 2 * p) + (d - 2) / 2 * (4 * p * (1 - p) / (v * (2 - v))).log()  # (nodes, ...), relative to v's
    total = (weights * (apart - 2 * p) * log_f.exp()).sum(dim=0)
    return (v * (2 - v)).sqrt() * (end - theta) * total


def log_area(d: int) -> float:
    """log of the area of the unit sphere in D dimensions."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def log_scaled_h(d: int, kappa: Tensor) -> tuple[Tensor, Tensor]:
    r"""log h(kappa) - kappa, and :math:`\rho = D A(\kappa) / \kappa` in (0, 1], where A is the resultant length.

    Debye's expansion of the Bessel function, uniform in kappa (DLMF 10.41.3), at a high order, and from there down
    :math:`h_\nu = h_{\nu+1} (1 + x), \rho_\nu = 1 / (1 + x), x = \kappa^2 \rho_{\nu+1} / (4 (\nu+1)(\nu+2))`.

    Args:
        kappa: (...), float64.
    """
    order = d / 2 - 1
    n = max(0, math.ceil(LOWEST_ORDER - order))
    log_h = _debye(order + n, kappa)
    rho = (_debye(order + n + 1, kappa) - log_h).exp()
    for nu in (order + i for i in reversed(range(n))):
        x = kappa.square() * rho / (4 * (nu + 1) * (nu + 2))
        log_h, rho = log_h + x.log1p(), 1 / (1 + x)
    return log_h, rho


def _debye(nu: float, kappa: Tensor) -> Tensor:
    """log h(kappa) - kappa of a high order nu."""
    root = (nu**2 + kappa.square()).sqrt()
    p, series = nu / root, 0
    for coefficient in _debye_coefficients(nu):
        series = series * p + coefficient
    constant = math.lgamma(nu + 1) - math.log(2 * math.pi) / 2
    return nu**2 / (root + kappa) - nu * ((nu + root) / 2).log() + constant - root.log() / 2 + series.log()


@lru_cache
def _debye_coefficients(nu: float) -> list[float]:
    """Of sum_k u_k(p) / nu^k as a polynomial in p, highest first (DLMF 10.41.9)."""
    u, t = [Polynomial([1.0])], Polynomial([0.0, 1.0])
    for _ in range(N_TERMS):
        u.append(t**2 * (1 - t**2) * u[-1].deriv() / 2 + ((1 - 5 * t**2) * u[-1]).integ() / 8)
    return sum(u_k / nu**k for k, u_k in enumerate(u)).coef[::-1].tolist()


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    return kl_from_uniform(q)


def kl_from_uniform(q: VonMisesFisher) -> Tensor:
    """KL(q || uniform) = kappa A - log h, nats, (...)."""
    kappa = q.concentration.double()  # once, so that float32 gradients are not the difference of large ones
    log_h, rho = log_scaled_h(q.event_shape[0], kappa)
    return (kappa * (kappa * rho / q.event_shape[0] - 1) - log_h).to(q.loc)


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmfs(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    r"""kappa_q A - log h_q - kappa_p A mu_p' mu_q + log h_p, nats, (...)."""
    apart = (q.loc - p.loc).square().sum(dim=-1).double() / 2  # 1 - mu_p' mu_q
    d, kappa_q, kappa_p = q.event_shape[0], q.concentration.double(), p.concentration.double()
    (log_h_q, rho), (log_h_p, _) = log_scaled_h(d, kappa_q), log_scaled_h(d, kappa_p)
    a = kappa_q * rho / d
    return (kappa_q * (a - 1) - log_h_q + kappa_p * (1 - a + a * apart) + log_h_p).to(q.loc)
