"""IWAE's bound with the doubly reparameterised gradient."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.data.batches import Batch
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound
from common.objectives.importance import IwaeElbo, Known
from common.objectives.importance_weights import normalised

GRADIENTS = ("exact", "stop-all", "published")
NARROW = 0.01  # scale below which DReG's gradient, with noise of about w^2 / scale, is noisier than IWAE's


class DregIwaeElbo(IwaeElbo):
    r"""IwaeElbo with a doubly reparameterised gradient of lower variance (Tucker et al. 2019, arXiv 1810.04152).

    The bound is IwaeElbo's; the loss is a surrogate with this gradient. Let z ~ q_t, let w be its importance weight,
    normalised over the samples of one estimate, and r = pi_t q_t(z) / q(z|X). The "exact" gradient is unbiased for
    mixtures too (after Bauer & Mnih 2021, arXiv 2101.11046). Decoders and prior get :math:`w \nabla \log p(X, z)`. At
    fixed z the components other than q_t get :math:`-\beta w \nabla_{\phi_j} \log q(z|X)`. Through z, q_t gets

    .. math:: w (1 - \beta r (1 - w)) \nabla_z \log w - \beta w \nabla_z r

    Derivatives with respect to z hold all parameters fixed. Latents with a scale below `NARROW` get IWAE's gradient,
    which is unbiased too: the slope of log q is 1 / scale there. MMVAE's scales sum to D, and a scale of 1e-6 in the
    first steps would drive an encoder away for good. The other two rules stop the gradient of log q(z|X) with respect
    to its parameters and treat narrow latents like all others: "stop-all" (the papers' rule for one encoder, biased for
    mixtures) weights the gradient through z by w^2, "published" (MMVAE's code, always biased) by w.
    """

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

    def _surrogate(
        self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, known: Known, beta: float
    ) -> tuple[Tensor, Bound]:
        q = self.model.training_posterior(params, batch.mask)
        share = self.model.variational_posterior.component_weights(q)  # (T, B)
        exact = self.gradient == "exact"
        narrow = self.model.variational_posterior.scales(q) < NARROW if exact else None  # (B, D), (B, T, D)
        scaled_z = z.view_as(z)  # its gradient is scaled below
        log_w, terms = self._log_weights(batch, scaled_z, share, self._log_q(q, scaled_z, narrow), beta, known)
        with torch.no_grad():
            bound = Bound(self._estimate(log_w, share), terms).zero_without_modalities(batch.mask).detach()
            w = normalised(log_w, share, self.looser)
            outer = w * share[:, None] if self.looser else w
        surrogate = (outer * log_w).sum(dim=(0, 1))
        by_latent = self.model.variational_posterior.by_latent
        scale = torch.ones_like(z[..., :1])
        if exact:
            narrow = _by_component(narrow)
            r = self._own_responsibility(q, torch.where(narrow, z.detach(), z))  # (T, K, B)
            surrogate = surrogate - beta * (outer * r).sum(dim=(0, 1))
            scale = torch.where(narrow, 1, 1 - beta * by_latent(r.detach()) * (1 - w[..., None]))
        elif self.gradient == "stop-all":
            scale = 1 - by_latent(torch.ones_like(w)) * (1 - w[..., None])
        if z.requires_grad:
            scaled_z.register_hook(lambda gradient: gradient * scale)
        return Bound(surrogate, {}).zero_without_modalities(batch.mask).value, bound

    def _log_q(self, q: Distribution, z: Tensor, narrow: Tensor | None) -> Tensor:
        """log q(z|X), (T, K, B), without gradient with respect to the parameters of the component that z is drawn from.

        Args:
            narrow: latents whose gradient is kept, (B, D) or (B, T, D).
        """
        family = self.model.variational_posterior
        stopped = family.detached(q, except_for=narrow)
        log_qs = family.component_log_probs(stopped, z)  # (T, K, B, T)
        if self.gradient == "exact":
            same = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None, None]
            log_qs = torch.where(same, log_qs, family.component_log_probs(q, z))
        return log_qs.logsumexp(dim=-1) + family.private_log_prob(stopped, z, self.model.prior)

    def _own_responsibility(self, q: Distribution, z: Tensor) -> Tensor:
        """r = pi_t q_t(z) / q(z|X) of the component t that z (T, K, B, D) is drawn from: (T, K, B)."""
        family = self.model.variational_posterior
        log_qs = family.component_log_probs(family.detached(q), z)  # (T, K, B, T)
        return (log_qs.diagonal(dim1=0, dim2=-1).movedim(-1, 0) - log_qs.logsumexp(dim=-1)).exp()


def _by_component(x: Tensor) -> Tensor:
    """Values by latent, (B, D) or for a mixture (B, T, D), in the order of samples, (T, 1, B, D)."""
    return (x if x.dim() == 3 else x.unsqueeze(1)).movedim(1, 0).unsqueeze(1)
