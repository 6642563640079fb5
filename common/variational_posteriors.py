"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out."""

from torch import Tensor, nn
from torch.distributions import Independent, Normal


class DiagonalGaussianPosterior(nn.Module):
    """N(mu, diag(exp(logvar))), as one event of D dimensions: log_prob and KL are summed over D, in nats."""

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(mu, logvar), each (..., D) -> a distribution with batch shape (...)."""
        mu, logvar = params
        return Independent(Normal(mu, (0.5 * logvar).exp(), validate_args=False), 1)
