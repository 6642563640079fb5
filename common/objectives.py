r"""The papers' bounds.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling it gives the scalar loss. With
all weights and beta at 1 the bound's value is in nats and bounds what the class says. Shared notation:

.. math:: ELBO(S) = E_{q(z|x_S)} \sum_{m \in S} \lambda_m \log p(x_m|z) - \beta KL(q(z|x_S) || p(z))
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from common.bounds import Bound, Objective
from common.data import Batch, n_columns
from common.energy import weighted_samples
from common.errors import require
from common.importance import DregElbo, EnergyIwaeElbo, IwaeElbo, StlElbo
from common.multimodal_vae import MultimodalVAE
from common.subsets import joint_subset, modality_subsets, mvae_subsets, on_device
from common.variational_posteriors import MixturePosterior, component_shares

__all__ = [
    "ArElbo",
    "DregElbo",
    "EnergyIwaeElbo",
    "IwaeElbo",
    "JmvaeElbo",
    "MixtureElbo",
    "MvaeElbo",
    "ReweightedElbo",
    "StandardElbo",
    "StlElbo",
    "SumOfElbos",
]


class SumOfElbos(Objective):
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
            whole, given = given, given & batch.mask  # (T, B, M)
            scored = given & ~_repeated(whole, given)[..., None]
            if batch.together is not None:
                for t in (t for t, name in enumerate(names) if name in self.model.modalities):
                    scored[t] &= ~batch.together[:, None]
            for name, conditions in self.model.conditions.items():
                for condition in conditions:  # p(x_m|z, x_l) is of examples that have both
                    scored[..., self.model.columns[name]] &= given[..., self.model.columns[condition]]
        q = self.model.fuse(self.model.experts(batch), given)
        z, share, kl = weighted_samples(q, self.model.prior())  # (J, T, B, D), (J, T, B), (T, B)
        if scored is not None:
            kl = torch.where(scored.any(dim=-1), kl, 0)
        value = -beta * kl.sum(dim=0)
        terms = {f"{name}/kl": kl[t] for t, name in enumerate(names)}
        for name, column in self.model.columns.items():
            part = subsets[:, column].view(len(subsets), -1)  # (T, 1), of a set (T, n)
            where = part.any(dim=1).nonzero().squeeze(1).tolist()  # the terms that score this modality
            if name not in self.model.decoder or not where:
                continue
            log_p = torch.zeros_like(kl[: len(where)])  # (T_m, B)
            if name in batch.modalities:
                z_m = torch.stack([z[:, t] for t in where])  # (T_m, J, B, D)
                of_terms = None
                if scored is not None or not part[where].all():
                    counts = (given if scored is None else scored).expand(len(z), -1, len(batch), -1)  # (J, T, B, M)
                    of_terms = torch.stack([counts[:, t, :, column] for t in where])
                share_m = torch.stack([share[:, t] for t in where])
                log_p = (share_m * self.log_prob(name, z_m, batch, of_terms)).sum(dim=1)
            value = value + self.weights[name] * log_p.sum(dim=0)
            terms |= {f"{names[t]}/{name}": log_p[i] for i, t in enumerate(where)}
        return Bound(value, self._complete(terms, names))

    def _subset_names(self, subsets: Tensor) -> list[str]:
        names, n_random = [], 0
        alone = zip(self.model.modalities, modality_subsets(self.model.columns), strict=True)
        known = {"joint": joint_subset(subsets.shape[1])[0]} | dict(alone)
        for subset in subsets:
            name = next((name for name, other in known.items() if torch.equal(subset, other)), None)
            n_random += name is None
            names.append(name or f"subset{n_random}")
        return names

    def _complete(self, terms: dict[str, Tensor], names: list[str]) -> dict[str, Tensor]:
        """All the names that random subsets could have brought, so that a run's metrics have the same at each step."""
        random = [name for name in names if name not in ("joint", *self.model.modalities)]
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
    set of elements, they are random subsets of these, and ELBO({m}) is that of the whole set.

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
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        share = q.mixture_distribution.probs.T  # (T, B)
        z = q.component_distribution.rsample().movedim(1, 0)  # (T, B, D)
        kl = (share * kl_divergence(q.component_distribution, self.model.prior()).T).sum(dim=0)
        value, terms = -beta * kl, {"mixture/kl": kl}
        for name in self.model.modalities:
            log_p = torch.zeros_like(kl)
            if name in batch.modalities:
                log_p = (share * self.log_prob(name, z, batch, self.there(name, batch, share > 0))).sum(dim=0)
            value = value + self.weights[name] * log_p
            terms[f"mixture/{name}"] = log_p
        return Bound(value, terms).of_something(batch.mask)


