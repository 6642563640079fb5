r"""ELBOs of subsets of the modalities, and sums of them.

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.data.batches import Batch
from common.distributions.base import LatentDistribution
from common.errors import require
from common.execution.decoder import Decoder
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.subsets import joint_subset, mvae_subsets, single_modalities


class Terms(NamedTuple):
    """The ELBOs of a batch.

    names: of the T subsets.
    subsets: the modalities that each term scores, (T, M) bool, on the CPU.
    given: those that its posterior sees, (T, 1, M), or (T, B, M) if examples lack some.
    where: those that it scores of each example, (T, B, M); None if every example has all.
    """

    names: list[str]
    subsets: Tensor
    given: Tensor
    where: Tensor | None


class SumOfElbos(MultimodalObjective):
    """A sum of ELBO(S), with one sample of z each, over the subsets S that a subclass's `subsets()` gives, (T, M) bool.

    An energy-based posterior has a weighted pool in place of the sample (`LocScaleEbm.elbo_samples`).

    For an example that lacks modalities, each S is cut to those that it has, and equal terms count once: a row with one
    modality has its unimodal ELBO alone. A row with `Batch.joint_only` has no unimodal ELBO. Every encoder runs once. A
    modality without a decoder (CVAE's label) is given, and not scored.
    """

    of_mixtures = False

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        has_flows = self.model.variational_posterior.has_flows
        require(not has_flows, f"{type(self).__name__} needs KLs in closed form, which flows do not have: take JnfElbo")

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of the ELBOs of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        terms = self.terms(batch)
        q = self.posteriors(self.model.experts(batch), terms)  # (T, B)
        z, weight, kl = q.elbo_samples(self.model.prior())  # (J, T, B, D), (J, T, B), (T, B)
        if terms.where is not None:
            kl = torch.where(terms.where.any(dim=-1), kl, 0)
        log_p = self.log_likelihoods(self.decode(self.model, batch), z.transpose(0, 1), terms)  # {name: (T, J, B)}
        expected = {name: (weight.transpose(0, 1) * x).sum(dim=1).unbind() for name, x in log_p.items()}  # T times (B,)
        value, named = -beta * kl.sum(dim=0), {f"{subset}/kl": kl[t] for t, subset in enumerate(terms.names)}
        fixed = self._names.values()
        for name, by_term in expected.items():
            scores = terms.subsets[:, self.model.columns[name].slice].any(dim=1).tolist()
            for t, subset in enumerate(terms.names):
                if scores[t] or subset not in fixed:  # so that random subsets have the same terms in each step
                    value = value + self.weight(name, subset) * by_term[t]
                    named[f"{subset}/{name}"] = by_term[t]
        return Bound(value, named)

    def weight(self, name: str, subset: str) -> float:
        """lambda of a modality in the term of a subset, by its name."""
        return self.weights[name]

    def posteriors(self, params: tuple[Tensor, ...], terms: Terms) -> LatentDistribution:
        """q(z|x_S) of all terms, (T, B), from the experts' parameters (M, B, D)."""
        return self.model.fuse(params, terms.given)

    def log_likelihoods(self, decoder: Decoder, z: Tensor, terms: Terms) -> dict[str, Tensor]:
        """log p(x_m|z) of each term's samples z (T, J, B, D), {name: (T, J, B)}, 0 where the term does not score it."""
        return decoder(z, terms.subsets, None if terms.where is None else terms.where.unsqueeze(1))

    def terms(self, batch: Batch) -> Terms:
        """The terms of a batch, without those of an example that equal another one."""
        terms = self._new_terms() if self.random_subsets else self._same_terms
        terms = terms._replace(given=terms.given.to(next(iter(batch.modalities.values())).device))
        if batch.mask is None:
            return terms
        given = terms.given & batch.mask  # (T, B, M)
        several = (terms.subsets.sum(dim=1) > 1).nonzero().squeeze(1).tolist()
        repeated = _repeated(several, terms.given, given) & ~batch.mask.all(dim=-1)
        where = given & ~repeated[..., None] & self.model.scorable(batch.mask)
        if batch.joint_only is not None:
            single = [name != "joint" and name in self._names.values() for name in terms.names]
            others = where & ~batch.joint_only[:, None]
            where = torch.stack([(others if single[t] else where)[t] for t in range(len(where))])
        return terms._replace(given=given, where=where)

    def _new_terms(self) -> Terms:
        """The terms of complete examples."""
        subsets, names, n_random = self.subsets(), [], 0  # (T, M)
        for subset in subsets.tolist():
            name = self._names.get(tuple(subset))
            if name is None or name in names:  # random subsets come last, and can equal a fixed one
                n_random += 1
                name = f"subset{n_random}"
            names.append(name)
        return Terms(names, subsets, subsets[:, None].to(next(self.model.parameters()).device), None)

    @cached_property
    def _same_terms(self) -> Terms:
        """The terms of complete examples, where none is random."""
        return self._new_terms()

    @cached_property
    def _names(self) -> dict[tuple[bool, ...], str]:
        """The names of subsets that are not random, by their rows."""
        named = single_modalities(self.model.columns) | {"joint": joint_subset(self.model.n_columns)[0]}
        return {tuple(subset.tolist()): name for name, subset in named.items()}


class StandardElbo(SumOfElbos):
    r"""ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014).

    .. math:: E_{q(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q(z|X) || p(z))
    """

    def subsets(self) -> Tensor:
        return joint_subset(self.model.n_columns)


class MvaeElbo(SumOfElbos):
    r"""MVAE's sub-sampled objective: the ELBOs of all modalities, of each one, and of K random subsets.

    .. math:: ELBO(X) + \sum_m ELBO(x_m) + \sum_{j=1}^K ELBO(x_{S_j}), \qquad
              ELBO(x_S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))

    Wu & Goodman 2018, eq. 5; S_j are K random subsets of size 2 .. M - 1, drawn anew at each call
    (`common.subsets.random_subsets`). A lower bound on the sum of the corresponding log p(x_S). For a set of elements
    these are subsets of its elements; each element counts alone if they are few, else the set does.

    Args:
        K: number of random subsets (`--approx-m`).
        generator: draws them.

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
        self.K, self.random_subsets = K, K > 0
        self.generator = generator

    def subsets(self) -> Tensor:
        return mvae_subsets(self.model.columns, self.K, self.generator)


def _repeated(several: list[int], asked: Tensor, given: Tensor) -> Tensor:
    """The terms that are equal to another term of the same example, all but one of them, (T, B).

    Of duplicate terms the first unreduced one stays, else the first.

    Args:
        several: indices of the terms with more than one modality. (A single one without its modality scores nothing.)
        asked: the subsets, (T, 1, M).
        given: the modalities of each subset that the example has, (T, B, M).
    """
    reduced = (given != asked).any(dim=-1)  # (T, B)
    repeated = torch.zeros_like(reduced)
    for t in several:
        same = (given == given[t]).all(dim=-1)  # (T, B)
        before = (same[:t] & (reduced[t] | ~reduced[:t])).any(dim=0)
        repeated[t] = before | (reduced[t] & (same & ~reduced).any(dim=0))
    return repeated
