r"""The von Mises-Fisher and the uniform distribution on the sphere S^{D-1}.

Relative to the uniform density, vMF's is :math:`e^{\kappa \mu^\top z} / h(\kappa)` with
:math:`h(\kappa) = {}_0F_1(; D/2; \kappa^2 / 4) = \Gamma(D/2) (2/\kappa)^\nu I_\nu(\kappa)` and
:math:`\nu = D/2 - 1`. The code computes log h(kappa) - kappa, an exponentially scaled Bessel function, which does not
overflow. Beyond kappa = 1e12 KLs lose their digits.
"""

import math
from functools import lru_cache

from common.errors import require

import numpy as np
import torch
from numpy.polynomial import Polynomial
from torch import Tensor
from torch.distributions import Distribution
from torch.distributions.kl import register_kl

LOWEST_ORDER = 16.0  # from this order on, N_TERMS terms of Debye's expansion are exact to 1e-10
N_TERMS = 6
QUADRATURE = np.polynomial.legendre.leggauss(16)  # nodes in [-1, 1] and weights, for the gradient of a sample
REACH = 8.0  # standard deviations that the quadrature covers


class HypersphericalUniform(Distribution):
    """The uniform distribution on the unit sphere in D dimensions: event shape (D,).

    Args:
        dim: D.
        like: a tensor with the device and type that samples are to have; by default torch's.
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
        return uniform_directions(self._extended_shape(sample_shape), self.like)

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the log-area of the sphere, for value (..., D): (...), nats."""
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.new_full(shape, -log_area(*self.event_shape))

    def entropy(self) -> Tensor:
        """The log-area of the sphere, (...), nats."""
        return self.like.new_full(self.batch_shape, log_area(*self.event_shape))


class VonMisesFisher(Distribution):
    r"""vMF(mu, kappa) on the unit sphere in D dimensions: density proportional to :math:`e^{\kappa \mu^\top z}`.

    Samples are drawn by Wood's rejection (1994; Davidson et al. 2018, arXiv 1804.00891, algorithm 1). Their gradients
    with respect to kappa are implicit (Figurnov et al. 2018, arXiv 1805.08498): exact, with no term for the rejection.

    Args:
        loc: mu, unit vectors (..., D), D >= 2.
        concentration: kappa >= 0, (...).
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor) -> None:
        require(loc.shape[-1] > 1, f"a sphere needs at least 2 dimensions (got {loc.shape[-1]})")
        super().__init__(concentration.shape, loc.shape[-1:], validate_args=False)
        self.loc, self.concentration = loc.expand(self._extended_shape()), concentration

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "VonMisesFisher":
        return VonMisesFisher(self.loc.expand(*batch_shape, -1), self.concentration.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """A(kappa) mu, a point inside the sphere, (..., D)."""
        return self._resultant.to(self.loc).unsqueeze(-1) * self.loc

    @property
    def variance(self) -> Tensor:
        """Each coordinate's variance, (..., D): the diagonal of (A / kappa) I + (1 - D A / kappa - A^2) mu mu^T."""
        d, ratio = self.event_shape[0], self._scaled()[1] / self.event_shape[0]
        along = 1 - d * ratio - self._resultant.square()
        return ratio.to(self.loc).unsqueeze(-1) + along.to(self.loc).unsqueeze(-1) * self.loc.square()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density with respect to the sphere's area, for value (..., D): (...), nats."""
        # kappa (mu' z - 1) as a distance, which keeps its digits in float32 where mu' z is nearly 1
        squared_distance = (value - self.loc).square().sum(dim=-1)
        return -self.concentration * squared_distance / 2 - self._scaled()[0].to(value) - log_area(*self.event_shape)

    def entropy(self) -> Tensor:
        """(...), nats."""
        return log_area(*self.event_shape) - kl_from_uniform(self)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        v = self._sample_v(shape[:-1])  # 1 - mu' z
        v = v.unsqueeze(-1)
        across = uniform_directions(torch.Size([*shape[:-1], shape[-1] - 1]), self.loc)
        z = torch.cat([1 - v, (v * (2 - v)).sqrt() * across], dim=-1)  # around e_1
        # reflect e_1 to mu or to -mu, whichever is farther, so that u is never short
        first = self.loc[..., :1]
        sign = torch.where(first < 0, -1.0, 1.0)
        u = torch.cat([1 + first.abs(), sign * self.loc[..., 1:]], dim=-1)  # e_1 +- mu
        return sign * ((z * u).sum(dim=-1, keepdim=True) / (1 + first.abs()) * u - z)

    @property
    def _resultant(self) -> Tensor:
        """A(kappa) = E[mu' z] = I_{nu+1}(kappa) / I_nu(kappa), (...), float64."""
        return self.concentration.double() * self._scaled()[1] / self.event_shape[0]

    def _scaled(self) -> tuple[Tensor, Tensor]:
        """`log_scaled_h` of this kappa: two tensors (...), float64."""
        return log_scaled_h(self.event_shape[0], self.concentration.double())

    def _sample_v(self, shape: tuple[int, ...]) -> Tensor:
        """1 - mu' z, (*shape), with gradients with respect to kappa."""
        d, kappa = self.event_shape[0], self.concentration.detach().expand(shape)
        v = _rejection_sampled(kappa.flatten(), d).view(shape)
        v = v.clamp(min=1e-30, max=2 - torch.finfo(v.dtype).eps)  # off the poles, where slopes are infinite
        if not (self.concentration.requires_grad and torch.is_grad_enabled()):
            return v
        slope = _implicit_slope(v, kappa, 1 - self._resultant.detach(), d)
        return v + slope * (self.concentration - self.concentration.detach())


