"""Objectives with KLs between the joint posterior and those of single modalities: JMVAE, JNF, MVTCAE, CRMVAE."""

from collections.abc import Mapping
from typing import NamedTuple

from common.data.batches import Batch
from common.errors import require
from common.execution.rows import rows_where
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective, bound_of
from common.subsets import MAX_ENUMERATED, joint_subset, on_device, single_modalities

import torch
from torch import Tensor, nn


class Coefficients(NamedTuple):
    """What weighs the four parts of `JointAndSingles`."""

    joint: float
    singles: float
    prior: float
    distance: float


class JointAndSingles(MultimodalObjective):
    r"""Log-likelihoods under the joint posterior and that of each modality, and the KLs between these posteriors.

    .. math:: \sum_m \lambda_m \Big[ c_{joint} E_{q(z|X)} \log p(x_m|z) + c_{singles} E_{q(z|x_m)} \log p(x_m|z) \Big]
              - c_{prior} KL(q(z|X) || p(z)) - c_{distance} \sum_m KL(q(z|X) || q(z|x_m))

    A subclass gives the coefficients, by `coefficients(beta)`. An absent modality's terms are 0. Each element of a set
    counts as a modality.

    Raises:
        InputError: KLs have no closed form, or a set has more than `MAX_ENUMERATED` elements.
    """

    of_mixtures = False
    students = False  # hold the joint posterior fixed in the KLs between posteriors

    def __init__(self, model: MultimodalVAE | nn.ModuleDict, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        has_kl, of = self.model.variational_posterior.has_kl, type(self).__name__
        lacking = "KLs in closed form, which ebm and jnf posteriors do not have: take StandardElbo or JnfElbo"
        require(has_kl, f"{of} needs {lacking}")
        sizes = {name: columns.n_elements or 1 for name, columns in self.model.columns.items()}
        large = {name: n for name, n in sizes.items() if n > MAX_ENUMERATED}
        most = f"has terms for each element of a set, and takes at most {MAX_ENUMERATED} elements"
        require(not large, f"{of} {most}, not {large}: take StandardElbo or MvaeElbo")

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The objective of each example, (B,)."""
        batch, c = self.model.observe(inputs), self.coefficients(beta)
        columns = self.model.columns
        singles = single_modalities(columns)
        subsets = torch.stack([joint_subset(self.model.n_columns)[0], *singles.values()])  # (1 + S, M)
        given = on_device(subsets, self.model.device)[:, None]  # (1 + S, 1, M)
        given = given if batch.mask is None else given & batch.mask
        params = self.model.experts(batch)
        joint, single = self.model.fuse(params, batch.mask), self.model.fuse(params, given[1:])  # (B,), (S, B)
        kl = joint.kl(self.model.prior())
        distance = (joint.detached() if self.students else joint).kl(single)  # (S, B)
        if batch.mask is not None:
            distance = torch.where(given[1:].any(dim=-1), distance, 0)
        z = joint.rsample((1,))
        if c.singles:
            z = torch.cat([z, single.rsample()])  # (1 + S, B, D)
        rows = rows_where(self.model, batch, torch.ones_like(z[:, :1, :1], dtype=torch.bool), subsets[: len(z)])
        log_p = self.score(self.model, batch, z[None], rows)  # {name: (1, 1 + S, B)}
        value = -c.prior * kl - c.distance * distance.sum(dim=0)
        terms = {"joint/kl": kl} | {f"{name}/kl from joint": distance[s] for s, name in enumerate(singles)}
        for name, (by_subset,) in log_p.items():
            value = value + self.weights[name] * (c.joint * by_subset[0] + c.singles * by_subset[1:].sum(dim=0))
            holds = subsets[:, columns[name].slice].any(dim=1).tolist()
            terms |= {f"{('joint', *singles)[t]}/{name}": x for t, x in enumerate(by_subset) if holds[t]}
        return bound_of(value, terms, batch.mask)


class JmvaeElbo(JointAndSingles):
    r"""JMVAE-kl: the joint ELBO, and KLs that pull unimodal posteriors to the joint one (Suzuki et al. 2016, eq. 5).

    .. math:: ELBO(x_1, .., x_M) - \alpha \sum_m KL(q(z|x_1, .., x_M) || q(z|x_m))

    arXiv 1611.01891. A lower bound on log p(x_1, ..., x_M). It learns from complete examples only.

    Args:
        alpha: weight of the KLs between posteriors; beta does not weigh them.
        students: hold the joint posterior fixed in these KLs. The joint encoder then learns by its ELBO alone. The
            unimodal encoders learn from it, and reach the moments of p(z|x_m) over the data if q(z|x_1, .., x_M) is
            exact. (Open item of github.com/jgoffinet/poe-vae.)
    """

    def __init__(
        self,
        model: MultimodalVAE,
        alpha: float = 0.1,
        weights: Mapping[str, float] | None = None,
        students: bool = False,
    ) -> None:
        require(alpha >= 0, f"alpha (--alpha) must not be negative, it is {alpha}")
        super().__init__(model, weights)
        self.alpha, self.students = alpha, students

    def coefficients(self, beta: float) -> Coefficients:
        return Coefficients(joint=1, singles=0, prior=beta, distance=self.alpha)

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the prior's KL weighted by beta.

        Raises:
            InputError: an example lacks a modality.
        """
        return super().bound(self.observe_complete(inputs), beta)


class JnfElbo(MultimodalObjective):
    r"""JNF: the joint ELBO, and a flow of each modality fitted to samples of the joint posterior, which stays as it is.

    .. math:: ELBO(x_1, .., x_M) - \sum_m E_{q(z|X)} \Big[ \log q(z|X) - \log q_m(z|x_m) \Big], \quad
              \text{the second with q(z|X) and its z held fixed}

    (Senellart et al. 2023, arXiv 2305.11832; q_m: `common.distributions.JointFlows`.) A lower bound on log p(X), less
    estimates of the KLs between posteriors. The authors train in two stages, the ELBO first, then the log q_m with the
    joint encoder and the decoders frozen. Here both run at once, with the same optimum: the second part gives the first
    part's parameters no gradient, and log q(z|X), which the authors leave out, is a constant. It learns from complete
    examples only.

    Raises:
        InputError: the posterior has no flows.
    """

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        has_flows = self.model.variational_posterior.has_flows
        require(has_flows, 'JnfElbo needs a flow for each modality: VAE("jnf", ...) builds such a model')

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the prior's KL weighted by beta, from one sample z.

        Raises:
            InputError: an example lacks a modality.
        """
        batch = self.observe_complete(inputs)
        q = self.model.fuse(self.model.experts(batch))
        z = q.joint.rsample()  # (B, D)
        kl = q.joint.kl(self.model.prior())
        distance = q.joint.log_prob(z).detach().unsqueeze(-1) - q.experts.log_prob(z.detach().unsqueeze(-2))  # (B, M)
        rows = rows_where(self.model, batch, z.new_ones(1, 1, 1, dtype=torch.bool))
        log_p = self.score(self.model, batch, z[None, None], rows)  # {name: (1, 1, B)}
        log_p = {name: x[0, 0] for name, x in log_p.items()}
        elbo = self.elbo("joint", log_p, kl, beta, mask=None)
        distances = {f"{name}/kl from joint": distance[:, m] for m, name in enumerate(self.model.modalities)}
        return Bound(elbo.value - distance.sum(dim=-1), elbo.terms | distances)


class MvtcaeElbo(JointAndSingles):
    r"""MVTCAE: total correlation, with the conditional information bottlenecks of the views (Hwang et al. 2021).

    .. math:: \frac{M - \alpha}{M} E_{q(z|X)} \sum_m \lambda_m \log p(x_m|z)
              - \beta \Big[ (1 - \alpha) KL(q(z|X) || p(z)) + \frac\alpha M \sum_m KL(q(z|X) || q(z|x_m)) \Big]

    NeurIPS 2021, "Multi-View Representation Learning via Total Correlation Objective"; q(z|x_S) is the product of the
    experts without the prior. With alpha = 0 it is the joint ELBO; otherwise it bounds no log p(X). M counts all
    modalities, absent ones too, and the elements of sets.

    Args:
        alpha: weight of the conditional terms, in [0, 1] (authors' code for PolyMNIST: 5/6).

    Raises:
        InputError: alpha is outside [0, 1].
    """

    def __init__(self, model: MultimodalVAE, alpha: float = 5 / 6, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        require(0 <= alpha <= 1, f"alpha (--alpha) must lie between 0 and 1, it is {alpha}")
        self.alpha = alpha

    def coefficients(self, beta: float) -> Coefficients:
        m = self.model.n_columns
        return Coefficients(
            joint=(m - self.alpha) / m, singles=0, prior=beta * (1 - self.alpha), distance=beta * self.alpha / m
        )


class CrmvaeElbo(JointAndSingles):
    r"""CRMVAE: reconstructions from the joint posterior and from each modality's own, and KLs of equal weights.

    .. math:: \frac1{2 (M + 1)} \sum_m \lambda_m \Big[ E_{q(z|X)} \log p(x_m|z) + E_{q(z|x_m)} \log p(x_m|z) \Big]
              - \frac\beta{M + 1} \Big[ KL(q(z|X) || p(z)) + \sum_m KL(q(z|X) || q(z|x_m)) \Big]

    (OpenReview Rn8u4MYgeNJ, with the factor 1/2 of the code in the `multivae` package.) Its weights make it no bound on
    log p(X). M counts all modalities, absent ones too, and the elements of sets.
    """

    def coefficients(self, beta: float) -> Coefficients:
        m = self.model.n_columns
        reconstruction, kl = 1 / (2 * (m + 1)), beta / (m + 1)
        return Coefficients(joint=reconstruction, singles=reconstruction, prior=kl, distance=kl)
