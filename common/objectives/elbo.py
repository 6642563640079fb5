r"""ELBOs of subsets of the modalities, and sums of them.

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from common.data.batches import Batch, n_columns
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.subsets import MAX_ENUMERATED, joint_subset, mvae_subsets, on_device, single_modalities


class Terms(NamedTuple):
    """The ELBOs of a batch.

    subsets: (T, M) bool, on the CPU; names: of the T subsets.
    given: the modalities that each term's posterior sees, (T, 1, M), or (T, B, M) if examples lack some.
    scored: the modalities whose log-likelihood each term has, (T, B, M); None if they are the given ones.
    """

    subsets: Tensor
    names: list[str]
    given: Tensor
    scored: Tensor | None


class SumOfElbos(MultimodalObjective):
    """A sum of ELBO(S), with one sample of z each, over the subsets S that a subclass's `subsets()` gives, (T, M) bool.

    An energy-based posterior has a weighted pool in place of the sample (`LocScaleEbm.weighted_samples`).

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
        terms = self._terms(batch)
        q = self._posteriors(self.model.experts(batch), terms)
        z, share, kl = self.model.variational_posterior.weighted_samples(q, self.model.prior())
        # (J, T, B, D), (J, T, B), (T, B)
        if terms.scored is not None:
            kl = torch.where(terms.scored.any(dim=-1), kl, 0)
        value = -beta * kl.sum(dim=0)
        named_terms = {f"{name}/kl": kl[t] for t, name in enumerate(terms.names)}
        for name, log_likelihoods in self._expected_log_likelihoods(z, share, batch, terms).items():
            for t, log_p in log_likelihoods.items():
                value = value + self.weight(name, terms.names[t]) * log_p
                named_terms[f"{terms.names[t]}/{name}"] = log_p
        return Bound(value, self._with_all_names(named_terms, terms.names))

    def weight(self, name: str, subset: str) -> float:
        """lambda of a modality in the term of a subset, by its name."""
        return self.weights[name]

    def _terms(self, batch: Batch) -> Terms:
        subsets = self.subsets()  # (T, M)
        names = self._subset_names(subsets)
        device = next(iter(batch.modalities.values())).device
        complete = (subsets.to(device) if self.random_subsets else on_device(subsets, device))[:, None]  # (T, 1, M)
        if batch.mask is None:
            return Terms(subsets, names, complete, None)
        given = complete & batch.mask  # (T, B, M)
        several = (subsets.sum(dim=1) > 1).nonzero().squeeze(1).tolist()
        repeated = _repeated(several, complete, given) & ~batch.mask.all(dim=-1)
        scored = given & ~repeated[..., None] & self.model.scorable(batch.mask)
        if batch.joint_only is not None:
            for t, name in enumerate(names):
                if name in self._single_names:
                    scored[t] &= ~batch.joint_only[:, None]
        return Terms(subsets, names, given, scored)

    def _posteriors(self, params: tuple[Tensor, ...], terms: Terms) -> Distribution:
        """q(z|x_S) of all terms, (T, B), from the experts' parameters (M, B, D).

        With many experts, a term of one expert is computed from that expert alone, so that the work grows linearly
        with M.
        """
        m, b, _ = params[0].shape
        fuse = self.model.variational_strategy
        each_alone = terms.subsets[:m].equal(torch.eye(m, dtype=torch.bool))
        if m <= MAX_ENUMERATED or not each_alone or not fuse.is_product or self.model.private:
            return self.model.fuse(params, terms.given)
        single = fuse(tuple(p.view(1, m * b, -1) for p in params))  # (M B, D) each; absent ones score nothing
        others = fuse(params, terms.given[m:])  # (T - M, B, D) each
        pairs = zip(single, others, strict=True)
        return self.model.variational_posterior(tuple(torch.cat([x.view(m, b, -1), y]) for x, y in pairs))

    def _expected_log_likelihoods(
        self, z: Tensor, share: Tensor, batch: Batch, terms: Terms
    ) -> dict[str, dict[int, Tensor]]:
        """E log p(x_m|z) of each modality in each term that scores it, {name: {term: (B,)}}.

        Args:
            z, share: samples (J, T, B, D), and their weights in the expectation (J, T, B).
        """
        # taken apart at once: the gradient of each z[:, t] would be as large as z
        z_by_term, share_by_term = z.unbind(1), share.unbind(1)  # (J, B, D), (J, B)
        scoring, z_by_name, scored = self._scoring_terms(terms.subsets), {}, {}
        for name, indices in scoring.items():
            if name in batch.modalities:
                z_by_name[name] = torch.stack([z_by_term[t] for t in indices])  # (T_m, J, B, D)
                scored[name] = self._scored_in(name, indices, terms, z.shape)
        log_p = self.log_likelihoods(z_by_name, batch, scored)  # {name: (T_m, J, B)}
        expected = {}
        for name, indices in scoring.items():
            if name in log_p:
                mean = (torch.stack([share_by_term[t] for t in indices]) * log_p[name]).sum(dim=1)  # (T_m, B)
            else:
                mean = z.new_zeros(len(indices), z.shape[2])
            expected[name] = dict(zip(indices, mean, strict=True))
        return expected

    def _scoring_terms(self, subsets: Tensor) -> dict[str, list[int]]:
        """The indices of the terms (T, M) that score each modality, by name."""
        scoring = {}
        for name in self.model.modelled:
            indices = subsets[:, self.model.columns[name].slice].any(dim=1).nonzero().squeeze(1).tolist()
            if indices:
                scoring[name] = indices
        return scoring

    def _scored_in(self, name: str, indices: list[int], terms: Terms, shape: torch.Size) -> Tensor | None:
        """Where a modality is scored in its terms: (T_m, J, B), for a set (T_m, J, B, n); None for everywhere.

        Args:
            shape: of the samples, (J, T, B, D).
        """
        modality = self.model.modality[name]
        every_element = terms.subsets[indices, modality.columns.slice].all()
        if terms.scored is None and every_element:
            return None
        places = terms.given if terms.scored is None else terms.scored
        places = places.expand(shape[0], -1, shape[2], -1)  # (J, T, B, M)
        return torch.stack([modality.present(places[:, t]) for t in indices])

    @cached_property
    def _single_names(self) -> tuple[str, ...]:
        """The names of the terms with one modality, or one element."""
        return tuple(single_modalities(self.model.columns))

    @cached_property
    def _names(self) -> dict[tuple[bool, ...], str]:
        """The names of subsets that are not random, by their rows."""
        columns = self.model.columns
        named = single_modalities(columns) | {"joint": joint_subset(n_columns(columns))[0]}
        return {tuple(subset.tolist()): name for name, subset in named.items()}

    def _subset_names(self, subsets: Tensor) -> list[str]:
        names, n_random = [], 0
        for subset in subsets.tolist():
            name = self._names.get(tuple(subset))
            if name is None or name in names:  # random subsets come last, and can equal a fixed one
                n_random += 1
                name = f"subset{n_random}"
            names.append(name)
        return names

    def _with_all_names(self, named_terms: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
        """The terms, and zeros for modalities outside a random subset, so that every step has the same names."""
        known = set(self._names.values())
        random = [name for name in names if name not in known]
        zero = torch.zeros_like(next(iter(named_terms.values())))
        return {f"{subset}/{name}": zero for subset in random for name in self.model.modalities} | named_terms


class StandardElbo(SumOfElbos):
    r"""ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014).

    .. math:: E_{q(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q(z|X) || p(z))
    """

    def subsets(self) -> Tensor:
        return joint_subset(n_columns(self.model.columns))


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
        n = n_columns(self.model.columns)
        require(K >= 0, f"the number of random subsets (--approx-m) must not be negative, it is {K}")
        require(K == 0 or n > 2, f"random subsets need at least 3 modalities (got {n}): leave out --approx-m")
        self.K, self.random_subsets = K, K > 0
        self.generator = generator

    def subsets(self) -> Tensor:
        return mvae_subsets(self.model.columns, self.K, self.generator)


def _repeated(several: list[int], complete: Tensor, given: Tensor) -> Tensor:
    """The terms that are equal to another term of the same example, all but one of them, (T, B).

    Kept is the first one whose subset is complete in the example, or else the first one.

    Args:
        several: indices of the terms with more than one modality. (A single one without its modality scores nothing.)
        complete: the subsets, (T, 1, M).
        given: the modalities of each subset that the example has, (T, B, M).
    """
    reduced = (given != complete).any(dim=-1)  # (T, B)
    repeated = torch.zeros_like(reduced)
    for t in several:
        same = (given == given[t]).all(dim=-1)  # (T, B)
        before = (same[:t] & (reduced[t] | ~reduced[:t])).any(dim=0)
        repeated[t] = before | (reduced[t] & (same & ~reduced).any(dim=0))
    return repeated
