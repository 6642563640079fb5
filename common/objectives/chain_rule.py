"""The chain rule of log p(x_1, ..., x_M) over the modalities in a random order."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from common.data.batches import Batch, n_columns
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective


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

    random_subsets = True

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        has_kl = self.model.variational_posterior.has_kl
        closed = "mixtures, energy-based posteriors and flows have no KLs in closed form: choose another objective"
        require(has_kl, closed)
        every_subset = self.model.variational_strategy.fuses_every_subset
        require(
            every_subset, "the chain rule needs a posterior of every subset: a product, or an encoder for each, has one"
        )

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum for each example, (B,), with the KLs weighted by beta; "ar/kl" is the sum of all KLs."""
        batch = self.model.observe(inputs)
        x = next(iter(batch.modalities.values()))
        m = n_columns(self.model.columns)
        rank = torch.rand(len(batch), m, device=x.device).argsort(dim=1)  # (B, M)
        turn = torch.arange(m, device=x.device)[:, None, None]
        seen, now = rank <= turn, rank == turn  # (M, B, M)
        if batch.mask is not None:
            seen, now = seen & batch.mask, now & batch.mask
        fused = self.model.fused_params(self.model.experts(batch), seen)  # (M, B, D) each

        def posteriors(turns: slice) -> Distribution:
            return self.model.variational_posterior(tuple(p[turns] for p in fused))

        z = posteriors(slice(None)).rsample()  # (M, B, D)
        kl = self._kls(posteriors, m, None if batch.mask is None else seen.any(dim=-1)).sum(dim=0)
        now = now if batch.mask is None else now & self.model.scorable(batch.mask)
        scored = {name: self.model.modality[name].present(now) for name in batch.modalities}
        log_p = self.log_likelihoods(dict.fromkeys(scored, z), batch, scored)  # {name: (M, B)}
        sums = {name: x.sum(dim=0) for name, x in log_p.items()}
        return self.with_log_likelihoods(Bound(-beta * kl, {"ar/kl": kl}), "ar", sums)

    def _kls(self, posteriors: Callable[[slice], Distribution], m: int, begun: Tensor | None) -> Tensor:
        """The KL of each turn's posterior from that of the turn before, (M, B), nats.

        A chain begins with the KL from the prior at the first modality that an example has.

        Args:
            posteriors: turns -> their q(z|x_S).
            begun: whether an example has a modality in the turns so far, (M, B) bool; None if all have all.
        """
        from_prior = kl_divergence(posteriors(slice(1 if begun is None else m)), self.model.prior())
        if m > 1:
            steps = kl_divergence(posteriors(slice(1, None)), posteriors(slice(-1)))  # (M - 1, B)
            steps = steps if begun is None else torch.where(begun[:-1], steps, from_prior[1:])
            kls = torch.cat([from_prior[:1], steps])
        else:
            kls = from_prior
        return kls if begun is None else torch.where(begun, kls, 0)