class ReweightedElbo(Objective):
    r"""The ELBO of a mixture of experts as MMVAE's code has it: each decoder sees its own encoder's sample alone.

    .. math:: \sum_r \pi_r \Big[ \sum_d E_{q_d(z|x_d)} \frac{q_r(z|x_r)}{q_d(z|x_d)} \lambda_d \log p(x_d|z)
              - \beta KL(q_r(z|x_r) || p(z)) \Big]

    In expectation MixtureElbo's, but the ratios of trained experts are nearly all zero (on MNIST-SVHN the median is
    e^-30) and no sample meets those that are not: documented, not of use. As in the code, q_d and z are held fixed in
    the ratio (`m_elbo` of github.com/iffsid/mmvae), which makes the gradient biased.
    """

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The estimate of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        share = component_shares(q)  # (M, B)
        one_each = len(share) == len(self.model.modalities) == n_columns(self.model.columns)
        require(one_each, "this ELBO is of mixtures of one expert a modality")
        experts = q.component_distribution  # (B, M)
        z = experts.rsample().movedim(1, 0)  # (M, B, D)
        log_q = experts.log_prob(z.detach().unsqueeze(2)).movedim(2, 0)  # (M, M, B): of q_r at q_d's sample
        there, own = share > 0, torch.eye(len(z), dtype=torch.bool, device=z.device).unsqueeze(2)
        log_ratio = (log_q - log_q.diagonal().T.detach()).masked_fill(~(there[:, None] & there), -torch.inf)
        ratio = torch.where(own, 1, log_ratio.exp())
        kl = (share * kl_divergence(experts, self.model.prior()).T).sum(dim=0)
        value, terms = -beta * kl, {"mixture/kl": kl}
        for d, name in enumerate(self.model.modalities):
            log_p = torch.zeros_like(kl)
            if name in batch.modalities:
                scored = None if batch.mask is None else batch.mask[None, :, d]
                log_p = (share * ratio[:, d]).sum(dim=0) * self.log_prob(name, z[d : d + 1], batch, scored)[0]
            value = value + self.weights[name] * log_p
            terms[f"mixture/{name}"] = log_p
        return Bound(value, terms).of_something(batch.mask)


class ArElbo(Objective):
    r"""The modalities one after the other in a random order, what came before as the prior of what comes.

    .. math:: \sum_i E_{q(z|x_{\le i})} \lambda_i \log p(x_i|z) - \beta KL(q(z|x_{\le i}) || q(z|x_{<i})),
              \qquad q(z|\emptyset) = p(z)

    The chain rule of log p(x_1, ..., x_M), each factor's ELBO with q(z|x_{<i}) in the place of the unknown p(z|x_{<i}):
    exact where the posteriors are, else no bound in either direction. (Open item of github.com/jgoffinet/poe-vae.)
    Each example has an order of its own, drawn anew at each call; what it lacks adds nothing.

    Raises:
        InputError: the posterior is a mixture, whose KLs have no closed form.
    """

    random_subsets = True

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        require(not isinstance(model.variational_posterior, MixturePosterior), "no closed form for KLs of mixtures")

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of each example, (B,), with the KLs weighted by beta; terms by modality, "ar/kl" all KLs."""
        batch = self.model.observe(inputs)
        x = next(iter(batch.modalities.values()))
        m = n_columns(self.model.columns)
        rank = torch.rand(len(batch), m, device=x.device).argsort(dim=1)  # (B, M)
        turn = torch.arange(m, device=x.device)[:, None, None]
        seen, now = rank <= turn, rank == turn  # (M, B, M)
        if batch.mask is not None:
            seen, now = seen & batch.mask, now & batch.mask
        fused = self.model.variational_strategy(self.model.experts(batch), seen)  # (M, B, D) each

        def q(*turns: int | None) -> Distribution:
            return self.model.variational_posterior(tuple(p[slice(*turns)] for p in fused))

        z = q(None).rsample()  # (M, B, D)
        kl = kl_divergence(q(1), self.model.prior())  # (1, B)
        if m > 1:
            kl = torch.cat([kl, kl_divergence(q(1, None), q(-1))])
        kl = kl.sum(dim=0)
        value, terms = -beta * kl, {"ar/kl": kl}
        for name, column in self.model.columns.items():
            log_p = torch.zeros_like(kl)
            if name in batch.modalities:
                log_p = self.log_prob(name, z, batch, now[..., column]).sum(dim=0)
            value = value + self.weights[name] * log_p
            terms[f"ar/{name}"] = log_p
        return Bound(value, terms)


class JmvaeElbo(Objective):
    r"""JMVAE-kl: the joint ELBO, and the unimodal posteriors drawn towards the joint one (Suzuki et al. 2016, eq. 5).

    .. math:: ELBO(x_1, .., x_M) - \alpha \sum_m KL(q(z|x_1, .., x_M) || q(z|x_m))

    arXiv 1611.01891. A lower bound on log p(x_1, ..., x_M). Learns from complete examples alone.

    Args:
        alpha: weight of the KLs between posteriors; beta does not weigh these.
        students: hold the joint posterior fixed in these KLs, so that the unimodal encoders are students of a joint one
            that takes no notice of them: it learns by its ELBO alone. Over the data they come to the moments of
            p(z|x_m), as far as q(z|x_1, .., x_M) is exact. (Open item of github.com/jgoffinet/poe-vae.)
    """

    def __init__(
        self,
        model: MultimodalVAE,
        alpha: float = 0.1,
        weights: Mapping[str, float] | None = None,
        students: bool = False,
    ) -> None:
        super().__init__(model, weights)
        self.alpha, self.students = alpha, students

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the prior's KL weighted by beta.

        Raises:
            InputError: an example lacks a modality.
        """
        batch = self.model.observe(inputs)
        require(batch.mask is None or bool(batch.mask.all()), "JMVAE's objective needs every modality of every example")
        subsets = modality_subsets(self.model.columns)
        subsets = on_device(subsets, next(iter(batch.modalities.values())).device)
        params = self.model.experts(batch)
        joint = self.model.fuse(params)
        alone = self.model.fuse(params, subsets[:, None])  # (M, B)
        z, kl = joint.rsample(), kl_divergence(joint, self.model.prior())  # (B, D), (B,)
        teacher = self.model.fuse(tuple(p.detach() for p in params)) if self.students else joint
        apart = kl_divergence(teacher, alone)  # (M, B)
        value = -beta * kl - self.alpha * apart.sum(dim=0)
        terms = {"joint/kl": kl} | {f"{name}/kl from joint": apart[m] for m, name in enumerate(self.model.modalities)}
        for name in self.model.modalities:
            (log_p,) = self.log_prob(name, z[None], batch)
            value = value + self.weights[name] * log_p
            terms[f"joint/{name}"] = log_p
        return Bound(value, terms)


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
