"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out."""

from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily

from common.distributions import DiagonalGaussian


class DiagonalGaussianPosterior(nn.Module):
    """N(mu, diag(exp(logvar)))."""

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> a distribution with batch shape (...)."""
        return DiagonalGaussian(*params)


class DiagonalGaussianMixturePosterior(nn.Module):
    """sum_t softmax(logits)_t N(mu_t, diag(exp(logvar_t))); its components can be sampled apart, with gradients."""

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> MixtureSameFamily:
        """logits (..., T), mu, logvar (..., T, D) -> a distribution with batch shape (...)."""
        logits, mu, logvar = params
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), DiagonalGaussian(mu, logvar), False)
