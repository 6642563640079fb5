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
from common.subsets import joint_subset, mvae_subsets, on_device, random_subsets


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
        terms = self.terms(batch)
        q = self.posteriors(self.model.experts(batch), terms)  # (T, B)
        z, weight, kl = q.elbo_samples(self.model.prior())  # (J, T, B, D), (J, T, B), (T, B)
        if terms.where is not None:
            kl = torch.where(terms.where.any(dim=-1), kl, 0)
        log_p = self.log_likelihoods(self.decode(self.model, batch), z.transpose(0, 1), terms)  # {name: (T, J, B)}
        value, named = -beta * kl.sum(dim=0), {f"{subset}/kl": kl[t] for t, subset in enumerate(terms.names)}
        for name, by_sample in log_p.items():
            expected = (weight.transpose(0, 1) * by_sample).sum(dim=1)  # (T, B)
            value = value + (self._lambdas[name] * expected).sum(dim=0)
            scores = terms.subsets[:, self.model.columns[name].slice].any(dim=1).tolist()
            for t, (subset, x) in enumerate(zip(terms.names, expected.unbind(), strict=True)):
                if scores[t] or subset not in self._fixed:  # so that random subsets have the same terms in each step
                    named[f"{subset}/{name}"] = x
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
        device = next(iter(batch.modalities.values())).device
        subsets = torch.stack([*self._fixed.values()])  # (T, M)
        asked = on_device(subsets, device)
        if self.K:
            drawn = random_subsets(self.model.n_columns, self.K, self.generator, device)
            # to read what is drawn would make a GPU wait, and no CUDA graph can: all modalities are then decoded
            read = torch.ones(drawn.shape, dtype=torch.bool) if batch.every_row else drawn.cpu()
            subsets, asked = torch.cat([subsets, read]), torch.cat([asked, drawn])
        asked = asked[:, None]  # (T, 1, M)
        if batch.mask is None:
            return Terms(self._names, subsets, asked, asked if self.K and batch.every_row else None)
        given = asked & batch.mask  # (T, B, M)
        several = (subsets.sum(dim=1) > 1).nonzero().squeeze(1).tolist()
        repeated = _repeated(several, asked, given) & ~batch.mask.all(dim=-1)
        where = given & ~repeated[..., None] & self.model.scorable(batch.mask)
        if batch.joint_only is not None:
            others = where & ~batch.joint_only[:, None]
            single = [name in self._fixed and name != "joint" for name in self._names]
            where = torch.stack([(others if single[t] else where)[t] for t in range(len(where))])
        return Terms(self._names, subsets, given, where)

    @cached_property
    def _fixed(self) -> dict[str, Tensor]:
        """The subsets that are not random, {name: (M,)}."""
        return self.subsets()

    @property
    def _names(self) -> list[str]:
        """The names of all T terms."""
        return [*self._fixed, *(f"subset{i + 1}" for i in range(self.K))]

    @cached_property
    def _lambdas(self) -> dict[str, Tensor]:
        """lambda of each modality in all terms, {name: (T, 1)}."""
        like = next(self.model.parameters())
        by_term = {name: [self.weight(name, subset) for subset in self._names] for name in self.model.modelled}
        return {name: like.new_tensor(weights)[:, None] for name, weights in by_term.items()}


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
