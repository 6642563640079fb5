r"""ELBOs of subsets of the modalities, and sums of them.

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.bounds import Bound, MultimodalObjective
from common.data import Batch, n_columns
from common.energy import weighted_samples
from common.multimodal_vae import MultimodalVAE
from common.subsets import FEW, alone, joint_subset, mvae_subsets, on_device
from common.variational_strategies import GaussianPoeStrategy, GaussianQuotientStrategy, VmfPoeStrategy

PRODUCTS = (GaussianPoeStrategy, GaussianQuotientStrategy, VmfPoeStrategy)


class SumOfElbos(MultimodalObjective):
    """A sum of ELBO(S), one sample of z each, over the subsets that a child's `subsets()` names, (T, M) bool.

    An energy-based posterior has a weighted pool in the place of the sample (`common.energy.weighted_samples`).

    An example that lacks modalities contributes ELBO(S and what it has), each once: a row of one modality carries
    its unimodal ELBO and nothing else. One that counts jointly only (`Batch.together`) carries no unimodal ELBO. Every
    encoder runs once. A modality without a decoder (CVAE's label) is given, and not scored.
    """

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of ELBO(S) of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        subsets = self.subsets()  # (T, M)
        names = self._subset_names(subsets)
        device = next(iter(batch.modalities.values())).device
        given = (subsets.to(device) if self.random_subsets else on_device(subsets, device))[:, None]  # (T, 1, M)
        scored = None
        if batch.mask is not None:
            several = (subsets.sum(dim=1) > 1).nonzero().squeeze(1).tolist()
            whole, given = given, given & batch.mask  # (T, B, M)
            scored = given & ~_repeated(several, whole, given)[..., None]
            if batch.together is not None:
                for t in (t for t, name in enumerate(names) if name in self._known.values() and name != "joint"):
                    scored[t] &= ~batch.together[:, None]
            for name, conditions in self.model.conditions.items():
                for condition in conditions:  # p(x_m|z, x_l) is of examples that have both
                    scored[..., self.model.columns[name]] &= given[..., self.model.columns[condition]]
        q = self._posteriors(self.model.experts(batch), subsets, given)
        z, share, kl = weighted_samples(q, self.model.prior())  # (J, T, B, D), (J, T, B), (T, B)
        if scored is not None:
            kl = torch.where(scored.any(dim=-1), kl, 0)
        value = -beta * kl.sum(dim=0)
        terms = {f"{name}/kl": kl[t] for t, name in enumerate(names)}
        # taken apart at once: the gradient of each x[:, t] would be as large as x
        z_in, share_in = z.unbind(1), share.unbind(1)  # by term, (J, B, D), (J, B)
        scoring, z_of, counts = {}, {}, {}  # by modality: the terms that score it, their z, where they count
        for name, column in self.model.columns.items():
            part = subsets[:, column].view(len(subsets), -1)  # (T, 1), of a set (T, n)
            where = part.any(dim=1).nonzero().squeeze(1).tolist()
            if name not in self.model.modelled or not where:
                continue
            scoring[name] = where
            if name in batch.modalities:
                z_of[name], counts[name] = torch.stack([z_in[t] for t in where]), None  # (T_m, J, B, D)
                if scored is not None or not part[where].all():
                    of_all = (given if scored is None else scored).expand(len(z), -1, len(batch), -1)  # (J, T, B, M)
                    counts[name] = torch.stack([of_all[:, t, :, column] for t in where])
        found = self.log_probs(z_of, batch, counts)
        for name, where in scoring.items():
            log_p = torch.zeros_like(kl[: len(where)])  # (T_m, B)
            if name in found:
                log_p = (torch.stack([share_in[t] for t in where]) * found[name]).sum(dim=1)
            for t, of_term in zip(where, log_p, strict=True):
                value = value + self.weight(name, names[t]) * of_term
                terms[f"{names[t]}/{name}"] = of_term
        return Bound(value, self._complete(terms, names))

    def _posteriors(self, params: tuple[Tensor, ...], subsets: Tensor, given: Tensor) -> Distribution:
        """q(z|x_S) of all terms, (T, B), of the experts' parameters (M, B, D).

        Where each of many experts is a term, none of these looks at the others, so that the work grows with M alone.
        """
        m, b, _ = params[0].shape
        fuse = self.model.variational_strategy
        if m <= FEW or not isinstance(fuse, PRODUCTS) or not subsets[:m].equal(torch.eye(m, dtype=torch.bool)):
            return self.model.fuse(params, given)
        there = given[:m].diagonal(dim1=0, dim2=2).T.expand(m, b)
        alone = fuse(tuple(p.view(1, m * b, -1) for p in params), there.reshape(-1, 1))  # (M B, D) each
        others = fuse(params, given[m:])  # (T - M, B, D) each
        both = zip(alone, others, strict=True)
        return self.model.variational_posterior(tuple(torch.cat([x.view(m, b, -1), y]) for x, y in both))

    def weight(self, name: str, subset: str) -> float:
        """lambda of a modality in the term of a subset, by its name."""
        return self.weights[name]

    @cached_property
    def _known(self) -> dict[tuple[bool, ...], str]:
        """The subsets that have names of their own."""
        terms = alone(self.model.columns) | {"joint": joint_subset(n_columns(self.model.columns))[0]}
        return {tuple(subset.tolist()): name for name, subset in terms.items()}

    def _subset_names(self, subsets: Tensor) -> list[str]:
        names, n_random = [], 0
        for subset in subsets.tolist():
            name = self._known.get(tuple(subset))
            n_random += name is None
            names.append(name or f"subset{n_random}")
        return names

    def _complete(self, terms: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
        """All the names that random subsets could have brought, so that a run's metrics have the same at each step."""
        known = set(self._known.values())
        random = [name for name in names if name not in known]
        nothing = torch.zeros_like(next(iter(terms.values())))
        return {f"{subset}/{name}": nothing for subset in random for name in self.model.modalities} | terms


class StandardElbo(SumOfElbos):
    """ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014)."""

    def subsets(self) -> Tensor:
        return joint_subset(n_columns(self.model.columns))


class MvaeElbo(SumOfElbos):
    r"""MVAE's sub-sampled objective, ELBO(all) + sum_m ELBO({m}) + sum_{j=1..K} ELBO(S_j).

    Wu & Goodman 2018, eq. 5; S_j are K random subsets of size 2 .. M - 1, drawn anew at each call
    (`common.subsets.random_subsets`). A lower bound on the sum of the corresponding log p(x_S). Of a modality that is a
    set of elements, they are random subsets of these, and each element counts alone where they are few, else the set.

    Args:
        K: number of random subsets (`--approx-m`); needs three modalities.
        generator: draws them.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 0,
        weights: Mapping[str, float] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model, weights)
        self.K = K
        self.generator = generator

    unimodal = True

    @property
    def random_subsets(self) -> bool:
        return self.K > 0

    def subsets(self) -> Tensor:
        return mvae_subsets(self.model.columns, self.K, self.generator)


def _repeated(several: list[int], whole: Tensor, given: Tensor) -> Tensor:
    """Terms (T, B) to leave out: missing modalities make them equal to another one of the same example.

    Of equal ones a term of its own stays before a reduced one, else the first.

    Args:
        several: the terms of several modalities; without its one, another has nothing to score.
        whole: the subsets, (T, 1, M).
        given: what an example has of them, (T, B, M).
    """
    reduced = (given != whole).any(dim=-1)  # (T, B)
    repeated = torch.zeros_like(reduced)
    for t in several:
        same = (given == given[t]).all(dim=-1)  # (T, B)
        repeated[t] = reduced[t] & (same[:t].any(dim=0) | (same & ~reduced).any(dim=0))
    return repeated
