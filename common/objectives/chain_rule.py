"""The chain rule of log p(x_1, ..., x_M) over the modalities in a random order."""

from collections.abc import Mapping

from common.data.batches import Batch
from common.distributions.base import LatentDistribution
from common.errors import require
from common.execution.rows import rows_where
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective

import torch
from torch import Tensor


class ArElbo(MultimodalObjective):
    r"""The modalities one after the other in a random order, each with the posterior of the earlier ones as its prior.

    .. math:: \sum_i E_{q(z|x_{\le i})} \lambda_i \log p(x_i|z) - \beta KL(q(z|x_{\le i}) || q(z|x_{<i})),
              \qquad q(z|\emptyset) = p(z)

    The chain rule of log p(x_1, ..., x_M), each factor by its ELBO, with q(z|x_{<i}) in place of p(z|x_{<i}): exact
    if the posteriors are, else no bound in either direction. (Open item of github.com/jgoffinet/poe-vae.) Each
    example has its own order, drawn anew at each call; what it lacks adds nothing.

    Raises:
        InputError: the posterior's KLs have no closed form (mixtures, energy-based, flows), or some subset has no
            posterior (a joint encoder beside three modalities or more).
    """

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        closed = "mixtures, energy-based posteriors and flows have no KLs in closed form: choose another objective"
        require(self.model.variational_posterior.has_kl, closed)
        every_subset = self.model.variational_strategy.fuses_every_subset
        require(
            every_subset, "the chain rule needs a posterior of every subset: a product, or an encoder for each, has one"
        )

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum for each example, (B,), with the KLs weighted by beta; "ar/kl" is the sum of all KLs."""
        batch = self.model.observe(inputs)
        x = next(iter(batch.modalities.values()))
        m = self.model.n_columns
        rank = torch.rand(len(batch), m, device=x.device).argsort(dim=1)  # (B, M)
        turn = torch.arange(m, device=x.device)[:, None, None]
        seen, now = rank <= turn, rank == turn  # (M, B, M)
        if batch.mask is not None:
            seen, now = seen & batch.mask, now & batch.mask
        q = self.model.fuse(self.model.experts(batch), seen)  # (M, B)
        kl = self._kls(q, m, None if batch.mask is None else seen.any(dim=-1)).sum(dim=0)
        rows = rows_where(self.model, batch, now)
        log_p = self.score(self.model, batch, q.rsample((1,)), rows)  # {name: (1, M, B)}
        sums = {name: x.sum(dim=(0, 1)) for name, x in log_p.items()}
        return self.elbo("ar", sums, kl, beta, batch.mask)

    def _kls(self, q: LatentDistribution, m: int, begun: Tensor | None) -> Tensor:
        """The KL of each turn's posterior from that of the turn before, (M, B), nats.

        A chain begins with the KL from the prior at the first modality that an example has.

        Args:
            q: q(z|x_S) of each turn, (M, B).
            begun: whether an example has a modality in the turns so far, (M, B) bool; None if all have all.
        """
        first = slice(1 if begun is None else m)
        from_prior = q.map_parameters(lambda x: x[first]).kl(self.model.prior())
        kls = from_prior
        if m > 1:
            steps = q.map_parameters(lambda x: x[1:]).kl(q.map_parameters(lambda x: x[:-1]))  # (M - 1, B)
            steps = steps if begun is None else torch.where(begun[:-1], steps, from_prior[1:])
            kls = torch.cat([from_prior[:1], steps])
        return kls if begun is None else torch.where(begun, kls, 0)
