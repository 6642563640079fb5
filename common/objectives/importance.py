r"""Importance-weighted bounds and their gradients: IWAE, STL and DReG, for posteriors that are mixtures or not.

K samples of each of the T components of a mixture (T = 1 for other posteriors) have the importance weights

.. math:: w_{tk} = p(z_{tk}) \prod_m p(x_m|z_{tk}) / q(z_{tk}|X), \quad z_{tk} \sim q_t, \quad
          q(z|X) = \sum_t \pi_t q_t(z)

The objectives have the same `bound`, a function of the log w alone. With c_tk, its derivative with respect to log w_tk
(`coefficients`), its gradient is :math:`\sum_{tk} c_{tk} \nabla \log w_{tk}`. The objectives differ in the parameters
of q(z|X) that log w holds fixed, and DReG in what it makes of the gradient through z:

    IWAE                    none
    STL, DReG "published"   all of them
    DReG "stop-all"         all of them; the gradient through z_tk is multiplied by w_tk, normalised
    DReG "exact"            those of q_t, of which z_tk is a sample; see `DregIwaeElbo`
"""

import math
from collections.abc import Mapping
from typing import Literal

from common.data.batches import Batch
from common.distributions.base import LatentDistribution
from common.errors import require
from common.execution import weighted
from common.execution.rows import rows_where
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective, Scorer, bound_of, by_modality

import torch
from torch import Tensor

GRADIENTS = ("exact", "stop-all", "published")
# A latent's scale below which DReG's gradient is noisier than IWAE's: the slope of log q is 1 / scale there. MMVAE's
# scales sum to D, and a scale of 1e-6 in the first steps would drive an encoder away for good.
NARROW = 0.01


def bound(log_w: Tensor, pi: Tensor, looser: bool) -> Tensor:
    r"""The importance-weighted bound, (B,), nats.

    .. math:: \log \frac1K \sum_{t,k} \pi_t w_{tk}, \qquad \text{looser: } \sum_t \pi_t \log \frac1K \sum_k w_{tk}

    (Burda et al. 2016, arXiv 1509.00519, eq. 8, for T = 1; for mixtures Shi et al. 2019, arXiv 1911.03393, who train
    the looser one.)

    Args:
        log_w: (T, K, B).
        pi: the components' weights in the mixture, (T, B).
    """
    if looser:
        return (pi * log_w.logsumexp(dim=1)).sum(dim=0) - math.log(log_w.shape[1])
    return (log_w + _log(pi)[:, None]).flatten(0, 1).logsumexp(dim=0) - math.log(log_w.shape[1])


def _log(pi: Tensor) -> Tensor:
    """log pi, -inf with a gradient of 0 where pi is 0."""
    return torch.where(pi > 0, pi, 1).log().masked_fill(pi == 0, -torch.inf)


def normalised(log_w: Tensor, pi: Tensor, looser: bool) -> Tensor:
    """pi_t w_tk over the sum of all pi_t w_tk; looser: w_tk over the sum of its own component's: (T, K, B)."""
    if looser:
        return log_w.softmax(dim=1)
    return (log_w + _log(pi)[:, None]).flatten(0, 1).softmax(dim=0).view_as(log_w)


def coefficients(log_w: Tensor, pi: Tensor, looser: bool) -> Tensor:
    """The derivative of `bound` with respect to each log w, (T, K, B)."""
    w = normalised(log_w, pi, looser)
    return pi[:, None] * w if looser else w


