r"""Importance-weighted bounds: IWAE, STL and DReG, of posteriors that are mixtures or not."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from common.bounds import Bound, MultimodalObjective
from common.data import Batch
from common.encoders_decoders import has_batch_norm
from common.energy import chosen
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.variational_posteriors import (
    LocScaleEbmPosterior,
    component_log_probs,
    component_scales,
    component_shares,
    partly_detached,
    sample_components,
)

GRADIENTS = ("exact", "stop-all", "published")
NARROW = 0.01  # a scale, below which the noise of DReG's gradient, about w^2 / scale, outgrows that of IWAE's
Part = tuple[Batch, tuple[Tensor, ...], Tensor]  # examples, their experts' parameters (M, B, D), z (T, K, B, D)


class ImportanceWeighted(MultimodalObjective):
    """What bounds by importance weights share: the weights, and their decoding where memory is short."""

    def _log_weights(
        self, batch: Batch, z: Tensor, share: Tensor, log_q: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log w of z (T, K, B, D), (T, K, B), and the terms."""
        log_prior = self.model.prior().log_prob(z)
        log_w = beta * (log_prior - log_q)

        def mean(x: Tensor) -> Tensor:
            return (share * x.mean(dim=1)).sum(dim=0)

        terms = {"joint/kl": mean(log_q - log_prior)}
        found = self._log_ps(z, batch, (share > 0)[:, None].expand_as(log_w))
        for name in self.model.modelled:
            log_p = found.get(name, torch.zeros_like(log_w))
            log_w = log_w + self.weights[name] * log_p
            terms[f"joint/{name}"] = mean(log_p)
        return log_w, terms

    def _log_ps(self, z: Tensor, batch: Batch, where: Tensor) -> dict[str, Tensor]:
        """log p(x_m|z) where it counts, (T, K, B), of each modality that is there.

        Where memory is short, a few of K at a time, decoded again in the backward pass.
        """
        t, k, b, _ = z.shape
        n = max(1, self.model.decoded_at_once // (t * b))
        found = {}
        for names in self.model.alike(tuple(batch.modalities)):
            names = [name for name in names if name in batch.modalities]
            recomputed = self.model.decoded_at_most is not None and not self.model.has_batch_norm(names[0])
            whole = n >= k or (torch.is_grad_enabled() and not recomputed)
            size, parts = k if whole else n, []
            for some, counts in zip(z.split(size, dim=1), where.split(size, dim=1), strict=True):
                wanted = dict.fromkeys(names, some), batch, {name: self.scored(name, batch, counts) for name in names}
                if whole or not torch.is_grad_enabled():
                    parts.append(self.log_probs(*wanted))
                else:
                    parts.append(checkpoint(self.log_probs, *wanted, use_reentrant=False))
            found |= {name: torch.cat([part[name] for part in parts], dim=1) for name in names}
        return found


class IwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound, with K samples of each of the posterior's T components (1 if it is no mixture).

    .. math:: \log \frac1K \sum_{t,k} \pi_t w_{tk}, \qquad
              w_{tk} = p(z_{tk}) \prod_m p(x_m|z_{tk}) / q(z_{tk}|X), \quad z_{tk} \sim q_t

    (Burda et al. 2016, arXiv 1509.00519; for mixtures Shi et al. 2019, arXiv 1911.03393, eq. 3.) `looser` has the mean
    over the components outside, :math:`\sum_t \pi_t \log \frac1K \sum_k w_{tk}`: lower, and what MMVAE trains. Both are
    lower bounds on log p(X), X what an example has. lambda weighs log p(x_m|z), beta log p(z) - log q(z|X).

    Args:
        K: samples of each component.
        looser: see above; without effect where T is 1.
    """

    def __init__(
        self, model: MultimodalVAE, K: int = 1, looser: bool = False, weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(model, weights)
        require(K > 0, f"an importance-weighted bound needs at least one sample, not {K}")
        known = not isinstance(model.variational_posterior, LocScaleEbmPosterior)
        require(known, "an energy-based posterior has no density in closed form: its bound is EnergyIwaeElbo")
        self.K = K
        self.looser = looser

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the components and their samples."""
        return _joined([self._bound(*part, beta) for part in self._parts(*self._sample(inputs))])

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        parts = [self._surrogate(*part, beta) for part in self._parts(*self._sample(inputs))]
        return -torch.cat([surrogate for surrogate, _ in parts]).mean(), _joined([bound for _, bound in parts])

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """One backward pass for each part, so that no more than a part's activations are held at a time."""
        batch, params, z = self._sample(inputs)
        whole = (*params, z)
        leaves = [x.detach().requires_grad_() for x in whole]
        bounds = []
        for part in self._parts(batch, tuple(leaves[:-1]), leaves[-1]):
            surrogate, bound = self._surrogate(*part, beta)
            (-surrogate.sum() / n).backward()
            bounds.append(bound.detach())
        reached = [(x, leaf.grad) for x, leaf in zip(whole, leaves, strict=True) if leaf.grad is not None]
        reached = [(x, gradient) for x, gradient in reached if x.requires_grad]
        if reached:  # not of frozen encoders
            torch.autograd.backward(*zip(*reached, strict=True))
        return _joined(bounds)

    def _sample(self, inputs: Mapping[str, Tensor] | Batch) -> Part:
        batch = self.model.observe(inputs)
        params = self.model.experts(batch)
        return batch, params, sample_components(self.model.fuse(params, batch.mask), self.K)

    def _parts(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor) -> Iterator[Part]:
        """Some examples at a time, all of their samples; in training with batch norm, whose statistics see all, one."""
        t, k, b, _ = z.shape
        whole = self.training and has_batch_norm(self.model.decoder)
        n = b if whole else max(1, self.model.decoded_at_once // (t * k))
        for start in range(0, b, n):
            rows = slice(start, start + n)
            yield batch[rows], tuple(p[:, rows] for p in params), z[:, :, rows]

    def _surrogate(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> tuple[Tensor, Bound]:
        """What is differentiated, (B,), and the bound."""
        bound = self._bound(batch, params, z, beta)
        return bound.value, bound

    def _bound(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> Bound:
        q = self._density(params, batch.mask)
        share = component_shares(q)  # (T, B)
        log_w, terms = self._log_weights(batch, z, share, component_log_probs(q, z).logsumexp(dim=-1), beta)
        return Bound(self._estimate(log_w, share), terms).of_something(batch.mask)

    def _density(self, params: tuple[Tensor, ...], mask: Tensor | None) -> Distribution:
        """What log q(z|X) is taken of."""
        return self.model.fuse(params, mask)

    def _estimate(self, log_w: Tensor, share: Tensor) -> Tensor:
        """The bound, (B,), of log w (T, K, B)."""
        if self.looser:
            return (share * log_w.logsumexp(dim=1)).sum(dim=0) - math.log(self.K)
        return (log_w + share.log()[:, None]).flatten(0, 1).logsumexp(dim=0) - math.log(self.K)


class StlElbo(IwaeElbo):
    """IwaeElbo whose gradient leaves out the score of q's parameters ("sticking the landing", Roeder et al. 2017).

    arXiv 1703.09194. Unbiased for K = 1, of a mixture in its looser form; biased for K > 1, where DregElbo is not.
    """

    def _density(self, params: tuple[Tensor, ...], mask: Tensor | None) -> Distribution:
        return self.model.fuse(tuple(p.detach() for p in params), mask)


class DregElbo(IwaeElbo):
    r"""IwaeElbo with a doubly reparameterised gradient of lower variance (Tucker et al. 2019, arXiv 1810.04152).

    Its bound is IwaeElbo's, its loss a surrogate that has the gradient. For z ~ q_t, with w normalised over the
    estimator's own set and r = pi_t q_t(z) / q(z|X), the "exact" one, unbiased for mixtures too (after Bauer & Mnih
    2021, arXiv 2101.11046), gives decoders and prior :math:`w \nabla \log p(X, z)`, the other components
    :math:`-\beta w \nabla_{\phi_j} \log q(z|X)` at fixed z, and z, and so its own component,

    .. math:: w (1 - \beta r (1 - w)) \nabla_z \log w - \beta w \nabla_z r

    where derivatives by z hold all parameters fixed. A latent whose scale is below `NARROW` has IWAE's own gradient,
    unbiased too: the slope of log q is 1 / scale there, and since MMVAE's scales sum to D, first steps meet scales of
    1e-6 whose noise drives an encoder away for good. "stop-all" (the papers' rule of one encoder, w^2 for z, biased for
    mixtures) and "published" (what MMVAE's code does, w for z, biased in any case) leave log q(z|X)'s parameters out,
    and know nothing of narrow latents.
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
        require(gradient in GRADIENTS, f"DReG's gradient is {', '.join(GRADIENTS)}, not {gradient!r}")
        self.gradient = gradient

    def _surrogate(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> tuple[Tensor, Bound]:
        q = self.model.fuse(params, batch.mask)
        share = component_shares(q)  # (T, B)
        weighed_z = z.view_as(z)  # its gradient will be scaled
        narrow = component_scales(q) < (NARROW if self.gradient == "exact" else 0)
        log_qs = component_log_probs(partly_detached(q, narrow), weighed_z)  # (T, K, B, T)
        if self.gradient == "exact":
            own = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None, None]
            log_qs = torch.where(own, log_qs, component_log_probs(q, weighed_z))
        log_w, terms = self._log_weights(batch, weighed_z, share, log_qs.logsumexp(dim=-1), beta)
        with torch.no_grad():
            bound = Bound(self._estimate(log_w, share), terms).of_something(batch.mask).detach()
            w = log_w.softmax(dim=1)
            if not self.looser:
                w = (log_w + share.log()[:, None]).flatten(0, 1).softmax(dim=0).view_as(log_w)
            outer = w * share[:, None] if self.looser else w
        surrogate = (outer * log_w).sum(dim=(0, 1))
        scale = w[..., None] if self.gradient == "stop-all" else 1
        if self.gradient == "exact":
            fixed, narrow = partly_detached(q, torch.zeros_like(narrow)), _by_component(narrow)  # (T, 1, B, D)
            log_qs = component_log_probs(fixed, torch.where(narrow, z.detach(), z))
            r = (log_qs.diagonal(dim1=0, dim2=-1).movedim(-1, 0) - log_qs.logsumexp(dim=-1)).exp()  # (T, K, B)
            surrogate = surrogate - beta * (outer * r).sum(dim=(0, 1))
            scale = torch.where(narrow, 1, (1 - beta * r.detach() * (1 - w))[..., None])
        if z.requires_grad:
            weighed_z.register_hook(lambda gradient: gradient * scale)
        return Bound(surrogate, {}).of_something(batch.mask).value, bound


class EnergyIwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound of an energy-based posterior, with K samples, each chosen from a pool of its own.

    .. math:: \log \frac1K \sum_k \frac{p(z_k) \prod_m p(x_m|z_k)}{\tilde q(z_k) / \hat Z_k}, \qquad
              P(z_k = z_{kj}) \propto \tilde q(z_{kj}) / r(z_{kj}), \quad z_{kj} \sim r

    A lower bound on log p(X) for any size of the pools, since E of each weight is p(X) (Lawson et al. 2019, arXiv
    1910.14265; r and the estimated normaliser: `common.energy.LocScaleEbm`). The gradient is unbiased: that of the
    choices by their score, less what the other samples predict of the bound (VIMCO, Mnih & Rezende 2016, arXiv
    1602.06725). lambda and beta as in IwaeElbo.

    Args:
        K: samples, two or more: StandardElbo is the bound of one, without the noise of choosing.
    """

    def __init__(self, model: MultimodalVAE, K: int = 2, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        require(K > 1, f"the energy-based bound of --obj iwae takes two samples or more, not {K}: the ELBO takes one")
        self.K = K

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the samples."""
        return self._surrogate(inputs, beta)[1]

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        surrogate, bound = self._surrogate(inputs, beta)
        return -surrogate.mean(), bound

    def _surrogate(self, inputs: Mapping[str, Tensor] | Batch, beta: float) -> tuple[Tensor, Bound]:
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        pool, log_q, log_w = q.pool((self.K,))  # (K, J, B, D), (K, J, B) each
        z, index = chosen(pool, log_w, dim=1)  # (K, B, D), (K, B)
        log_share, log_q = (
            x.gather(1, index.unsqueeze(1)).squeeze(1) for x in (log_w.log_softmax(dim=1), log_q)
        )  # (K, B)
        log_q = log_q - log_w.logsumexp(dim=1)
        log_weight, terms = self._log_weights(batch, z[None], torch.ones_like(log_q[:1]), log_q[None], beta)
        log_weight = log_weight.squeeze(0)  # (K, B)
        value = log_weight.logsumexp(dim=0) - math.log(self.K)
        with torch.no_grad():
            others = (log_weight.sum(dim=0) - log_weight) / (self.K - 1)  # what the others predict of each
            own = torch.eye(self.K, dtype=torch.bool, device=z.device)[..., None]
            predicted = torch.where(own, others, log_weight[None]).logsumexp(dim=1) - math.log(self.K)  # (K, B)
            credit = value - predicted
        surrogate = Bound(value + (credit * log_share).sum(dim=0), {}).of_something(batch.mask).value
        return surrogate, Bound(value, terms).of_something(batch.mask)


def _by_component(x: Tensor) -> Tensor:
    """What components have by latent, (B, T, D) or (B, D) of a plain q: (T, 1, B, D)."""
    return (x if x.dim() == 3 else x.unsqueeze(1)).movedim(1, 0).unsqueeze(1)


def _joined(bounds: list[Bound]) -> Bound:
    values, terms = zip(*bounds, strict=True)
    return Bound(torch.cat(values), {name: torch.cat([term[name] for term in terms]) for name in terms[0]})
