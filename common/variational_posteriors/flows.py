"""Posteriors made of normalizing flows."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.distributions import Distribution

from common.distributions.flows import JointFlows
from common.errors import require
from common.variational_posteriors.base import Posterior


class JointFlowsPosterior(Posterior):
    """A Gaussian given all modalities, a flow given one, a product given several (`common.distributions.JointFlows`).

    Range: |mu| <= 1e3 and |logvar| <= 20, with flows whose weights are of order 1.

    Args:
        flows: f_m of each modality, see `common.distributions.flows.masked_autoregressive_flow`.
        n: samples that an estimate draws from each flow, and from a Gaussian that stands for their product.
        moves: of the Hamiltonian chains that sample a product. Few, since a product of trained flows may not be
            integrable: longer chains then go ever farther away.
    """

    has_density = has_kl = False
    has_flows = True

    def __init__(self, flows: Sequence[nn.Module], n: int = 8, moves: int = 8) -> None:
        super().__init__()
        require(n > 3, f"products of flows need at least 4 samples from each (got {n})")
        self.flows, self.n, self.moves = nn.ModuleList(flows), n, moves

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> JointFlows:
        """Which modalities are given (..., M), and (mu, logvar), each (..., M + 1, D) -> q, batch shape (...)."""
        return JointFlows(*params, self.flows, self.n, self.moves)

    def point(self, q: JointFlows | Distribution) -> Tensor:
        return q.point if isinstance(q, JointFlows) else q.mean  # the prior's

    def sample_and_point(self, q: JointFlows) -> tuple[Tensor, Tensor]:
        return q.sample_and_point()

    def proposal(self, q: JointFlows) -> Distribution:
        return q.proposal