def uniform_directions(shape: torch.Size, like: Tensor) -> Tensor:
    """Uniformly distributed unit vectors, `shape` (..., D), D >= 1, with the type and device of a tensor."""
    x = torch.randn(shape, dtype=like.dtype, device=like.device)
    length = x.norm(dim=-1, keepdim=True)
    if (length == 0).any():  # has no direction; in one dimension torch.randn is 0 once in 2^24 draws
        signs = torch.randint(2, shape, device=like.device).to(like) * 2 - 1
        x = torch.where(length == 0, signs, x)
        length = x.norm(dim=-1, keepdim=True)
    return x / length


def _rejection_sampled(kappa: Tensor, d: int) -> Tensor:
    """1 - mu' z for kappa (N,), by Wood's rejection: (N,)."""
    b = (d - 1) / (2 * kappa + (4 * kappa.square() + (d - 1) ** 2).sqrt())
    y = 2 * b / (1 + b)
    v, pending = torch.empty_like(kappa), torch.arange(len(kappa), device=kappa.device)
    half = kappa.new_tensor((d - 1) / 2)
    while len(pending):
        b_pending, y_pending = b[pending], y[pending]
        # one coordinate of a uniform z: its (1 + t) / 2 is Wood's Beta((D - 1) / 2, (D - 1) / 2)
        t = torch.randn_like(b_pending)
        t = t / (t.square() + 2 * torch._standard_gamma(half.expand(len(pending)))).sqrt()
        proposed = 2 * b_pending * (1 + t) / (1 - t + b_pending * (1 + t))
        log_ratio = kappa[pending] * (y_pending - proposed) + (d - 1) * torch.log(
            (y_pending + proposed - y_pending * proposed) / (y_pending * (2 - y_pending))
        )
        accepted = ~(log_ratio < torch.rand_like(t).log())  # NaN counts as accepted, or the loop would never end
        v[pending[accepted]] = proposed[accepted]
        pending = pending[~accepted]
    return v


