r"""Importance-weighted bounds: IWAE, STL and DReG, for posteriors that are mixtures or not."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from common.data.batches import Batch
from common.distributions.energy import chosen
from common.encoders_decoders import has_batch_norm
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.objectives.memory import samples_that_fit

GRADIENTS = ("exact", "stop-all", "published")
NARROW = 0.01  # a scale, below which the noise of DReG's gradient, about w^2 / scale, outgrows that of IWAE's
Part = tuple[Batch, tuple[Tensor, ...], Tensor]  # examples, their experts' parameters (M, B, D), z (T, K, B, D)


class ImportanceWeighted(MultimodalObjective):
    """What bounds with importance weights share: the weights, and decoding them where memory is short.

    Args:
        model, weights: see `MultimodalObjective`.
        max_memory: GiB; decode only as many samples at a time as fit with their gradients, and decode them again in the
            backward pass. By default all at once.
    """

    def __init__(
        self, model: MultimodalVAE, weights: Mapping[str, float] | None = None, max_memory: float | None = None
    ) -> None:
        super().__init__(model, weights)
        self.max_samples = None if max_memory is None else samples_that_fit(self.model, max_memory)

    @property
    def decoded_at_once(self) -> int:
        """The number of samples to decode in one batch."""
        usual = self.model.decoded_at_once
        return usual if self.max_samples is None else min(usual, self.max_samples)

    def _log_weights(
        self, batch: Batch, z: Tensor, share: Tensor, log_q: Tensor, beta: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log w of z (T, K, B, D), (T, K, B), and the terms (B,).

        Args:
            share: the components' weights in the mixture, (T, B).
            log_q: log q(z|X), (T, K, B).
        """
        log_prior = self.model.prior().log_prob(z)
        log_w = beta * (log_prior - log_q)

        def mean(x: Tensor) -> Tensor:
            return (share * x.mean(dim=1)).sum(dim=0)

        terms = {"joint/kl": mean(log_q - log_prior)}
        log_likelihoods = self._decoded(z, batch, (share > 0)[:, None].expand_as(log_w))
        for name in self.model.modelled:
            log_p = log_likelihoods.get(name, torch.zeros_like(log_w))
            log_w = log_w + self.weights[name] * log_p
            terms[f"joint/{name}"] = mean(log_p)
        return log_w, terms

    def _decoded(self, z: Tensor, batch: Batch, counts: Tensor) -> dict[str, Tensor]:
        """log p(x_m|z) where it counts, (T, K, B), of each modality that the batch has: {name: (T, K, B)}.

        A few of the K samples at a time if that saves memory: without gradients, or with --max-memory.
        """
        t, k, b, _ = z.shape
        n = max(1, self.decoded_at_once // (t * b))
        log_likelihoods = {}
        for names in self._decoded_together(batch):
            again = self.max_samples is not None and not self.model.decoder_has_batch_norm(names[0])
            at_once = n < k and (again or not torch.is_grad_enabled())
            size, parts = n if at_once else k, []
            for z_part, counts_part in zip(z.split(size, dim=1), counts.split(size, dim=1), strict=True):
                scored = {name: self.present(name, batch, counts_part) for name in names}
                wanted = dict.fromkeys(names, z_part), batch, scored
                if at_once and torch.is_grad_enabled():
                    parts.append(checkpoint(self.log_likelihoods, *wanted, use_reentrant=False))
                else:
                    parts.append(self.log_likelihoods(*wanted))
            log_likelihoods |= {name: torch.cat([part[name] for part in parts], dim=1) for name in names}
        return log_likelihoods

    def _decoded_together(self, batch: Batch) -> list[tuple[str, ...]]:
        """The batch's modelled modalities; those of one `StackedDecoder` in one group."""
        groups = {}
        for name in (name for name in self.model.modelled if name in batch.modalities):
            modality = self.model.modality[name]
            groups.setdefault(modality.decoder if modality.stacked else name, []).append(name)
        return [tuple(names) for names in groups.values()]


class IwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound, with K samples of each of the posterior's T components (1 if it is no mixture).

    .. math:: \log \frac1K \sum_{t,k} \pi_t w_{tk}, \qquad
              w_{tk} = p(z_{tk}) \prod_m p(x_m|z_{tk}) / q(z_{tk}|X), \quad z_{tk} \sim q_t

    (Burda et al. 2016, arXiv 1509.00519; for mixtures Shi et al. 2019, arXiv 1911.03393, eq. 3.) `looser` has the mean
    over the components outside, :math:`\sum_t \pi_t \log \frac1K \sum_k w_{tk}`: lower, and what MMVAE trains. Both are
    lower bounds on log p(X), where X are the modalities that an example has. lambda weighs log p(x_m|z), beta weighs
    log p(z) - log q(z|X).

    Args:
        K: samples of each component.
        looser: see above; no effect if T is 1.
        max_memory: see `ImportanceWeighted`.

    Raises:
        InputError: no samples, or a posterior without a density in closed form.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 1,
        looser: bool = False,
        weights: Mapping[str, float] | None = None,
        max_memory: float | None = None,
    ) -> None:
        super().__init__(model, weights, max_memory)
        require(K > 0, f"an importance-weighted bound needs at least one sample, not {K}")
        has_density = self.model.variational_posterior.has_density
        require(has_density, "an energy-based posterior has no density in closed form: its bound is EnergyIwaeElbo")
        self.K = K
        self.looser = looser

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the components and their samples."""
        return _joined([self._bound(*part, beta) for part in self._parts(*self._sample(inputs))])

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        parts = [self._surrogate(*part, beta) for part in self._parts(*self._sample(inputs))]
        return -torch.cat([surrogate for surrogate, _ in parts]).mean(), _joined([bound for _, bound in parts])

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """One backward pass for each part of the batch, so that only one part's activations are held at a time."""
        batch, params, z = self._sample(inputs)
        roots = (*params, z)
        leaves = [x.detach().requires_grad_() for x in roots]
        bounds = []
        for part in self._parts(batch, tuple(leaves[:-1]), leaves[-1]):
            surrogate, bound = self._surrogate(*part, beta)
            (-surrogate.sum() / n).backward()
            bounds.append(bound.detach())
        reached = [(x, leaf.grad) for x, leaf in zip(roots, leaves, strict=True) if leaf.grad is not None]
        reached = [(x, gradient) for x, gradient in reached if x.requires_grad]
        if reached:  # frozen encoders have no gradient
            torch.autograd.backward(*zip(*reached, strict=True))
        return _joined(bounds)

    def _sample(self, inputs: Mapping[str, Tensor] | Batch) -> Part:
        batch = self.model.observe(inputs)
        params = self.model.experts(batch)
        q = self.model.fuse(params, batch.mask)
        return batch, params, self.model.variational_posterior.sample_components(q, self.K)

    def _parts(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor) -> Iterator[Part]:
        """A few examples at a time with all their samples; all in one part if batch norm's statistics must see all."""
        t, k, b, _ = z.shape
        undivided = self.training and has_batch_norm(self.model.decoder)
        n = b if undivided else max(1, self.decoded_at_once // (t * k))
        for start in range(0, b, n):
            rows = slice(start, start + n)
            yield batch[rows], tuple(p[:, rows] for p in params), z[:, :, rows]

    def _surrogate(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> tuple[Tensor, Bound]:
        """The value whose gradient training takes, (B,), and the bound."""
        bound = self._bound(batch, params, z, beta)
        return bound.value, bound

    def _bound(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> Bound:
        family, q = self.model.variational_posterior, self._density(params, batch.mask)
        share = family.component_weights(q)  # (T, B)
        log_q = family.component_log_probs(q, z).logsumexp(dim=-1)  # (T, K, B)
        log_w, terms = self._log_weights(batch, z, share, log_q, beta)
        return Bound(self._estimate(log_w, share), terms).zero_without_modalities(batch.mask)

    def _density(self, params: tuple[Tensor, ...], mask: Tensor | None) -> Distribution:
        """The distribution whose density log q(z|X) is."""
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
        max_memory: float | None = None,
    ) -> None:
        super().__init__(model, K, looser, weights, max_memory)
        require(gradient in GRADIENTS, f"DReG's gradient is {', '.join(GRADIENTS)}, not {gradient!r}")
        self.gradient = gradient

    def _surrogate(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float) -> tuple[Tensor, Bound]:
        q = self.model.fuse(params, batch.mask)
        share = self.model.variational_posterior.component_weights(q)  # (T, B)
        narrow = self._narrow(q)  # (T or 1, 1, B, D)
        scaled_z = z.view_as(z)  # its gradient is scaled below
        log_w, terms = self._log_weights(batch, scaled_z, share, self._log_q(q, scaled_z), beta)
        with torch.no_grad():
            bound = Bound(self._estimate(log_w, share), terms).zero_without_modalities(batch.mask).detach()
            w = self._normalised(log_w, share)
            outer = w * share[:, None] if self.looser else w
        surrogate = (outer * log_w).sum(dim=(0, 1))
        if self.gradient == "exact":
            r = self._own_responsibility(q, torch.where(narrow, z.detach(), z))  # (T, K, B)
            surrogate = surrogate - beta * (outer * r).sum(dim=(0, 1))
            scale = torch.where(narrow, 1, (1 - beta * r.detach() * (1 - w))[..., None])
        else:
            scale = w[..., None] if self.gradient == "stop-all" else 1
        if z.requires_grad:
            scaled_z.register_hook(lambda gradient: gradient * scale)
        return Bound(surrogate, {}).zero_without_modalities(batch.mask).value, bound

    def _normalised(self, log_w: Tensor, share: Tensor) -> Tensor:
        """w over the sum of the estimator's own set: each component's samples if looser, else all, (T, K, B)."""
        if self.looser:
            return log_w.softmax(dim=1)
        return (log_w + share.log()[:, None]).flatten(0, 1).softmax(dim=0).view_as(log_w)

    def _log_q(self, q: Distribution, z: Tensor) -> Tensor:
        """log q(z|X), (T, K, B), whose gradient by q's parameters leaves out the component that z is drawn from."""
        family = self.model.variational_posterior
        narrow = family.scales(q) < (NARROW if self.gradient == "exact" else 0)
        log_qs = family.component_log_probs(family.detached(q, except_for=narrow), z)  # (T, K, B, T)
        if self.gradient == "exact":
            same = torch.eye(len(z), dtype=torch.bool, device=z.device)[:, None, None]
            log_qs = torch.where(same, log_qs, family.component_log_probs(q, z))
        return log_qs.logsumexp(dim=-1)

    def _own_responsibility(self, q: Distribution, z: Tensor) -> Tensor:
        """r = pi_t q_t(z) / q(z|X) of the component t that z (T, K, B, D) is drawn from: (T, K, B)."""
        family = self.model.variational_posterior
        log_qs = family.component_log_probs(family.detached(q), z)  # (T, K, B, T)
        return (log_qs.diagonal(dim1=0, dim2=-1).movedim(-1, 0) - log_qs.logsumexp(dim=-1)).exp()

    def _narrow(self, q: Distribution) -> Tensor:
        """Which latents of each component are narrow: (T, 1, B, D)."""
        narrow = self.model.variational_posterior.scales(q) < NARROW  # (B, T, D), (B, D) if q is no mixture
        return (narrow if narrow.dim() == 3 else narrow.unsqueeze(1)).movedim(1, 0).unsqueeze(1)


class EnergyIwaeElbo(ImportanceWeighted):
    r"""The importance-weighted bound of an energy-based posterior, with K samples, each chosen from a pool of its own.

    .. math:: \log \frac1K \sum_k \frac{p(z_k) \prod_m p(x_m|z_k)}{\tilde q(z_k) / \hat Z_k}, \qquad
              P(z_k = z_{kj}) \propto \tilde q(z_{kj}) / r(z_{kj}), \quad z_{kj} \sim r

    A lower bound on log p(X) for any size of the pools, since E of each weight is p(X) (Lawson et al. 2019, arXiv
    1910.14265; r and the estimated normaliser: `LocScaleEbm`). The gradient is unbiased: that of the
    choices by their score, less what the other samples predict of the bound (VIMCO, Mnih & Rezende 2016, arXiv
    1602.06725). lambda and beta as in IwaeElbo.

    Args:
        K: samples, two or more: StandardElbo is the bound with one, without the noise of choosing.
        max_memory: see `ImportanceWeighted`.

    Raises:
        InputError: fewer than two samples.
    """

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 2,
        weights: Mapping[str, float] | None = None,
        max_memory: float | None = None,
    ) -> None:
        super().__init__(model, weights, max_memory)
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
        log_choice, log_q = (
            x.gather(1, index.unsqueeze(1)).squeeze(1) for x in (log_w.log_softmax(dim=1), log_q)
        )  # (K, B)
        log_q = log_q - log_w.logsumexp(dim=1)
        log_weight, terms = self._log_weights(batch, z[None], torch.ones_like(log_q[:1]), log_q[None], beta)
        log_weight = log_weight.squeeze(0)  # (K, B)
        value = log_weight.logsumexp(dim=0) - math.log(self.K)
        credit = value.detach() - self._predicted(log_weight.detach())
        surrogate = Bound(value + (credit * log_choice).sum(dim=0), {}).zero_without_modalities(batch.mask).value
        return surrogate, Bound(value, terms).zero_without_modalities(batch.mask)

    def _predicted(self, log_weight: Tensor) -> Tensor:
        """The bound that the other samples predict where each sample stands, (K, B)."""
        others = (log_weight.sum(dim=0) - log_weight) / (self.K - 1)
        same = torch.eye(self.K, dtype=torch.bool, device=log_weight.device)[..., None]
        return torch.where(same, others, log_weight[None]).logsumexp(dim=1) - math.log(self.K)


def _joined(bounds: list[Bound]) -> Bound:
    """The bound of all examples from those of the batch's parts."""
    values, terms = zip(*bounds, strict=True)
    return Bound(torch.cat(values), {name: torch.cat([term[name] for term in terms]) for name in terms[0]})
