"""Priors p(z): Distributions over the latent."""

import torch
from torch import nn

from common.distributions import DiagonalGaussian


class StandardGaussianPrior(nn.Module):
    """N(0, I).

    Args:
        latent_dim: the number of latent dimensions D. Only sampling needs it: log-densities and KLs broadcast.
    """

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> DiagonalGaussian:
        return DiagonalGaussian(self.zeros, self.zeros)
