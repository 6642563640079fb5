"""Distributions in a form that torch.distributions lacks."""

from torch import Tensor
from torch.distributions import Independent, Normal
from torch.distributions.kl import register_kl


class DiagonalGaussian(Independent):
    """N(mu, diag(exp(logvar))), one event of D dimensions.

    It keeps the log-variance, so that KLs stay exact, with finite gradients, where a variance in float32 is not.

    Args:
        mu, logvar: (..., D).
    """

    def __init__(self, mu: Tensor, logvar: Tensor) -> None:
        super().__init__(Normal(mu, (0.5 * logvar).exp(), validate_args=False), 1)
        self.logvar = logvar

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "DiagonalGaussian":
        shape = (*batch_shape, *self.event_shape)
        return DiagonalGaussian(self.mean.expand(shape), self.logvar.expand(shape))


@register_kl(DiagonalGaussian, DiagonalGaussian)
def _kl_diagonal_gaussians(q: DiagonalGaussian, p: DiagonalGaussian) -> Tensor:
    """KL(q || p) in nats, summed over D: (...)."""
    ratio = q.logvar - p.logvar
    return 0.5 * (ratio.exp() + (q.mean - p.mean).square() * (-p.logvar).exp() - 1 - ratio).sum(dim=-1)
