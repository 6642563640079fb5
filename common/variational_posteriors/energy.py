"""Energy-based products of experts."""

from torch import Tensor, nn
from torch.distributions import Distribution

from common.distributions.energy import LocScaleEbm
from common.errors import require
from common.variational_posteriors.base import Posterior


class LocScaleEbmPosterior(Posterior):
    """An energy-based product of experts (`common.distributions.LocScaleEbm`).

    Range: |mu| <= 1e9 and |logvar| <= 80.

    Args:
        energy: z standardised by an expert's location and scale, (N, D) -> (N, 1), not negative.
        n: samples that an estimate draws from each expert, from their Gaussian product and from the prior.
    """

    has_density = has_kl = False
    is_energy_based = True

    def __init__(self, energy: nn.Module, n: int = 4) -> None:
        super().__init__()
        require(n > 0, f"an energy-based posterior needs at least 1 sample from each expert (got {n})")
        self.energy, self.n = energy, n

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> LocScaleEbm:
        """Which experts take part (..., M), and (mu, logvar), each (..., M, D) -> q, batch shape (...)."""
        return LocScaleEbm(*params, self.energy, self.n)

    def weighted_samples(self, q: LocScaleEbm, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        return q.weighted_samples(prior)

    def proposal(self, q: LocScaleEbm) -> Distribution:
        return q.proposal
