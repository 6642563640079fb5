r"""Importance-sampling estimates of marginal log-likelihoods, in nats.

The weights lambda and beta do not enter them; only `weighted_joint` keeps lambda.

.. math:: \log p(x_A) \approx \log \frac1K \sum_k \frac{p(z_k) \prod_{m \in A} p(x_m|z_k)}{q(z_k)}, \quad z_k \sim q

(Burda et al. 2016, arXiv 1509.00519, eq. 8.) The proposal q is the prior if no modality is `given`. Else it is a
defensive mixture of the prior and r, the posterior q(z|x_G) of the given modalities G, or the proposal that
energy-based and JNF's posteriors have:

.. math:: q(z) = (1 - a) \, r(z) + a \, p(z), \qquad a = 1/10

(Hesterberg 1995, Technometrics 37(2), 185-194; Owen & Zhou 2000, JASA 95(449), 135-143.) Weights are then at most
p(x_A|z) / a, also where r misses values of z that explain x_A. Every tenth sample is the prior's, from a random one of
the first ten on; with K < 10 all samples come from r. The expectation of the estimate is a lower bound on log p(x_A),
which it approaches as K grows. No two examples share samples, so that the standard error of a mean over examples counts
the noise of the estimates too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from common.data.batches import Batch, Examples, check_known
from common.encoders_decoders import zero_where_absent
from common.errors import require, require_names
from common.execution import processes
from common.execution.score import samples_at_once
from common.likelihoods import log_prob
from common.multimodal_vae import MultimodalVAE
from common.objectives.importance import IwaeElbo

import torch
from torch import Tensor
from torch.distributions import Distribution

MIN_SAMPLES = 50  # of an example, before its sampling may end
EVERY = 10  # one sample in this many is drawn from the prior
QUALITIES = ("effective samples", "variance of log-weights")  # of an estimate, as the tables name them


class Estimate(NamedTuple):
    """An estimate for B examples.

    value: log p, (B,), nats.
    ess: the effective number of samples (sum w)^2 / sum w^2, (B,), in [1, K].
    variance: the variance of the log-weights of r's samples with r alone as proposal, (B,), nats^2; it is 0 if r is the
        exact posterior.
    stderr: the standard error of `value` by the delta method, sqrt(1 / ess - 1 / K), (B,), nats; NaN for K = 1.
    """

    value: Tensor
    ess: Tensor
    variance: Tensor
    stderr: Tensor

    def named(self, name: str) -> dict[str, Tensor]:
        """{name: value}, and under "QUALITY, name" how well the proposal fits, for each of QUALITIES; each (B,)."""
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
    processes.seed_each_process()
    return processes.map_rows(len(examples), batch_size, lambda rows: estimate(examples[rows]))


class ImportanceWeights:
    """Accumulates the importance weights of B examples, a few samples at a time."""

    def __init__(self, n_examples: int, device: torch.device) -> None:
        def filled(value: float) -> Tensor:
            # float64: a sum of -20,000 nats in float32 loses weights a thousand times smaller
            return torch.full((n_examples,), value, dtype=torch.float64, device=device)

        self.n, self.n_varied = filled(0), filled(0)  # samples of each example; those of the mean and the squares
        self.mean, self.squares = filled(0), filled(0)  # of the log-weights; the sum of their squared deviations
        self.log_sum, self.log_sum_of_squares = filled(-torch.inf), filled(-torch.inf)

    def add(self, log_w: Tensor, rows: Tensor | slice = slice(None), varied: Tensor | None = None) -> None:
        """Add the log-weights of more samples, (..., R), nats, of R examples; by default of all.

        Args:
            varied: the log-weights whose variance is estimated, (..., R); by default `log_w`.
        """
        self.dtype, log_w = log_w.dtype, log_w.flatten(0, -2).double()
        varied = log_w if varied is None else varied.flatten(0, -2).double()
        if len(varied):
            k, n = len(varied), self.n_varied[rows]
            deviation = varied.mean(dim=0) - self.mean[rows]
            self.squares[rows] += (varied - varied.mean(dim=0)).square().sum(dim=0)
            self.squares[rows] += deviation.square() * (n * k / (n + k))  # Chan et al. 1979
            self.mean[rows] += deviation * (k / (n + k))
            self.n_varied[rows] += k
        self.log_sum[rows] = torch.logaddexp(self.log_sum[rows], log_w.logsumexp(dim=0))
        self.log_sum_of_squares[rows] = torch.logaddexp(self.log_sum_of_squares[rows], (2 * log_w).logsumexp(dim=0))
        self.n[rows] += len(log_w)

    def estimate(self) -> Estimate:
        """The logarithm of the mean weight, and how far to trust it."""
        value, log_ess = self.log_sum - self.n.log(), 2 * self.log_sum - self.log_sum_of_squares
        found = (value, log_ess.exp(), self.squares / self.n_varied, self.standard_error())
        return Estimate(*(x.to(self.dtype) for x in found))

    def standard_error(self) -> Tensor:
        """The standard error of the logarithm of the mean weight by the delta method, (B,), nats; NaN for one."""
        log_ess = 2 * self.log_sum - self.log_sum_of_squares
        error = ((-log_ess).exp() - 1 / self.n).clamp(min=0).sqrt()
        return torch.where(self.n > 1, error, torch.nan)


@torch.no_grad()
def importance_estimates(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    targets: Sequence[Sequence[str] | Tensor],
    given: Sequence[str] | Tensor,
    n_samples: int = 1000,
    at_once: int | None = None,
    tolerance: float | None = None,
) -> list[Estimate]:
    r"""Estimate log p of several sets of modalities with the same samples, so that differences are consistent.

    With a tolerance, an example's sampling ends when the standard errors :math:`\sqrt{1 / ESS - 1 / K}` of its
    estimates after K samples, :math:`K \geq` `MIN_SAMPLES`, are all below it. An estimate is too low by about half of
    its squared standard error in expectation, and by more where weights look even until a large one is drawn.

    Args:
        inputs: {name: (B, ...)}.
        targets: the sets A of modalities to estimate log p(x_A) of, by names or by a mask (B, M) bool, which can also
            select single elements of a set modality. The name of a set modality means the elements an example has.
        given: the modalities G of the proposal q(z|x_G), by names or by a mask (B, M) bool, which can also select
            single elements of a set. Empty: the prior.
        n_samples: K, with a tolerance the largest one.
        at_once: samples to decode at once; by default the fastest number.
        tolerance: nats; by default all samples are drawn.

    Returns:
        an Estimate for each target.

    Raises:
        InputError: no samples, a mask that is not bool of shape (B, M), or an example lacks a target.
    """
    _check_samples(n_samples, at_once)
    require_names(given, *targets)
    batch = model.observe(inputs)
    targets = [_mask(model, batch, target) for target in targets]  # each (B, M)
    scored = [name for name, columns in model.columns.items() if any(x[..., columns.slice].any() for x in targets)]
    rows, drawn = torch.arange(len(batch), device=model.device), 0  # rows: the R examples that are still sampled
    proposal, prior = _proposal(model, batch, given), model.prior()
    r, weights = proposal(rows), [ImportanceWeights(len(batch), model.device) for _ in targets]
    fastest, values = samples_at_once(model), Batch(batch.modalities, observed=batch.observed)
    if batch.mask is not None:  # absent values may have no density
        has = {name: batch.mask[..., model.columns[name].slice].any(dim=1) for name in values.modalities}
        values.modalities = {name: zero_where_absent(x, has[name]) for name, x in values.modalities.items()}
    has_given = bool(given.any()) if isinstance(given, Tensor) else len(given) > 0
    # a prior of one latent broadcasts to any number of them, and cannot be sampled
    defended = has_given and n_samples >= EVERY and model.latent_dim == r.event_shape[-1]
    first = int(torch.randint(EVERY, ())) if defended else 0
    while drawn < n_samples and len(rows):
        k = min(at_once or max(1, fastest // len(rows)), n_samples - drawn)
        n = (first + drawn + k) // EVERY - (first + drawn) // EVERY if defended else 0
        z = _drawn(r, prior, k, n)  # (k, R, D)
        log_p = _log_likelihoods(model, z, scored, values[rows])
        log_prior, log_r = prior.log_prob(z), r.log_prob(z)  # (k, R)
        log_q = torch.logaddexp(log_r + math.log(1 - 1 / EVERY), log_prior - math.log(EVERY)) if defended else log_r
        for target, target_weights in zip(targets, weights, strict=True):
            selected = target[rows]  # (R, M)
            terms = (
                torch.where(selected[..., model.columns[name].slice], x, 0).sum(dim=-1) for name, x in log_p.items()
            )
            log_joint, some = log_prior + sum(terms), selected.any(dim=1)
            # log p of an empty target, a set without any of its elements, is 0 without noise
            log_w, log_w_of_r = (torch.where(some, log_joint - x, 0) for x in (log_q, log_r))
            target_weights.add(log_w, rows, log_w_of_r[: k - n])
        drawn += k
        if tolerance is not None and drawn >= MIN_SAMPLES:
            error, before = torch.stack([x.standard_error() for x in weights]).amax(dim=0), len(rows)  # (B,)
            rows = (~(error < tolerance)).nonzero().squeeze(1)  # those without a positive weight, of error NaN, go on
            if 0 < len(rows) < before:
                r = proposal(rows)
    return [target_weights.estimate() for target_weights in weights]


def _drawn(r: Distribution, prior: Distribution, k: int, n: int) -> Tensor:
    """k samples of each of R examples, the last n from the prior, the others from r: (k, R, D)."""
    z = r.sample((k,))
    return torch.cat([z[n:], prior.sample((n, z.shape[1]))]) if n else z


def _log_likelihoods(model: MultimodalVAE, z: Tensor, names: Sequence[str], values: Batch) -> dict[str, Tensor]:
    """log p(x_m|z) of the named modalities at z (k, R, D): {name: (k, R, n)}, nats, n = 1 unless it is a set."""
    log_p = {}
    for name, p in model.decode(z, names, values.modalities).items():
        of_elements = log_prob(name, p, values.modalities[name], leading=2, observed=values.observed.get(name))
        log_p[name] = of_elements.reshape(*z.shape[:2], -1)
    return log_p


def _check_samples(n_samples: int, at_once: int | None) -> None:
    """Raise InputError for numbers of samples that are not positive."""
    require(n_samples > 0, f"an estimate needs at least one importance sample, not {n_samples}")
    require(at_once is None or at_once > 0, f"an estimate decodes at least one sample at once, not {at_once}")


def _proposal(model: MultimodalVAE, batch: Batch, given: Sequence[str] | Tensor) -> Callable[[Tensor], Distribution]:
    """The distributions to draw from, q(z|x_G) or its proposal, for no modality the prior.

    Returns:
        rows (R,) -> their distribution, batch shape (R,); the encoders have run already.
    """
    if isinstance(given, Tensor):
        given = model.observe(replace(batch, mask=given)).mask  # refuses what is no mask
        batch = replace(batch, mask=given if batch.mask is None else given & batch.mask)
    elif given:
        batch = batch.only(given, model.columns)
    else:
        return lambda rows: model.prior().expand((len(rows),))
    params, mask = model.experts(batch), batch.mask
    # for a mixture all components, so that no weight becomes large
    return lambda rows: model.fuse(tuple(p[:, rows] for p in params), None if mask is None else mask[rows]).proposal


def _mask(model: MultimodalVAE, batch: Batch, target: Sequence[str] | Tensor) -> Tensor:
    """A target as a mask over the model's modalities and elements, (B, M)."""
    if isinstance(target, Tensor):
        target = model.observe(replace(batch, mask=target)).mask
        lacking = batch.mask is not None and bool((target & ~model.scorable(batch.mask)).any())
        selects = "a target's mask selects modalities that an example lacks, or whose decoder sees one that it lacks"
        require(not lacking, f"{selects}: give target & model.scorable(batch.mask)")
        return target
    check_known(target, model.modalities)
    conditions = [condition for name in target for condition in model.modality[name].given]
    for name in (*target, *conditions):
        modality = model.modality[name]
        complete = batch.mask is None or modality.is_set or bool(modality.present(batch.mask).all())
        require(
            name in batch.modalities and complete,
            f"log p({','.join(target)}) needs {name} in every example: leave out those that lack it, with "
            "only_complete(modelled(None, examples, model)), or name what each example has by a mask (B, M) as target",
        )
    return batch.only(target, model.columns).mask


