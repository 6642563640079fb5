"""The importance-weighted bound of energy-based posteriors."""

import math
from collections.abc import Mapping

from common.data.batches import Batch
from common.distributions.unnormalised import resample
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, bound_of
from common.objectives.importance import ImportanceWeighted

import torch
from torch import Tensor


class EnergyIwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound of an energy-based posterior, with K samples, each chosen from a pool of its own.

    .. math:: \log \frac1K \sum_k \frac{p(z_k) \prod_m p(x_m|z_k)}{\tilde q(z_k) / \hat Z_k}, \qquad
              P(z_k = z_{kj}) \propto \tilde q(z_{kj}) / r(z_{kj}), \quad z_{kj} \sim r

    A lower bound on log p(X) for any size of the pools, since the expectation of each weight is p(X) (Lawson et al.
    2019, arXiv 1910.14265; r and the estimated normaliser: `LocScaleEbm`). The gradient is unbiased: choices are
    learned by their score, with a baseline from the other samples (VIMCO, Mnih & Rezende 2016, arXiv 1602.06725).
    lambda and beta as in IwaeElbo.

    Args:
        K: samples, two or more: StandardElbo is the bound with one, without the noise of choosing.

    Raises:
        InputError: fewer than two samples, or another posterior.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 2,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(model, weights)
        posterior = self.model.variational_posterior
        is_energy_based = not posterior.has_density and not posterior.has_flows
        require(is_energy_based, "EnergyIwaeElbo needs an energy-based posterior: IwaeElbo takes others")
        require(K > 1, f"the energy-based bound of --obj iwae takes two samples or more, not {K}: the ELBO takes one")
        self.K = K

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the samples."""
        return self.penalised(inputs, beta)[2]

    def penalised(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, float, Bound]:
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        pool, log_q, log_ratio = q.pool((self.K,))  # (K, J, B, D), (K, J, B) each
        z, index = resample(pool, log_ratio, dim=1)  # (K, B, D), (K, B)
        log_choice, log_q = (
            x.gather(1, index.unsqueeze(1)).squeeze(1) for x in (log_ratio.log_softmax(dim=1), log_q)
        )  # (K, B)
        log_q = log_q - log_ratio.logsumexp(dim=1)
        log_w, terms = self.weights_of(
            batch, self.scorer(batch), z[None], torch.ones_like(log_q[:1]), log_q[None], beta
        )
        log_w = log_w.squeeze(0)  # (K, B)
        value = log_w.logsumexp(dim=0) - math.log(self.K)
        credit = value.detach() - self._predicted(log_w.detach())
        surrogate = bound_of(value + (credit * log_choice).sum(dim=0), {}, batch.mask).value
        return surrogate, 0.0, bound_of(value, terms, batch.mask)

    def _predicted(self, log_w: Tensor) -> Tensor:
        """The bound with each log w replaced by the mean of the others, (K, B)."""
        others = (log_w.sum(dim=0) - log_w) / (self.K - 1)
        same = torch.eye(self.K, dtype=torch.bool, device=log_w.device)[..., None]
        return torch.where(same, others, log_w[None]).logsumexp(dim=1) - math.log(self.K)