@torch.no_grad()
def _implicit_slope(v: Tensor, kappa: Tensor, shortfall: Tensor, d: int) -> Tensor:
    r"""dv/dkappa at fixed quantiles, :math:`-\partial_\kappa F(\theta) / f(\theta)`, by quadrature in theta.

    The derivative of F is the integral of (cos s - A) f(s), on the side of theta where the integrand keeps its sign.

    Args:
        v, kappa: (...).
        shortfall: 1 - A(kappa), the batch shape, float64.

    Returns:
        (...).
    """
    kappa = kappa.clamp(min=1e-6)
    shortfall = shortfall.to(v)
    theta = 2 * (v / 2).sqrt().asin()
    cosine = 2 * kappa / (d - 2 + ((d - 2) ** 2 + 4 * kappa.square()).sqrt())  # cosine of theta's mode
    width = REACH / (kappa * (cosine + 1 / cosine)).sqrt()
    end = torch.where(v < shortfall, (theta - width).clamp(min=0), (theta + width).clamp(max=math.pi))
    nodes, weights = (torch.from_numpy(x).to(v).view(-1, *[1] * v.dim()) / 2 for x in QUADRATURE)
    p = ((theta + (end - theta) * (0.5 + nodes)) / 2).sin().square().clamp(max=1 - torch.finfo(v.dtype).eps)
    log_f = kappa * (v - 2 * p) + (d - 2) / 2 * (4 * p * (1 - p) / (v * (2 - v))).log()  # (nodes, ...), relative to v
    total = (weights * (shortfall - 2 * p) * log_f.exp()).sum(dim=0)
    return (v * (2 - v)).sqrt() * (end - theta) * total


def log_area(d: int) -> float:
    """The logarithm of the area of the unit sphere in D dimensions."""
    return math.log(2) + d / 2 * math.log(math.pi) - math.lgamma(d / 2)


def log_scaled_h(d: int, kappa: Tensor) -> tuple[Tensor, Tensor]:
    r"""log h(kappa) - kappa, and :math:`\rho = D A(\kappa) / \kappa` in (0, 1], where A is the resultant length.

    Debye's expansion of the Bessel function, uniform in kappa (DLMF 10.41.3), gives h at a high order;
    a recursion leads down from there,
    :math:`h_\nu = h_{\nu+1} (1 + x), \rho_\nu = 1 / (1 + x), x = \kappa^2 \rho_{\nu+1} / (4 (\nu+1)(\nu+2))`.

    Args:
        d: D.
        kappa: (...), float64.

    Returns:
        two tensors (...), float64.
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
    """log h(kappa) - kappa for a high order nu, (...)."""
    root = (nu**2 + kappa.square()).sqrt()
    p, series = nu / root, 0
    for coefficient in _debye_coefficients(nu):
        series = series * p + coefficient
    constant = math.lgamma(nu + 1) - math.log(2 * math.pi) / 2
    return nu**2 / (root + kappa) - nu * ((nu + root) / 2).log() + constant - root.log() / 2 + series.log()


@lru_cache
def _debye_coefficients(nu: float) -> list[float]:
    """The coefficients of sum_k u_k(p) / nu^k, a polynomial in p, highest power first (DLMF 10.41.9)."""
    u, t = [Polynomial([1.0])], Polynomial([0.0, 1.0])
    for _ in range(N_TERMS):
        u.append(t**2 * (1 - t**2) * u[-1].deriv() / 2 + ((1 - 5 * t**2) * u[-1]).integ() / 8)
    return sum(u_k / nu**k for k, u_k in enumerate(u)).coef[::-1].tolist()


@register_kl(VonMisesFisher, HypersphericalUniform)
def _kl_vmf_uniform(q: VonMisesFisher, p: HypersphericalUniform) -> Tensor:
    """KL(q || uniform), (...), nats."""
    return kl_from_uniform(q)


def kl_from_uniform(q: VonMisesFisher) -> Tensor:
    """KL(q || uniform) = kappa A - log h, (...), nats."""
    kappa = q.concentration.double()  # a single cast, or float32 gradients would be the difference of large ones
    log_h, rho = log_scaled_h(q.event_shape[0], kappa)
    return (kappa * (kappa * rho / q.event_shape[0] - 1) - log_h).to(q.loc)


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_vmfs(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    """KL(q || p) = kappa_q A - log h_q - kappa_p A mu_p' mu_q + log h_p, (...), nats."""
    shortfall = (q.loc - p.loc).square().sum(dim=-1).double() / 2  # 1 - mu_p' mu_q
    d, kappa_q, kappa_p = q.event_shape[0], q.concentration.double(), p.concentration.double()
    (log_h_q, rho), (log_h_p, _) = log_scaled_h(d, kappa_q), log_scaled_h(d, kappa_p)
    a = kappa_q * rho / d
    return (kappa_q * (a - 1) - log_h_q + kappa_p * (1 - a + a * shortfall) + log_h_p).to(q.loc)
