r"""Importance-sampling estimates of marginal log-likelihoods, in nats. The weights lambda and beta never enter them.

.. math:: \log p(x_A) \approx \log \frac1K \sum_k \frac{p(z_k) \prod_{m \in A} p(x_m|z_k)}{q(z_k)}, \quad z_k \sim q

(Burda et al. 2016, arXiv 1509.00519, eq. 8.) The proposal q is q(z|x_G) of the `given` modalities G, an energy-based
posterior's own proposal, or the prior if G is empty. The expectation of the estimate is a lower bound on log p(x_A),
which it approaches as K grows. No two examples share samples, so that the standard error of a mean over examples counts
the noise of the estimates too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from common import distributed
from common.data.batches import Batch, Examples
from common.encoders_decoders import zero_where_absent
from common.errors import require
from common.modalities import Modality
from common.multimodal_vae import MultimodalVAE
from common.objectives.importance import IwaeElbo

QUALITIES = ("effective samples", "variance of log-weights")  # of an estimate, as the tables name them


class Estimate(NamedTuple):
    """An estimate for B examples.

    value: log p, (B,), nats.
    ess: the effective number of samples (sum w)^2 / sum w^2, (B,), in [1, K].
    variance: the variance of the K log-weights, (B,), nats^2; it is 0 if q is the exact posterior.
    """

    value: Tensor
    ess: Tensor
    variance: Tensor

    def named(self, name: str) -> dict[str, Tensor]:
        """The estimate under a name, and under QUALITY, NAME how well its proposal fits: {name: (B,)}."""
        qualities = zip(QUALITIES, (self.ess, self.variance), strict=True)
        return {name: self.value} | {f"{quality}, {name}": values for quality, values in qualities}


@torch.no_grad()
def evaluate_batches(
    examples: Examples, batch_size: int, estimate: Callable[[Batch], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Apply `estimate` batch by batch and concatenate the results.

    Several processes share the batches, each with its own noise.

    Args:
        examples: N examples.
        batch_size: examples in a batch, B.
        estimate: a batch -> {name: (B, ...)}.

    Returns:
        {name: (N, ...)}, on the CPU.
    """
    distributed.seed_each_process()
    return distributed.map_rows(len(examples), batch_size, lambda rows: estimate(examples[rows]))


class ImportanceWeights:
    """Accumulates the importance weights of B examples, a few samples at a time."""

    def __init__(self) -> None:
        self.n = 0
        # float64: a sum of -20,000 nats in float32 loses weights a thousand times smaller
        self.mean = self.squares = torch.zeros(
            (), dtype=torch.float64
        )  # of the log-weights: their mean, and the sum of squared deviations
        self.log_sum = self.log_sum_of_squares = torch.tensor(-torch.inf, dtype=torch.float64)

    def add(self, log_w: Tensor) -> None:
        """Add the log-weights of more samples, (..., B), nats."""
        self.dtype, log_w = log_w.dtype, log_w.flatten(0, -2).double()
        n, mean = self.n + len(log_w), log_w.mean(dim=0)
        deviation = mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + (log_w - mean).square().sum(dim=0)
        self.squares += deviation.square() * (self.n * len(log_w) / n)  # Chan et al. 1979
        self.n, self.mean = n, self.mean.to(mean) + deviation * (len(log_w) / n)
        self.log_sum = torch.logaddexp(self.log_sum.to(log_w), log_w.logsumexp(dim=0))
        self.log_sum_of_squares = torch.logaddexp(self.log_sum_of_squares.to(log_w), (2 * log_w).logsumexp(dim=0))

    def estimate(self) -> Estimate:
        """The logarithm of the mean weight, the effective number of samples, and the log-weights' variance."""
        value, log_ess = self.log_sum - math.log(self.n), 2 * self.log_sum - self.log_sum_of_squares
        return Estimate(*(x.to(self.dtype) for x in (value, log_ess.exp(), self.squares / self.n)))


