"""Priors p(z): modules whose call gives a Distribution over z."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.distributions.location_scale import DiagonalGaussian, Joined
from common.distributions.von_mises_fisher import HypersphericalUniform
from common.errors import require


class LearnedPrior(nn.Module):
    """A prior in the posterior's family, with learned or fixed scales (MMVAE, Shi et al. 2019, arXiv 1911.03393).

    Args:
        family: a `common.variational_posteriors` module with two parameters, location and scale.
        latent_dim: D.
        learn: whether the scale parameter is trained; it starts at 0.
        learn_loc: whether the location is trained too; it starts, and else stays, at 0.
    """

    def __init__(self, family: nn.Module, latent_dim: int, learn: bool = True, learn_loc: bool = False) -> None:
        super().__init__()
        self.family = family
        if learn_loc:
            self.loc = nn.Parameter(torch.zeros(latent_dim))
        else:
            self.register_buffer("loc", torch.zeros(latent_dim))
        self.scale = nn.Parameter(torch.zeros(latent_dim), requires_grad=learn)

    def forward(self) -> Distribution:
        """p(z), batch shape (), event shape (D,)."""
        return self.family(self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """The family's parameters, location and scale before its constraint, each (D,)."""
        return self.loc, self.scale


class StandardGaussianPrior(nn.Module):
    """N(0, I).

    Args:
        latent_dim: D. Only sampling needs it; log-densities and KLs broadcast.
    """

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> DiagonalGaussian:
        """p(z), batch shape (), event shape (D,)."""
        return DiagonalGaussian(*self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (D,)."""
        return self.zeros, self.zeros


class UniformHypersphericalPrior(nn.Module):
    """The uniform distribution on n unit spheres side by side, each in D / n dimensions.

    Args:
        latent_dim: D, a multiple of n.
    """

    def __init__(self, latent_dim: int, n: int = 1) -> None:
        super().__init__()
        require(latent_dim % n == 0, f"{n} spheres need a multiple of {n} latent dimensions (got {latent_dim})")
        self.n = n
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Joined:
        """p(z), batch shape (), event shape (D,)."""
        return Joined(HypersphericalUniform(len(self.zeros) // self.n, (self.n,), like=self.zeros))
