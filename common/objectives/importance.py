"""Importance-weighted bounds, IWAE and STL, for posteriors that are mixtures or not."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.utils.checkpoint import checkpoint

from common.data.batches import Batch
from common.encoders_decoders import has_batch_norm
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.objectives.memory import samples_that_fit

Part = tuple[Batch, tuple[Tensor, ...], Tensor]  # examples, their experts' parameters (M, B, D), z (T, K, B, D)


class ImportanceWeighted(MultimodalObjective):
    """Base class of importance-weighted bounds: their weights, and decoding in a limited memory.

    Args:
        model, weights: see `MultimodalObjective`.
        max_memory: GiB; decode only as many samples at a time as fit with their gradients, and decode them again in the
            backward pass. By default all at once.
    """

    one_backward_pass = False
    has_kl_to_prior = False

    def __init__(
        self, model: MultimodalVAE, weights: Mapping[str, float] | None = None, max_memory: float | None = None
    ) -> None:
        super().__init__(model, weights)
        self.max_samples = None if max_memory is None else samples_that_fit(self.model, max_memory)

    @property
    def capturable(self) -> bool:
        # a CUDA graph cannot restore the random state, as decoding again in the backward pass does
        return super().capturable and self.max_samples is None

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

    def _decoded(self, z: Tensor, batch: Batch, has_weight: Tensor) -> dict[str, Tensor]:
        """log p(x_m|z) where a component has weight, (T, K, B), of each modality that the batch has: {name: (T, K, B)}.

        A few of the K samples at a time if that saves memory: without gradients, or with --max-memory.
        """
        t, k, b, _ = z.shape
        n = max(1, self.decoded_at_once // (t * b))
        log_likelihoods = {}
        for names in self._decoded_together(batch):
            again = self.max_samples is not None and not self.model.decoder_has_batch_norm(names[0])
            at_once = n < k and (again or not torch.is_grad_enabled())
            size, parts = n if at_once else k, []
            for z_part, weighted in zip(z.split(size, dim=1), has_weight.split(size, dim=1), strict=True):
                scored = {name: self.present(name, batch, weighted) for name in names}
                arguments = dict.fromkeys(names, z_part), batch, scored
                if at_once and torch.is_grad_enabled():
                    parts.append(checkpoint(self.log_likelihoods, *arguments, use_reentrant=False))
                else:
                    parts.append(self.log_likelihoods(*arguments))
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
    r"""The importance-weighted bound, with K samples of each of the T components of a mixture, else T = 1.

    .. math:: \log \frac1K \sum_{t,k} \pi_t w_{tk}, \qquad
              w_{tk} = p(z_{tk}) \prod_m p(x_m|z_{tk}) / q(z_{tk}|X), \quad z_{tk} \sim q_t

    (Burda et al. 2016, arXiv 1509.00519; for mixtures Shi et al. 2019, arXiv 1911.03393, eq. 3.) `looser` has the mean
    over the components outside, :math:`\sum_t \pi_t \log \frac1K \sum_k w_{tk}`: lower, and what MMVAE trains. Both are
    lower bounds on log p(X), where X are the modalities that an example has. lambda weighs log p(x_m|z), beta weighs
    log p(z) - log q(z|X): with K > 1 and a beta other than 1 they bound nothing.

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
        require(
            has_density,
            "the bound needs a density in closed form: use EnergyIwaeElbo for energy-based posteriors, JnfElbo for JNF",
        )
        self.K = K
        self.looser = looser

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the components and their samples."""
        return _joined([self._bound(*part, beta) for part in self._parts(*self.sample(inputs))])

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        return self.loss_of_samples(*self.sample(inputs), beta)

    def loss_of_samples(
        self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float = 1.0
    ) -> tuple[Tensor, Bound]:
        """The loss and the bound at the samples that `sample` returned."""
        parts = [self._surrogate(*part, beta) for part in self._parts(batch, params, z)]
        return -torch.cat([surrogate for surrogate, _ in parts]).mean(), _joined([bound for _, bound in parts])

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """One backward pass for each part of the batch, so that only one part's activations are held at a time."""
        batch, params, z = self.sample(inputs)
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

    def sample(self, inputs: Mapping[str, Tensor] | Batch) -> Part:
        """The examples, their experts' parameters (M, B, D), and K samples of each component, z (T, K, B, D)."""
        batch = self.model.observe(inputs)
        params = self.model.experts(batch)
        q = self.model.training_posterior(params, batch.mask)
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
        log_q = log_q + family.private_log_prob(q, z, self.model.prior)
        log_w, terms = self._log_weights(batch, z, share, log_q, beta)
        return Bound(self._estimate(log_w, share), terms).zero_without_modalities(batch.mask)

    def _density(self, params: tuple[Tensor, ...], mask: Tensor | None) -> Distribution:
        """The distribution whose density log q(z|X) is."""
        return self.model.training_posterior(params, mask)

    def _estimate(self, log_w: Tensor, share: Tensor) -> Tensor:
        """The bound, (B,), of log w (T, K, B)."""
        if self.looser:
            return (share * log_w.logsumexp(dim=1)).sum(dim=0) - math.log(self.K)
        return (log_w + share.log()[:, None]).flatten(0, 1).logsumexp(dim=0) - math.log(self.K)


class StlElbo(IwaeElbo):
    """IwaeElbo whose gradient leaves out the score of q's parameters ("sticking the landing", Roeder et al. 2017).

    arXiv 1703.09194. For K = 1 the gradient is unbiased, for a mixture only with `looser`. For K > 1 it is biased;
    DregIwaeElbo's is not.
    """

    def _density(self, params: tuple[Tensor, ...], mask: Tensor | None) -> Distribution:
        return self.model.variational_posterior.detached(self.model.training_posterior(params, mask))


def _joined(bounds: list[Bound]) -> Bound:
    """The bound of all examples from those of the batch's parts."""
    values, terms = zip(*bounds, strict=True)
    return Bound(torch.cat(values), {name: torch.cat([term[name] for term in terms]) for name in terms[0]})
