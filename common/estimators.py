r"""Importance-sampling estimates of marginal log-likelihoods, in nats. Weights lambda and beta never enter.

.. math:: \log p(x_A) \approx \log \frac1K \sum_k \frac{p(z_k) \prod_{m \in A} p(x_m|z_k)}{q(z_k)}, \quad z_k \sim q

with q = q(z|x_G) for what is `given`, or the prior for nothing (Burda et al. 2016, arXiv 1509.00519, eq. 8). In
expectation a lower bound on log p(x_A), which it approaches with K.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import Batch, observe
from common.errors import require
from common.models import MultimodalVAE

# Samples times examples decoded at once, so that memory does not grow with K: few enough for a CPU's cache to hold the
# activations, enough to keep a GPU busy.
CHUNK = {"cpu": 500, "cuda": 20_000}


class Estimate(NamedTuple):
    """value: log p, (B,), nats; ess: effective number of samples (sum w)^2 / sum w^2, (B,), in [1, K]."""

    value: Tensor
    ess: Tensor


@torch.no_grad()
def importance_estimates(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    targets: Sequence[Sequence[str]],
    given: Sequence[str],
    n_samples: int = 1000,
) -> list[Estimate]:
    """Estimate log p of several sets of modalities with the same samples, so that differences are consistent.

    Args:
        inputs: {name: (B, ...)}.
        targets: the sets A of modalities whose joint log-likelihood is wanted.
        given: the modalities G of the proposal q(z|x_G). None of them: the prior, whose samples the examples share.
        n_samples: K.

    Returns:
        an Estimate for each target.

    Raises:
        InputError: no samples, or a target that an example lacks.
    """
    strings = [names for names in (given, *targets) if isinstance(names, str)]
    require(not strings, f"name modalities in tuples: {', '.join(f'({name!r},), not {name!r}' for name in strings)}")
    require(n_samples > 0, f"an estimate needs at least one importance sample, not {n_samples}")
    batch = observe(inputs, model.modalities)
    scored = [name for name in model.modalities if any(name in target for target in targets)]
    for name in {name for target in targets for name in target}:
        lacking = name not in batch.modalities or (
            batch.mask is not None and not batch.mask[:, model.modalities.index(name)].all()
        )
        require(not lacking, f"log p of {name} needs it in every example")
    prior = model.prior()
    q = model.posterior(batch, given) if given else prior.expand((1,))
    size = max(1, CHUNK[q.mean.device.type] // len(batch))
    # running logsumexp of the weights and of their squares, for each target, (A, B)
    first = torch.full((len(targets), len(batch)), -torch.inf, dtype=q.mean.dtype, device=q.mean.device)
    second = first.clone()
    for start in range(0, n_samples, size):
        z = q.sample((min(size, n_samples - start),))  # (k, B, D)
        log_ratio = prior.log_prob(z) - q.log_prob(z)  # (k, B)
        p = model.decode(z, scored, batch.modalities)
        log_p = {name: p[name].log_prob(batch.modalities[name]) for name in scored}  # (k, B)
        log_w = torch.stack([log_ratio + sum(log_p[name] for name in target) for target in targets])  # (A, k, B)
        first = torch.logaddexp(first, log_w.logsumexp(dim=1))
        second = torch.logaddexp(second, (2 * log_w).logsumexp(dim=1))
    values, ess = first - math.log(n_samples), (2 * first - second).exp()
    return [Estimate(*estimate) for estimate in zip(values, ess, strict=True)]


def log_marginal(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    target: Sequence[str],
    given: Sequence[str] | None = None,
    n_samples: int = 1000,
) -> Tensor:
    """Estimate log p(x_A) of one set of modalities, (B,), nats; see `importance_estimates`.

    Args:
        given: the modalities of the proposal; by default the target's own. () takes the prior.
    """
    given = target if given is None else given
    return importance_estimates(model, inputs, [target], given, n_samples)[0].value
