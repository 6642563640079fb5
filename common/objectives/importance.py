"""Importance-weighted bounds, IWAE and STL, for posteriors that are mixtures or not."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.data.batches import Batch
from common.encoders_decoders import has_batch_norm, is_repeatable
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.objectives.decoding import samples_at_once
from common.objectives.importance_weights import changes_gradient, up_to_a_multiple

MAX_SHARE = 0.6  # above this share of samples that matter, scoring them first costs more time than it saves
PROBE_EVERY = 16  # one of these examples is scored first, to see whether most samples matter

Known = Mapping[str, Tensor] | None
Part = tuple[Batch, tuple[Tensor, ...], Tensor, Known]  # examples, their experts' parameters (M, B, D), z (T, K, B, D)


class ImportanceWeighted(MultimodalObjective):
    """Base class of importance-weighted bounds: their weights, and decoding a few examples or samples at a time."""

    has_kl_to_prior = False
    looser = False

    def _log_weights(
        self,
        batch: Batch,
        z: Tensor,
        share: Tensor,
        log_q: Tensor,
        beta: float,
        known: Known = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """log w of z (T, K, B, D), (T, K, B), and the terms (B,).

        Args:
            share: the components' weights in the mixture, (T, B).
            log_q: log q(z|X), (T, K, B).
            known: log p(x_m|z) without gradients, {name: (T, K, B)}. These modalities are decoded again, with
                gradients, only where a sample's weight changes the gradient.
        """
        log_prior = self.model.prior().log_prob(z)
        log_w = beta * (log_prior - log_q)

        def mean(x: Tensor) -> Tensor:
            return (share * x.mean(dim=1)).sum(dim=0)

        terms = {"joint/kl": mean(log_q - log_prior)}
        groups = self._decoded_together(batch)
        log_likelihoods = self._decoded(z, batch, share, [names for names in groups if names[0] not in (known or ())])
        if known:
            matters = changes_gradient(log_w + self._weighted(log_likelihoods | known), share, self.looser)
            again = self._decoded(z, batch, share, [(name,) for name in known], matters)
            log_likelihoods |= {name: torch.where(matters, again[name], x) for name, x in known.items()}
        terms |= {
            f"joint/{name}": mean(log_likelihoods.get(name, torch.zeros_like(log_w))) for name in self.model.modelled
        }
        return log_w + self._weighted(log_likelihoods), terms

    def _weighted(self, log_likelihoods: Mapping[str, Tensor]) -> Tensor | int:
        """The sum of lambda_m log p(x_m|z), (T, K, B)."""
        return sum(self.weights[name] * log_p for name, log_p in log_likelihoods.items())

    def _decoded(
        self,
        z: Tensor,
        batch: Batch,
        share: Tensor,
        groups: Sequence[tuple[str, ...]],
        matters: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """log p(x_m|z) of each group's modalities where a component has weight: {name: (T, K, B)}.

        Without gradients a few of the K samples at a time, which saves memory.

        Args:
            matters: the samples to score, (T, K, B); None: all.
        """
        t, k, b, _ = z.shape
        size = k if torch.is_grad_enabled() else max(1, samples_at_once(self.model, z.shape[-1]) // (t * b))
        has_weight = (share > 0)[:, None].expand(t, k, b)
        if matters is not None:
            has_weight = has_weight & up_to_a_multiple(matters, has_weight)
        log_likelihoods = {}
        for names in groups:
            parts = []
            for z_part, weighted in zip(z.split(size, dim=1), has_weight.split(size, dim=1), strict=True):
                scored = {name: self.present(name, batch, weighted) for name in names}
                if matters is not None and batch.mask is None:
                    of_set = weighted.unsqueeze(-1)
                    scored = {name: of_set if self.model.modality[name].is_set else weighted for name in names}
                parts.append(self.log_likelihoods(dict.fromkeys(names, z_part), batch, scored))
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
    log p(z) - log q(z|X). With a beta other than 1 they bound nothing (except for K = 1 and a beta above 1, where a
    mixture needs `looser`).

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
        self.K = K
        self.looser = looser

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,); the terms are means over the components and their samples."""
        batch, params, z = self.sample(inputs)
        return Bound.joined(
            [self._bound(*part, beta) for part in self._parts(batch, params, z, self._examples_at_once(z))]
        )

    def loss(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Bound]:
        return self.loss_of_samples(*self.sample(inputs), beta)

    def loss_of_samples(
        self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float = 1.0
    ) -> tuple[Tensor, Bound]:
        """The loss and the bound at the samples that `sample` returned."""
        parts = [self._surrogate(*part, beta) for part in self._parts(batch, params, z, self._examples_at_once(z))]
        return -torch.cat([surrogate for surrogate, _ in parts]).mean(), Bound.joined([bound for _, bound in parts])

    def backward(self, inputs: Mapping[str, Tensor] | Batch, beta: float, n: int) -> Bound:
        """One backward pass for each part of the batch, so that only one part's activations are held at a time.

        On a CPU samples whose weights are negligible, most of those of images, are decoded without gradients.
        """
        batch, params, z = self.sample(inputs)
        roots = (*params, z)
        *fixed, fixed_z = (x.detach() for x in roots)
        known, n_with_gradients = self._score_before(batch, tuple(fixed), fixed_z, beta)
        leaves = [x.detach().requires_grad_() for x in roots]
        bounds = []
        size = self._examples_at_once(z, n_with_gradients)
        for part in self._parts(batch, tuple(leaves[:-1]), leaves[-1], size, known):
            surrogate, bound = self._surrogate(*part, beta)
            (-surrogate.sum() / n).backward()
            bounds.append(bound.detach())
        reached = [(x, leaf.grad) for x, leaf in zip(roots, leaves, strict=True) if leaf.grad is not None]
        reached = [(x, gradient) for x, gradient in reached if x.requires_grad]
        if reached:  # frozen encoders have no gradient
            torch.autograd.backward(*zip(*reached, strict=True))
        return Bound.joined(bounds)

    def sample(self, inputs: Mapping[str, Tensor] | Batch) -> tuple[Batch, tuple[Tensor, ...], Tensor]:
        """The examples, their experts' parameters (M, B, D), and K samples of each component, z (T, K, B, D)."""
        batch = self.model.observe(inputs)
        params = self.model.experts(batch)
        q = self.model.training_posterior(params, batch.mask)
        return batch, params, self.model.variational_posterior.sample_components(q, self.K)

    def _examples_at_once(self, z: Tensor, n_with_gradients: float | None = None) -> int:
        """How many examples to decode at once, with their samples z (T, K, B, D): all if batch norm must see all.

        Args:
            n_with_gradients: mean number of an example's samples that are decoded with gradients; None: all.
        """
        t, k, b, _ = z.shape
        if self.model.training and has_batch_norm(self.model.decoder):
            return b
        n_samples = t * k if n_with_gradients is None else max(1, n_with_gradients)
        return max(1, int(samples_at_once(self.model, z.shape[-1]) / n_samples))

    @staticmethod
    def _parts(batch: Batch, params: tuple[Tensor, ...], z: Tensor, size: int, known: Known = None) -> Iterator[Part]:
        """A few examples at a time, with all their samples."""
        for start in range(0, len(batch), size):
            rows = slice(start, start + size)
            known_here = None if known is None else {name: x[..., rows] for name, x in known.items()}
            yield batch[rows], tuple(p[:, rows] for p in params), z[:, :, rows], known_here

    @torch.no_grad()
    def _score_before(
        self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float
    ) -> tuple[Known, float | None]:
        """log p(x_m|z) of all samples without gradients, and the mean number of an example's samples that matter.

        (None, None) if most matter, and on a GPU, for K = 1, with `every_row` and where no decoder can run again.
        """
        names = [names for names in self._decoded_together(batch) if self._decodes_alone(names)]
        if not names or z.device.type != "cpu" or batch.every_row or self.K == 1:
            return None, None
        n = -(-len(batch) // PROBE_EVERY)
        known, matters = self._scored(names, batch[:n], tuple(p[:, :n] for p in params), z[:, :, :n], beta)
        if matters.float().mean() > MAX_SHARE:
            return None, None
        if n < len(batch):
            others = self._scored(names, batch[n:], tuple(p[:, n:] for p in params), z[:, :, n:], beta)
            known = {name: torch.cat([x, others[0][name]], dim=-1) for name, x in known.items()}
            matters = torch.cat([matters, others[1]], dim=-1)
        return known, matters.sum().item() / len(batch)

    def _scored(
        self, names: Sequence[tuple[str, ...]], batch: Batch, params: tuple[Tensor, ...], z: Tensor, beta: float
    ) -> tuple[dict[str, Tensor], Tensor]:
        """log p(x_m|z) of some modalities, {name: (T, K, B)}, and which samples matter by these alone, (T, K, B)."""
        share, log_q = self._share_and_log_q(self.model.training_posterior(params, batch.mask), z)
        log_likelihoods = self._decoded(z, batch, share, names)
        log_w = beta * (self.model.prior().log_prob(z) - log_q) + self._weighted(log_likelihoods)
        return log_likelihoods, changes_gradient(log_w, share, self.looser)

    def _decodes_alone(self, names: tuple[str, ...]) -> bool:
        """Whether a sample's log p(x_m|z) depends on no other sample, and is the same when computed again."""
        modality = self.model.modality[names[0]]
        return not modality.stacked and (not self.model.training or is_repeatable(self.model.decoder[modality.decoder]))

    def _surrogate(
        self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, known: Known, beta: float
    ) -> tuple[Tensor, Bound]:
        """The value whose gradient training takes, (B,), and the bound."""
        bound = self._bound(batch, params, z, known, beta)
        return bound.value, bound

    def _bound(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor, known: Known, beta: float) -> Bound:
        share, log_q = self._share_and_log_q(self._density(params, batch.mask), z)
        log_w, terms = self._log_weights(batch, z, share, log_q, beta, known)
        return Bound(self._estimate(log_w, share), terms).zero_without_modalities(batch.mask)

    def _share_and_log_q(self, q: Distribution, z: Tensor) -> tuple[Tensor, Tensor]:
        """The components' weights in the mixture, (T, B), and log q(z|X), (T, K, B)."""
        family = self.model.variational_posterior
        log_q = family.component_log_probs(q, z).logsumexp(dim=-1)
        return family.component_weights(q), log_q + family.private_log_prob(q, z, self.model.prior)

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
