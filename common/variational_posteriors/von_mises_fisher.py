"""Posteriors on spheres."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.distributions.location_scale import Joined
from common.distributions.von_mises_fisher import VonMisesFisher
from common.errors import require
from common.variational_posteriors.base import Posterior


class VmfProductPosterior(Posterior):
    r"""n von Mises-Fisher variables side by side, each on a unit sphere in D / n dimensions.

    The parameter is the natural one divided by the dimensions of a sphere, :math:`\kappa \mu / d`. The mean's length is
    near kappa / d, so that network outputs of order 1 are informative in any dimension. 0 is the uniform distribution.
    Range: up to 1e18 / d^1.5, so that kappa is at most 1e18; KLs are right up to kappa = 1e12.

    Args:
        n: the number of spheres.
    """

    on_spheres = uses_rejection = True

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = n

    def forward(self, params: tuple[Tensor]) -> Joined:
        """One parameter, (..., D) -> q, batch shape (...)."""
        (eta,) = params
        d = eta.shape[-1]
        require(d % self.n == 0, f"{self.n} spheres need a multiple of {self.n} latent dimensions (got {d})")
        eta = d // self.n * eta.unflatten(-1, (self.n, d // self.n))
        kappa = eta.norm(dim=-1)
        first = torch.zeros_like(eta)
        first[..., 0] = 1  # where kappa is 0, any direction will do
        loc = torch.where(kappa[..., None] > 0, eta / kappa.clamp(min=1e-30)[..., None], first)
        return Joined(VonMisesFisher(loc, kappa))

    def project(self, z: Tensor) -> Tensor:
        """Scale each sphere's part of z to length 1: (..., D) -> (..., D)."""
        z = z.unflatten(-1, (self.n, -1))
        return (z / z.norm(dim=-1, keepdim=True)).flatten(-2)

    def scales(self, q: Joined) -> Tensor:
        """1 / sqrt(kappa) of each latent's sphere, (..., D)."""
        return self._by_latent(q).rsqrt()

    def map_parameters(self, q: Joined, change: Callable[[Tensor], Tensor]) -> Joined:
        kappa = change(self._by_latent(q)).unflatten(-1, q.shape)[..., 0]
        return Joined(VonMisesFisher(change(q.factors.loc.flatten(-2)).unflatten(-1, q.shape), kappa))

    def factors(self, q: Joined) -> Distribution:
        return q.factors

    def _by_latent(self, q: Joined) -> Tensor:
        """kappa of each latent's sphere, (..., D)."""
        return q.factors.concentration.repeat_interleave(q.shape[1], dim=-1)