class ImportanceWeighted(MultimodalObjective):
    """Base class of bounds by importance weights: log w and the coefficients.

    lambda_m weighs log p(x_m|z) in log w, beta weighs log p(z) - log q(z|X).
    """

    needs_closed_form_prior_kl = False
    looser = False

    def coefficients(self, log_w: Tensor, pi: Tensor) -> Tensor:
        """`coefficients` of this objective's bound."""
        return coefficients(log_w, pi, self.looser)

    def weights_of(
        self, batch: Batch, scorer: Scorer, z: Tensor, pi: Tensor, log_q: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log w of z (T, K, B, D), (T, K, B), and the terms, means over the components and their samples, (B,)."""
        log_prior = self.model.prior().log_prob(z)
        log_p = scorer(z.transpose(0, 1), rows_where(self.model, batch, pi[..., None] > 0))
        log_p = {name: x.transpose(0, 1) for name, x in log_p.items()}  # {name: (T, K, B)}
        log_w = self.weighted_sum(log_p) + beta * (log_prior - log_q)
        means = {name: (pi * x.mean(dim=1)).sum(dim=0) for name, x in ({"kl": log_q - log_prior} | log_p).items()}
        return log_w, by_modality("joint", means)


class IwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound with its own gradient (`bound` of this module).

    .. math:: \log \frac1K \sum_{t,k} \pi_t w_{tk}

    `looser` has the mean over the components outside the logarithm: lower, and what MMVAE trains. Both are lower bounds
    on log p(X), where X are the modalities that an example has. With a beta or a lambda other than 1 they bound nothing
    (except for K = 1 and a beta above 1, where a mixture needs `looser`).

    Args:
        K: samples of each component.
        looser: see above; no effect if T is 1.

    Raises:
        InputError: no samples, or a posterior without a density in closed form.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 1,
        looser: bool = False,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(model, weights)
        require(K > 0, f"an importance-weighted bound needs at least one sample, not {K}")
        has_density = self.model.variational_posterior.has_density
        require(
            has_density,
            "the bound needs a density in closed form: use EnergyIwaeElbo for energy-based posteriors, JnfElbo for JNF",
        )
        self.K, self.looser = K, looser

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the components and their samples."""
        return self.penalised(inputs, beta)[2]

    def penalised(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, float, Bound]:
        batch = self.model.observe(inputs)
        params, z, _ = self.sample(batch)
        surrogate, found = self.surrogate(batch, self.scorer(batch), params, z, beta)
        return surrogate, 0.0, found

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int, share: float = 1.0) -> Bound:
        if type(self).penalised is not IwaeElbo.penalised:  # parts of a batch have no penalty of the whole
            return super().backward(inputs, beta, n, share)
        return weighted.backward(self, self.model.observe(inputs), beta, n)

    def sample(self, batch: Batch) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The experts' parameters (M, B, D), K samples of each component, z (T, K, B, D), and pi (T, B)."""
        params = self.model.experts(batch)
        q = self.model.training_posterior(params, batch.mask)
        return params, q.sample_components(self.K), q.weights

    def surrogate(
        self, batch: Batch, scorer: Scorer, params: tuple[Tensor, ...], z: Tensor, beta: float
    ) -> tuple[Tensor, Bound]:
        """The bound at the samples of `sample`, (B,), with the gradient to train with; and the bound with its terms."""
        q, log_w, terms = self.log_weights(batch, scorer, params, z, beta)
        found = bound_of(bound(log_w, q.weights, self.looser), terms, batch.mask)
        return found.value, found

    def log_weights(
        self, batch: Batch, scorer: Scorer, params: tuple[Tensor, ...], z: Tensor, beta: float
    ) -> tuple[LatentDistribution, Tensor, dict[str, Tensor]]:
        """q(z|X), and log w with the terms, see `weights_of`."""
        q = self.model.training_posterior(params, batch.mask)
        return q, *self.weights_of(batch, scorer, z, q.weights, self.log_q(q, z), beta)

    def log_q(self, q: LatentDistribution, z: Tensor) -> Tensor:
        """log q(z|X) as log w has it, (T, K, B): here all of its parameters have gradients."""
        return q.component_log_probs(z).logsumexp(dim=-1) + q.private_log_prob(z, self.model.prior)


class StlElbo(IwaeElbo):
    """IwaeElbo whose gradient leaves out the score of q's parameters ("sticking the landing", Roeder et al. 2017).

    arXiv 1703.09194. For K = 1 the gradient is unbiased, for a mixture only with `looser`. For K > 1 it is biased;
    that of DregIwaeElbo is not.
    """

    learns_weights = False

    def log_q(self, q: LatentDistribution, z: Tensor) -> Tensor:
        """log q(z|X) with q's parameters held fixed: its gradient goes through z alone."""
        return super().log_q(q.detached(), z)