@torch.no_grad()
def importance_estimates(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    targets: Sequence[Sequence[str] | Tensor],
    given: Sequence[str] | Tensor,
    n_samples: int = 1000,
    at_once: int | None = None,
) -> list[Estimate]:
    """Estimate log p of several sets of modalities with the same samples, so that differences are consistent.

    Args:
        inputs: {name: (B, ...)}.
        targets: the sets A of modalities to estimate log p(x_A) of, by names or by a mask (B, M) bool, which can also
            select single elements of a set modality. The name of a set modality means the elements an example has.
        given: the modalities G of the proposal q(z|x_G), by names or by a mask (B, M) bool, which can also select
            single elements of a set. Empty: the prior.
        n_samples: K.
        at_once: samples to decode at once; by default the fastest number.

    Returns:
        an Estimate for each target.

    Raises:
        InputError: no samples, or an example lacks a target.
    """
    strings = [names for names in (given, *targets) if isinstance(names, str)]
    require(not strings, f"name modalities in tuples: {', '.join(f'({name!r},), not {name!r}' for name in strings)}")
    _check_samples(n_samples, at_once)
    batch = model.observe(inputs)
    targets = [_mask(model, batch, target) for target in targets]
    scored = _scored(model, targets)
    values = {name: _filled(batch, model.modality[name]) for name in scored}
    prior, q = model.prior(), _proposal(model, batch, given)
    size = at_once or max(1, model.decoded_at_once // len(batch))
    weights = [ImportanceWeights() for _ in targets]
    for start in range(0, n_samples, size):
        z = q.sample((min(size, n_samples - start),))  # (k, B, D)
        log_ratio = prior.log_prob(z) - q.log_prob(z)  # (k, B)
        p = model.decode(z, scored, batch.modalities)
        log_w = [log_ratio] * len(targets)
        for name, by_target in scored.items():
            log_p = p[name].log_prob(values[name])  # (k, B), for a set (k, B, n)
            terms = [torch.where(present, log_p, 0) for present in by_target]
            if model.modality[name].is_set:
                terms = [x.sum(dim=-1) for x in terms]
            log_w = [w + x for w, x in zip(log_w, terms, strict=True)]
        for target_weights, w in zip(weights, log_w, strict=True):
            target_weights.add(w)
    return [target_weights.estimate() for target_weights in weights]


def _filled(batch: Batch, modality: Modality) -> Tensor:
    """The values of a modality, 0 where it is absent, since those there may have no density."""
    x = batch.modalities[modality.name]
    if batch.mask is None or modality.is_set:  # absent elements of a set are 0 already
        return x
    return zero_where_absent(x, modality.present(batch.mask))


def _check_samples(n_samples: int, at_once: int | None) -> None:
    """Raise InputError for numbers of samples that are not positive."""
    require(n_samples > 0, f"an estimate needs at least one importance sample, not {n_samples}")
    require(at_once is None or at_once > 0, f"an estimate decodes at least one sample at once, not {at_once}")


def _scored(model: MultimodalVAE, targets: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Where each target, a mask (B, M), has each modality: {name: [(B,), or (B, n) for a set]}.

    Modalities that are in no target are left out.
    """
    scored = {}
    for name, modality in model.modality.items():
        by_target = [modality.present(target) for target in targets]
        if any(present.any() for present in by_target):
            scored[name] = by_target
    return scored


def _proposal(model: MultimodalVAE, batch: Batch, given: Sequence[str] | Tensor) -> Distribution:
    """The distribution to draw from, batch shape (B,): q(z|x_G) or its proposal, for no modality the prior."""
    if isinstance(given, Tensor):
        batch = Batch(batch.modalities, given if batch.mask is None else given & batch.mask)
    elif given:
        batch = batch.only(given, model.columns)
    else:
        return model.prior().expand((len(batch),))
    q = model.fuse(model.experts(batch), batch.mask)  # for a mixture all components, so that no weight becomes large
    return model.variational_posterior.proposal(q)


def _mask(model: MultimodalVAE, batch: Batch, target: Sequence[str] | Tensor) -> Tensor:
    """A target as a mask over the model's modalities and elements, (B, M)."""
    if isinstance(target, Tensor):
        lacking = batch.mask is not None and bool((target & ~model.scorable(batch.mask)).any())
        require(
            not lacking,
            "a target's mask selects modalities that examples lack, or whose decoders see one that they lack: combine "
            "it with the batch's mask",
        )
        return target
    conditions = [name for n in target if n in model.modality for name in model.modality[n].given]
    for name in (*target, *conditions):
        known = name in batch.modalities
        # the name of a set means the elements that an example has
        complete = known and (
            batch.mask is None or model.modality[name].is_set or model.modality[name].present(batch.mask).all()
        )
        require(
            bool(complete),
            f"log p({','.join(target)}) needs {name} in every example: leave out those that lack it, or give a mask",
        )
    return batch.only(target, model.columns).mask


def log_marginal(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    target: Sequence[str],
    given: Sequence[str] | None = None,
    n_samples: int = 1000,
    at_once: int | None = None,
) -> Tensor:
    """Estimate log p(x_A) of one set of modalities: (B,), nats; see `importance_estimates`.

    Args:
        given: the modalities of the proposal, by default those of the target; () is the prior.
    """
    given = target if given is None else given
    return importance_estimates(model, inputs, [target], given, n_samples, at_once)[0].value


def joint_and_each(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """Estimate log p of all modalities together and of each alone.

    The estimates share samples of q(z|all modalities); log p of each modality is estimated from each q(z|x_m) too.

    Returns:
        {name: (B,)}, log-likelihoods in nats, and the effective numbers of samples.
    """
    names = model.modalities
    targets = [names, *((name,) for name in names)] if len(names) > 1 else [names]
    rows = {}
    for target, estimate in zip(targets, importance_estimates(model, batch, targets, names, n_samples), strict=True):
        rows |= estimate.named(f"log p({','.join(target)})")
    for source in names if len(names) > 1 else ():
        each = importance_estimates(model, batch, [(name,) for name in names], (source,), n_samples)
        for name, estimate in zip(names, each, strict=True):
            rows |= estimate.named(f"log p({name}), z from q(z|{source})")
    return rows


@torch.no_grad()
def weighted_joint(
    model: MultimodalVAE, inputs: Mapping[str, Tensor] | Batch, n_samples: int = 1000, at_once: int | None = None
) -> Tensor:
    """MMVAE's figure for log p(x_1, ..., x_M) in the paper: IWAE's tight bound over all components, (B,), nats.

    It keeps the model's weights lambda, so that it is not a log-likelihood unless all of them are 1.

    Args:
        n_samples: K, samples from each component.
        at_once: samples from each component to decode at once; by default the fastest number.
    """
    _check_samples(n_samples, at_once)
    batch = model.observe(inputs)
    size = at_once or max(1, model.decoded_at_once // (len(model.modalities) * len(batch)))
    sizes = [min(size, n_samples - start) for start in range(0, n_samples, size)]
    log_sums = [IwaeElbo(model, K).bound(batch).value + math.log(K) for K in sizes]
    return torch.stack(log_sums).logsumexp(dim=0) - math.log(n_samples)
