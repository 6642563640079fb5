"""Strategies that pool Gaussian experts otherwise than by products or plain mixtures."""

from common.errors import require
from common.experts import dependent_experts, hoelder_components, wasserstein_barycentre
from common.variational_strategies import Strategy, mixture_of_present

from torch import Tensor

MAX_RHO = 0.8  # the largest correlation that CoDE-VAE's authors try


class HoelderStrategy(Strategy):
    """The mixture of the present experts and of the normalised products of pairs (`hoelder_components`).

    Range: |mu| <= 1e3 and |logvar| <= 20, since the components' weights have gradients too.
    """

    is_mixture = learns_weights = True

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> logits (..., B, T), (mu, logvar), (..., B, T, D)."""
        pairs, *components = hoelder_components(*params)
        logits, mu, logvar = (x.movedim(0, -1 if x.dim() == 2 else -2) for x in components)
        present = None if mask is None else mask[..., pairs].all(dim=-1)  # (..., B, T)
        return mixture_of_present(present, mu, logvar, logits=logits)


class HellingerStrategy(HoelderStrategy):
    r"""One Gaussian with the mean and the variances of the Hoelder pooling (HELVAE, arXiv 2601.06572).

    .. math:: \mu = \sum_t \pi_t \mu_t, \qquad \sigma^2 = \sum_t \pi_t (\sigma_t^2 + (\mu_t - \mu)^2)

    in each dimension, computed in float64.
    """

    is_mixture = learns_weights = False

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        logits, mu, logvar = super().forward(tuple(p.double() for p in params), mask)
        pi = logits.softmax(dim=-1).unsqueeze(-1)  # (..., B, T, 1)
        mean = (pi * mu).sum(dim=-2, keepdim=True)
        variance = (pi * (logvar.exp() + (mu - mean).square())).sum(dim=-2)
        return mean.squeeze(-2).to(params[0]), variance.log().to(params[0])


class WassersteinStrategy(Strategy):
    """The 2-Wasserstein barycentre of the present experts (`wasserstein_barycentre`); without experts the prior."""

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return wasserstein_barycentre(*params, mask)


class DependentStrategy(Strategy):
    """The consensus of dependent experts (`dependent_experts`); without experts the prior.

    Args:
        rho: the correlation of their errors, from 0 to `MAX_RHO`.

    Raises:
        InputError: another rho.
    """

    def __init__(self, rho: float) -> None:
        super().__init__()
        require(0 <= rho <= MAX_RHO, f"the experts' correlation (--rho) must lie between 0 and {MAX_RHO}, it is {rho}")
        self.rho = rho

    def forward(self, params: tuple[Tensor, Tensor], mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(mu, logvar), each (M, B, D), and a mask (..., B, M) -> (mu, logvar), each (..., B, D)."""
        return dependent_experts(*params, self.rho, mask)