class DregIwaeElbo(IwaeElbo):
    r"""IwaeElbo with a doubly reparameterised gradient of lower variance (Tucker et al. 2019, arXiv 1810.04152).

    The bound is IwaeElbo's. Let z ~ q_t, c its coefficient, w its normalised weight, :math:`r = \pi_t q_t(z) / q(z|X)`.
    With the rule "exact" the decoders and the prior get IWAE's gradient, and at fixed z the components other than q_t
    get :math:`-\beta c \nabla_{\phi_j} \log q(z|X)`, as in IWAE's. Through z, q_t gets

    .. math:: c (1 - \beta r (1 - w)) \nabla_z \log w - \beta c \nabla_z r

    in place of its score: Tucker's identity for the score times c r. Derivatives by z hold all parameters fixed. It is
    unbiased for mixtures too. Latents with a scale below `NARROW` get IWAE's gradient, which is unbiased as well. For
    private latents, r is 1 for those of the component itself and 0 for those of other modalities.

    The other rules hold all parameters of log q(z|X) fixed, and treat narrow latents like all others. "stop-all" gives
    q_t :math:`c w \nabla_z \log w`, the papers' rule for one encoder: unbiased for T = 1 and beta = 1, biased for
    mixtures. "published" gives it :math:`c \nabla_z \log w`, which MMVAE's code computes: `StlElbo`'s gradient.
    """

    learns_weights = False

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 1,
        looser: bool = False,
        weights: Mapping[str, float] | None = None,
        gradient: Literal["exact", "stop-all", "published"] = "exact",
    ) -> None:
        super().__init__(model, K, looser, weights)
        require(gradient in GRADIENTS, f"DReG's gradient must be one of {', '.join(GRADIENTS)} (got {gradient!r})")
        self.gradient = gradient

    def surrogate(
        self, batch: Batch, scorer: Scorer, params: tuple[Tensor, ...], z: Tensor, beta: float
    ) -> tuple[Tensor, Bound]:
        through_z = z.view_as(z)  # the hook below multiplies the gradient that arrives here
        q, log_w, terms = self.log_weights(batch, scorer, params, through_z, beta)
        pi, found = q.weights, bound_of(bound(log_w, q.weights, self.looser), terms, batch.mask)
        value, w = found.value, normalised(log_w.detach(), pi, self.looser)
        factor = 1
        if self.gradient == "exact":
            narrow = _by_component(q.scales < NARROW)
            r = _own_responsibility(q, torch.where(narrow, z.detach(), z))  # (T, K, B)
            factor = 1 - beta * q.responsibility_per_latent(r.detach()) * (1 - w[..., None])
            factor = torch.where(narrow, 1, factor)
            addend = -beta * (self.coefficients(log_w.detach(), pi) * r).sum(dim=(0, 1))  # of z: past the hook
            value = value + bound_of(addend - addend.detach(), {}, batch.mask).value
        elif self.gradient == "stop-all":
            factor = 1 - q.responsibility_per_latent(torch.ones_like(w)) * (1 - w[..., None])
        if through_z.requires_grad:  # not if only decoders learn
            through_z.register_hook(lambda gradient: gradient * factor)
        return value, found.detach()

    def log_q(self, q: LatentDistribution, z: Tensor) -> Tensor:
        """log q(z|X), with the parameters held fixed that the rule names."""
        exact = self.gradient == "exact"
        stopped = q.detached(except_for=q.scales < NARROW if exact else None)
        log_qs = stopped.component_log_probs(z)  # log pi_j q_j(z), (T, K, B, T)
        if exact:
            own = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None, None]
            log_qs = torch.where(own, log_qs, q.component_log_probs(z))
        return log_qs.logsumexp(dim=-1) + stopped.private_log_prob(z, self.model.prior)


def _own_responsibility(q: LatentDistribution, z: Tensor) -> Tensor:
    """r = pi_t q_t(z) / q(z|X) of the component t that z (T, K, B, D) is drawn from, (T, K, B), at fixed parameters."""
    log_qs = q.detached().component_log_probs(z)  # log pi_j q_j(z), (T, K, B, T)
    return (log_qs.diagonal(dim1=0, dim2=-1).movedim(-1, 0) - log_qs.logsumexp(dim=-1)).exp()


def _by_component(x: Tensor) -> Tensor:
    """Values by latent, (B, D) or for a mixture (B, T, D), beside samples z (T, K, B, D): (T, 1, B, D)."""
    return (x if x.dim() == 3 else x.unsqueeze(1)).movedim(1, 0).unsqueeze(1)
