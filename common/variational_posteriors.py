"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out."""

from torch import Tensor, nn

from common.distributions import DiagonalGaussian


class DiagonalGaussianPosterior(nn.Module):
    """N(mu, diag(exp(logvar)))."""

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> a distribution with batch shape (...)."""
        return DiagonalGaussian(*params)
