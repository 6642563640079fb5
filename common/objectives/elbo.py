r"""ELBOs of subsets of the modalities, and sums of them.

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from common.data.batches import Batch
from common.distributions.base import LatentDistribution
from common.errors import require
from common.execution.rows import Rows, rows_of
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.subsets import constant, joint_subset, mvae_subsets, random_subsets

import torch
from torch import Tensor, nn


class SumOfElbos(MultimodalObjective):
    """A sum of ELBO(S), with one sample of z each, over the subsets S of a subclass's `subsets()`, {name: (M,) bool}.

    An energy-based posterior has a weighted pool in place of the sample (`LocScaleEbm.elbo_samples`).

    For an example that lacks modalities, each S is cut to those that it has, and equal terms count once: a row with one
    modality has its unimodal ELBO alone. A row with `Batch.joint_only` has no unimodal ELBO. Every encoder runs once. A
    modality without a decoder (CVAE's label) is given, and not scored.
    """

    of_mixtures = False
    K, generator = 0, None  # random subsets, and what draws them

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        has_flows = self.model.variational_posterior.has_flows
        require(not has_flows, f"{type(self).__name__} needs KLs in closed form, which flows do not have: take JnfElbo")

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of the ELBOs of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        rows = self.rows(batch)
        q = self.posteriors(self.model.experts(batch), rows)  # (T, B)
        z, weight, kl = q.elbo_samples(self.model.prior())  # (K, T, B, D), (K, T, B), (T, B)
        log_p = self.score(self.model, batch, z, rows)  # {name: (K, T, B)}
        kl = kl if rows.scored is None else torch.where(rows.scored.any(dim=-1), kl, 0)
        value, terms = -beta * kl.sum(dim=0), {f"{subset}/kl": x for subset, x in zip(rows.names, kl, strict=True)}
        for name, by_sample in log_p.items():
            expected = (weight * by_sample).sum(dim=0)  # (T, B)
            value = value + self._weighted(name, rows.names, expected)
            scores = rows.subsets[:, self.model.columns[name].slice].any(dim=1).tolist()
            for subset, x, is_scored in zip(rows.names, expected.unbind(), scores, strict=True):
                if is_scored or subset not in self._fixed:  # random subsets have the same terms in each step
                    terms[f"{subset}/{name}"] = x
        return Bound(value, terms)

    def weight(self, name: str, subset: str) -> float:
        """lambda of a modality in the term of a subset, by its name."""
        return self.weights[name]

    def _weighted(self, name: str, subsets: Sequence[str], expected: Tensor) -> Tensor:
        """The sum over the terms of lambda times E log p(x_m|z), (T, B): (B,)."""
        lambdas = tuple(self.weight(name, subset) for subset in subsets)
        if len(set(lambdas)) == 1:
            return lambdas[0] * expected.sum(dim=0)
        return (constant(lambdas, expected.dtype, expected.device)[:, None] * expected).sum(dim=0)

    def posteriors(self, params: tuple[Tensor, ...], rows: Rows) -> LatentDistribution:
        """q(z|x_S) of all rows, (T, B), from the experts' parameters (M, B, D)."""
        return self.model.fuse(params, rows.given)

    def rows(self, batch: Batch) -> Rows:
        """The rows of the batch's ELBOs."""
        n, device = self.model.n_columns, self.model.device
        return rows_of(
            self.model, batch, self._fixed, random_subsets(n, self.K, self.generator, device) if self.K else None
        )

    @cached_property
    def _fixed(self) -> dict[str, Tensor]:
        """The subsets that are not random, {name: (M,)}."""
        return self.subsets()


class StandardElbo(SumOfElbos):
    r"""ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014).

    .. math:: E_{q(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q(z|X) || p(z))
    """

    def subsets(self) -> dict[str, Tensor]:
        return {"joint": joint_subset(self.model.n_columns)[0]}


class MvaeElbo(SumOfElbos):
    r"""MVAE's sub-sampled objective: the ELBOs of all modalities, of each one, and of K random subsets.

    .. math:: ELBO(X) + \sum_m ELBO(x_m) + \sum_{j=1}^K ELBO(x_{S_j}), \qquad
              ELBO(x_S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))

    Wu & Goodman 2018, eq. 5; S_j are K random subsets of size 2 .. M - 1, drawn anew at each call
    (`common.subsets.random_subsets`). A lower bound on the sum of the corresponding log p(x_S). For a set of elements
    these are subsets of its elements; each element counts alone if they are few, else the set does.

    Args:
        K: number of random subsets (`--approx-m`).
        generator: draws them, on the model's device.

    Raises:
        InputError: a negative K, or random subsets of fewer than three modalities.
    """

    unimodal = True

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 0,
        weights: Mapping[str, float] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, weights)
        n = self.model.n_columns
        require(K >= 0, f"the number of random subsets (--approx-m) must not be negative, it is {K}")
        require(K == 0 or n > 2, f"random subsets need at least 3 modalities (got {n}): leave out --approx-m")
        self.K, self.generator = K, generator

    def subsets(self) -> dict[str, Tensor]:
        return mvae_subsets(self.model.columns)
