"""All of the papers' bounds: those of mixtures, of encoders of one's own and of orders here, the others by name.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling it gives the scalar loss. With
all weights and beta at 1 the bound's value is in nats and bounds what the class says.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from common.bounds import Bound, MultimodalObjective
from common.data import Batch, n_columns
from common.elbos import MvaeElbo, StandardElbo, SumOfElbos
from common.errors import require
from common.importance import DregElbo, EnergyIwaeElbo, IwaeElbo, StlElbo
from common.multimodal_vae import MultimodalVAE
from common.subsets import alone, on_device
from common.variational_posteriors import LocScaleEbmPosterior, MixturePosterior, component_shares
from common.variational_strategies import SetStrategy

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


class MixtureElbo(MultimodalObjective):
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
        scored = {name: self.scored(name, batch, share > 0) for name in batch.modalities}
        found = self.log_probs(dict.fromkeys(scored, z), batch, scored)
        for name in self.model.modalities:
            log_p = (share * found[name]).sum(dim=0) if name in found else torch.zeros_like(kl)
            value = value + self.weights[name] * log_p
            terms[f"mixture/{name}"] = log_p
        return Bound(value, terms).of_something(batch.mask)


class ReweightedElbo(MultimodalObjective):
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
        own_z = {name: z[d : d + 1] for d, name in enumerate(self.model.modalities) if name in batch.modalities}
        scored = {n: None if batch.mask is None else batch.mask[None, :, self.model.columns[n]] for n in own_z}
        found = self.log_probs(own_z, batch, scored)
        for d, name in enumerate(self.model.modalities):
            log_p = (share * ratio[:, d]).sum(dim=0) * found[name][0] if name in found else torch.zeros_like(kl)
            value = value + self.weights[name] * log_p
            terms[f"mixture/{name}"] = log_p
        return Bound(value, terms).of_something(batch.mask)


class ArElbo(MultimodalObjective):
    r"""The modalities one after the other in a random order, what came before as the prior of what comes.

    .. math:: \sum_i E_{q(z|x_{\le i})} \lambda_i \log p(x_i|z) - \beta KL(q(z|x_{\le i}) || q(z|x_{<i})),
              \qquad q(z|\emptyset) = p(z)

    The chain rule of log p(x_1, ..., x_M), each factor's ELBO with q(z|x_{<i}) in the place of the unknown p(z|x_{<i}):
    exact where the posteriors are, else no bound in either direction. (Open item of github.com/jgoffinet/poe-vae.)
    Each example has an order of its own, drawn anew at each call; what it lacks adds nothing.

    Raises:
        InputError: the posterior is a mixture or energy-based, so that its KLs have no closed form, or that of nothing
            is not the prior.
    """

    random_subsets = True

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        unknown = isinstance(model.variational_posterior, MixturePosterior | LocScaleEbmPosterior)
        require(not unknown, "the KLs of mixtures and of energy-based posteriors have no closed form")
        of_nothing = not isinstance(model.variational_strategy, SetStrategy)
        require(of_nothing, "a set encoder's posterior of nothing is not the prior, which the chain rule starts from")

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
        scored = {name: now[..., self.model.columns[name]] for name in batch.modalities}
        found = self.log_probs(dict.fromkeys(scored, z), batch, scored)
        for name in self.model.modalities:
            log_p = found[name].sum(dim=0) if name in found else torch.zeros_like(kl)
            value = value + self.weights[name] * log_p
            terms[f"ar/{name}"] = log_p
        return Bound(value, terms)


class JmvaeElbo(MultimodalObjective):
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
        subsets = torch.stack(list(alone(self.model.columns).values()))
        subsets = on_device(subsets, next(iter(batch.modalities.values())).device)
        params = self.model.experts(batch)
        joint = self.model.fuse(params)
        unimodal = self.model.fuse(params, subsets[:, None])  # (M, B)
        z, kl = joint.rsample(), kl_divergence(joint, self.model.prior())  # (B, D), (B,)
        teacher = self.model.fuse(tuple(p.detach() for p in params)) if self.students else joint
        apart = kl_divergence(teacher, unimodal)  # (M, B)
        value = -beta * kl - self.alpha * apart.sum(dim=0)
        terms = {"joint/kl": kl} | {f"{name}/kl from joint": apart[m] for m, name in enumerate(self.model.modalities)}
        of_all = dict.fromkeys(self.model.modalities, z[None])
        for name, (log_p,) in self.log_probs(of_all, batch, dict.fromkeys(of_all)).items():
            value = value + self.weights[name] * log_p
            terms[f"joint/{name}"] = log_p
        return Bound(value, terms)