def log_marginal(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    target: Sequence[str],
    given: Sequence[str] | None = None,
    n_samples: int = 1000,
    at_once: int | None = None,
    tolerance: float | None = None,
) -> Tensor:
    """Estimate log p(x_A) of one set of modalities: (B,), nats; see `importance_estimates`.

    Args:
        given: the modalities of the proposal, by default those of the target; () is the prior.
    """
    given = target if given is None else given
    return importance_estimates(model, inputs, [target], given, n_samples, at_once, tolerance)[0].value


def joint_and_each(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """Estimate log p of all modalities together and of each alone.

    The estimates share samples of q(z|all modalities); log p of each modality is estimated from each q(z|x_m) too.

    Args:
        sampling: n_samples and tolerance of `importance_estimates`.

    Returns:
        {name: (B,)}, log-likelihoods in nats, and the effective numbers of samples.
    """
    names = model.modalities
    targets = [names, *((name,) for name in names)] if len(names) > 1 else [names]
    rows = {}
    for target, estimate in zip(targets, importance_estimates(model, batch, targets, names, **sampling), strict=True):
        rows |= estimate.named(f"log p({','.join(target)})")
    for source in names if len(names) > 1 else ():
        each = importance_estimates(model, batch, [(name,) for name in names], (source,), **sampling)
        for name, estimate in zip(names, each, strict=True):
            rows |= estimate.named(f"log p({name}), z from q(z|{source})")
    return rows


@torch.no_grad()
def weighted_joint(
    model: MultimodalVAE, inputs: Mapping[str, Tensor] | Batch, n_samples: int = 1000, at_once: int = 100
) -> Tensor:
    """MMVAE's figure for log p(x_1, ..., x_M) in the paper: IWAE's tight bound over all components, (B,), nats.

    It keeps the model's weights lambda, so that it is not a log-likelihood unless all of them are 1.

    Args:
        n_samples: K, samples from each component.
        at_once: samples from each component to draw at once; they are decoded a few at a time where that is faster.
    """
    _check_samples(n_samples, at_once)
    batch = model.observe(inputs)
    sizes = [min(at_once, n_samples - start) for start in range(0, n_samples, at_once)]
    log_sums = [IwaeElbo(model, K).bound(batch).value + math.log(K) for K in sizes]
    return torch.stack(log_sums).logsumexp(dim=0) - math.log(n_samples)
