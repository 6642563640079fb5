"""Priors p(z): Distributions over the latent."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.distributions.location_scale import DiagonalGaussian, Joined
from common.distributions.von_mises_fisher import HypersphericalUniform
from common.errors import require


class LearnedPrior(nn.Module):
    """A member of a posterior's family, with learned or fixed scales and the location 0 (Shi et al. 2019).

    Args:
        family: a `common.variational_posteriors` module of location and scale.
        learn: whether the second parameter is trained; both start at 0.
        learn_loc: whether the location is.
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
        return self.family(self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """The family's parameters, each (D,)."""
        return self.loc, self.scale


class StandardGaussianPrior(nn.Module):
    """N(0, I).

    Args:
        latent_dim: the number of latent dimensions D. Only sampling needs it: log-densities and KLs broadcast.
    """

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> DiagonalGaussian:
        return DiagonalGaussian(*self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (D,)."""
        return self.zeros, self.zeros


class UniformHypersphericalPrior(nn.Module):
    """The uniform distribution on n unit spheres side by side, each in D / n dimensions."""

    def __init__(self, latent_dim: int, n: int = 1) -> None:
        super().__init__()
        require(latent_dim % n == 0, f"{latent_dim} latent dimensions are not {n} spheres of one size")
        self.n = n
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Joined:
        return Joined(HypersphericalUniform(len(self.zeros) // self.n, (self.n,), like=self.zeros))
