r"""The papers' bounds.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling it gives the scalar loss. With
all weights and beta at 1 the bound's value is in nats and bounds what the class says. Shared notation:

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from common.data import Batch, observe
from common.errors import require
from common.models import MultimodalVAE, capturing
from common.subsets import joint_subset, mvae_subsets, on_device


class Bound(NamedTuple):
    """value: what is maximised, (B,); terms: its parts without weights and beta, nats, {name: (B,)}.

    A term is named SUBSET/MODALITY or SUBSET/kl; the subset is "joint", a modality's name, "mixture", or "subset1",
    "subset2" for the random ones. A term is zero for an example that lacks it: a batch's mean is its share of the loss.
    """

    value: Tensor
    terms: dict[str, Tensor]


class Objective(nn.Module):
    """What all bounds share: the model, the weights, and the loss.

    Args:
        model: the model; its `weights` are the lambdas unless others are given.
        weights: {name: lambda}.
    """

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        unknown = [name for name in weights or {} if name not in model.modalities]
        require(not unknown, f"weights of unknown modalities: {', '.join(unknown)}")
        self.model = model
        self.weights = model.weights | dict(weights or {})

    @property
    def random(self) -> bool:
        """Whether what is computed differs from call to call."""
        return False

    def forward(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Tensor:
        """The loss to minimise."""
        return self.loss(inputs, beta)[0]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        """The loss, minus the bound averaged over the batch, and that bound."""
        bound = self.bound(inputs, beta)
        return -bound.value.mean(), bound

    def log_prob(self, name: str, z: Tensor, batch: Batch, scored: Tensor | None = None) -> Tensor:
        """log p(x_m|z) for z (T, B, D): (T, B), 0 where it is not scored, (T, B) bool.

        Only what is scored is decoded, all terms in one batch, but by a decoder with batch norm in training: its
        statistics are to be those of one term, as in the papers.
        """
        if self.training and len(z) > 1 and has_batch_norm(self.model.decoder[name]):
            scored = [None] * len(z) if scored is None else scored.split(1)
            return torch.cat([self.log_prob(name, z[t : t + 1], batch, s) for t, s in enumerate(scored)])
        if scored is not None and capturing(scored):  # what a graph does must not depend on the mask
            return torch.where(scored, self.log_prob(name, z, batch), 0)
        if scored is None or scored.all():
            return self.model.decode(z, [name], batch.modalities)[name].log_prob(batch.modalities[name])
        log_p = z.new_zeros(z.shape[:2])
        if scored.any():  # distributions refuse empty batches
            rows = scored.nonzero(as_tuple=True)  # (N,), (N,)
            x = {n: x[rows[1]] for n, x in batch.modalities.items()}
            log_p[rows] = self.model.decode(z[rows], [name], x)[name].log_prob(x[name])
        return log_p


class SumOfElbos(Objective):
    """A sum of ELBO(S), one sample of z each, over the subsets that a child's `subsets()` names, (T, M) bool.

    An example that lacks modalities contributes ELBO(S and what it has), each once: a row of one modality carries
    its unimodal ELBO and nothing else. One that counts jointly only (`Batch.together`) carries all but these. Every
    encoder runs once. A modality without a decoder (CVAE's label) is given, and not scored.
    """

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of ELBO(S) of each example, (B,), with the KLs weighted by beta."""
        batch = observe(inputs, self.model.modalities)
        subsets = self.subsets()  # (T, M)
        names = self._subset_names(subsets)
        given = on_device(subsets, next(iter(batch.modalities.values())).device)[:, None]  # (T, 1, M)
        scored = None
        if batch.mask is not None:
            whole, given = given, given & batch.mask  # (T, B, M)
            scored = given & ~_repeated(whole, given)[..., None]
            if batch.together is not None:
                scored &= ~((whole.sum(dim=-1) == 1) & batch.together)[..., None]
            index = self.model.modalities.index
            for name, conditions in self.model.conditions.items():
                for condition in conditions:  # p(x_m|z, x_l) is of examples that have both
                    scored[..., index(name)] &= given[..., index(condition)]
        q = self.model.fuse(self.model.encode(batch), given)
        z = q.rsample()  # (T, B, D)
        kl = kl_divergence(q, self.model.prior())  # (T, B)
        if scored is not None:
            kl = torch.where(scored.any(dim=-1), kl, 0)
        value = -beta * kl.sum(dim=0)
        terms = {f"{name}/kl": kl[t] for t, name in enumerate(names)}
        for m, name in enumerate(self.model.modalities):
            where = subsets[:, m].nonzero().squeeze(1).tolist()  # the terms that score this modality
            if name not in self.model.decoder or not where:
                continue
            log_p = torch.zeros_like(kl[: len(where)])  # (T_m, B)
            if name in batch.modalities:
                z_m = torch.stack([z[t] for t in where])
                log_p = self.log_prob(
                    name, z_m, batch, None if scored is None else torch.stack([scored[t, :, m] for t in where])
                )
            value = value + self.weights[name] * log_p.sum(dim=0)
            terms |= {f"{names[t]}/{name}": log_p[i] for i, t in enumerate(where)}
        return Bound(value, self._complete(terms, names))

    def _subset_names(self, subsets: Tensor) -> list[str]:
        names, n_random = [], 0
        for subset in subsets:
            if subset.all():
                names.append("joint")
            elif subset.sum() == 1:
                names.append(self.model.modalities[int(subset.nonzero())])
            else:
                n_random += 1
                names.append(f"subset{n_random}")
        return names

    def _complete(self, terms: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
        """All the names that random subsets could have brought, so that a run's metrics have the same at each step."""
        random = [name for name in names if name not in ("joint", *self.model.modalities)]
        nothing = torch.zeros_like(next(iter(terms.values())))
        return {f"{subset}/{name}": nothing for subset in random for name in self.model.modalities} | terms


class StandardElbo(SumOfElbos):
    """ELBO of all modalities of an example: a lower bound on log p(x_1, ..., x_M) (Kingma & Welling 2014)."""

    def subsets(self) -> Tensor:
        return joint_subset(len(self.model.modalities))


class MvaeElbo(SumOfElbos):
    r"""MVAE's sub-sampled objective, ELBO(all) + sum_m ELBO({m}) + sum_{j=1..K} ELBO(S_j).

    Wu & Goodman 2018, eq. 5; S_j are K random subsets of size 2 .. M - 1, drawn anew at each call
    (`common.subsets.random_subsets`). A lower bound on the sum of the corresponding log p(x_S).

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

    @property
    def random(self) -> bool:
        return self.K > 0

    def subsets(self) -> Tensor:
        return mvae_subsets(len(self.model.modalities), self.K, self.generator)


class MixtureElbo(Objective):
    r"""The ELBO of a posterior that is a mixture, with one sample of each component (stratified).

    .. math:: \sum_t \pi_t \Big[ E_{q_t(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q_t(z|X) || p(z)) \Big]

    Every decoder decodes every component's sample; the pi are the mixture's weights, over what an example has. A lower
    bound on log p(X): it takes the mean of the components' KLs where the mixture's own, which is lower, would do.
    Over single experts it is BiVCCA's objective with mu = 1/2 (Wang et al. 2016, arXiv 1610.03454) and the ELBO of Shi
    et al. 2019; over the products of all subsets MoPoE's (Sutter et al. 2021, arXiv 2105.02470).
    """

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the KLs weighted by beta."""
        batch = observe(inputs, self.model.modalities)
        q = self.model.fuse(self.model.encode(batch), batch.mask)
        share = q.mixture_distribution.probs.T  # (T, B)
        z = q.component_distribution.rsample().movedim(1, 0)  # (T, B, D)
        kl = (share * kl_divergence(q.component_distribution, self.model.prior()).T).sum(dim=0)
        value, terms = -beta * kl, {"mixture/kl": kl}
        for m, name in enumerate(self.model.modalities):
            log_p = torch.zeros_like(kl)
            if name in batch.modalities:
                scored = None if batch.mask is None else (share > 0) & batch.mask[:, m]
                log_p = (share * self.log_prob(name, z, batch, scored)).sum(dim=0)
            value = value + self.weights[name] * log_p
            terms[f"mixture/{name}"] = log_p
        return Bound(value, terms)


class JmvaeElbo(Objective):
    r"""JMVAE-kl: the joint ELBO, and the unimodal posteriors drawn towards the joint one (Suzuki et al. 2016, eq. 5).

    .. math:: ELBO(x_1, .., x_M) - \alpha \sum_m KL(q(z|x_1, .., x_M) || q(z|x_m))

    arXiv 1611.01891. A lower bound on log p(x_1, ..., x_M). Learns from complete examples alone.

    Args:
        alpha: weight of the KLs between posteriors; beta does not weigh these.
    """

    def __init__(self, model: MultimodalVAE, alpha: float = 0.1, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        self.alpha = alpha

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the prior's KL weighted by beta.

        Raises:
            InputError: an example lacks a modality.
        """
        batch = observe(inputs, self.model.modalities)
        require(batch.mask is None or bool(batch.mask.all()), "JMVAE's objective needs every modality of every example")
        subsets = mvae_subsets(len(self.model.modalities))
        subsets = on_device(subsets, next(iter(batch.modalities.values())).device)
        params = self.model.encode(batch)
        joint = self.model.fuse(params)
        alone = self.model.fuse(params, subsets[:-1, None])  # (M, B)
        z, kl = joint.rsample(), kl_divergence(joint, self.model.prior())  # (B, D), (B,)
        apart = kl_divergence(joint, alone)  # (M, B)
        value = -beta * kl - self.alpha * apart.sum(dim=0)
        terms = {"joint/kl": kl} | {f"{name}/kl from joint": apart[m] for m, name in enumerate(self.model.modalities)}
        for name in self.model.modalities:
            (log_p,) = self.log_prob(name, z[None], batch)
            value = value + self.weights[name] * log_p
            terms[f"joint/{name}"] = log_p
        return Bound(value, terms)


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def _repeated(whole: Tensor, given: Tensor) -> Tensor:
    """Terms (T, B) to leave out: missing modalities make them equal to another one of the same example.

    Of equal ones a term of its own stays before a reduced one, else the first.

    Args:
        whole: the subsets, (T, 1, M).
        given: what an example has of them, (T, B, M).
    """
    reduced = (given != whole).any(dim=-1)  # (T, B)
    same = (given[:, None] == given[None]).all(dim=-1)  # (T, T, B)
    earlier = torch.ones(len(given), len(given), dtype=torch.bool, device=given.device).tril(-1)[..., None]
    return reduced & (same & (earlier | ~reduced)).any(dim=1)
