r"""Importance-sampling estimates of a Variational Homoencoder's log-likelihoods, in nats.

Each is the logarithm of a mean of S weights. In expectation it is a lower bound of the value that it approaches as S
grows (Burda et al. 2016, arXiv 1509.00519). Group sizes and KL factors never enter.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from common.errors import require
from common.estimators import Estimate, ImportanceWeights
from vhe.framework.distributions import Result
from vhe.framework.homoencoder import VHE

import torch
from torch import Tensor

ROWS_AT_ONCE = {"cpu": 100, "cuda": 4000}  # pairs of an example and a sample in a batch: the fastest sizes


@torch.no_grad()
def log_conditional(model: VHE, x: Tensor, given: Mapping[str, Tensor] | None = None, n_samples: int = 100) -> Tensor:
    r"""Estimate log p(x|D); with nothing given log p(x).

    .. math:: \log \frac1S \sum_s p(x|c_s, z_s) \frac{p(z_s|c_s)}{q(z_s|x, c_s)}, \quad c_s \sim q(c|D), \;
              z_s \sim q(z|x, c_s)

    c stands for the latent variables with given support sets; their posterior q(c|D) is part of the model. z stands for
    the other ones, which are inferred from x itself.

    Args:
        x: examples (B, ...).
        given: {latent: support sets (B, k, ...)}.
        n_samples: S.

    Returns:
        (B,), nats.

    Raises:
        InputError: a latent variable is unknown, or its encoder depends on one that is not given; or n_samples < 1.
    """
    given = given or {}
    _check(model, given, n_samples)
    n = len(x)

    def log_weight(rows: Tensor) -> Tensor:
        values, _ = model.encode(_select(given, rows % n))
        return _log_weight(model, x[rows % n], values)

    return _log_mean(_in_batches(log_weight, n_samples * n, x.device).view(n_samples, n))


@torch.no_grad()
def log_conditionals(model: VHE, x: Tensor, given: Mapping[str, Tensor], n_samples: int = 100) -> Tensor:
    """Estimate log p(x|D) of every example under every class; all examples share the draws of a class's variables.

    Args:
        x: examples (Q, ...).
        given: {latent: support sets (N, k, ...)}, one for each class.
        n_samples: S.

    Returns:
        (Q, N), nats.

    Raises:
        InputError: as in `log_conditional`, or nothing is given.
    """
    _check(model, given, n_samples)
    require(bool(given), f"give support sets of a latent variable: {', '.join(model.latents)}")
    n_examples, n_classes = len(x), len(next(iter(given.values())))
    batches = [model.encode(_select(given, rows % n_classes))[0] for rows in _batches(n_samples * n_classes, x.device)]
    values = {name: torch.cat([batch[name] for batch in batches]) for name in given}  # (S * N, ...)

    def log_weight(rows: Tensor) -> Tensor:  # rows count samples, examples and classes, the latter fastest
        sample, example, label = rows // (n_examples * n_classes), rows // n_classes % n_examples, rows % n_classes
        return _log_weight(model, x[example], _select(values, sample * n_classes + label))

    log_w = _in_batches(log_weight, n_samples * n_examples * n_classes, x.device)
    return _log_mean(log_w.view(n_samples, n_examples, n_classes))


@torch.no_grad()
def log_joint(
    model: VHE, sets: Tensor, shared: Mapping[str, int], n_samples: int = 100, mixture_size: int = 10, n_inner: int = 10
) -> Estimate:
    r"""Estimate log p(x_1, ..., x_n) of sets whose examples share latent variables c and each have others, z_i.

    .. math:: \log \frac1S \sum_s \frac{p(c_s)}{q(c_s)}
              \prod_i \frac1J \sum_j p(x_i|c_s, z_{ijs}) \frac{p(z_{ijs}|c_s)}{q(z_{ijs}|x_i, c_s)}

    Each c_s is drawn from q(c|D_s), where D_s is a new choice of k examples of the set. A single q(c|D_s) is narrow,
    since it sees only a part of the set. So q(c) is the mean of several q(c|D_s), and each contributes one sample;
    this bounds the weights (the balance heuristic of Veach & Guibas 1995).

    Args:
        sets: (B, n, ...).
        shared: {latent: k}, the variables c and the sizes of their support sets. The support sets of several variables
            overlap as far as possible.
        n_samples: S.
        mixture_size: the number of support sets in a mixture q(c). Each of them scores every sample of the mixture.
        n_inner: J. The errors of n images multiply, so that few samples of c with some of z each do better than many
            samples of c with one of z.

    Returns:
        an Estimate (B,).

    Raises:
        InputError: a latent variable is unknown, or its encoder or prior depends on one that is not shared; none is
            shared; k > n; or a number is not positive.
    """
    _check(model, shared, n_samples, priors=True)
    require(bool(shared), f"name the latent variables that a set shares: {', '.join(model.latents)}")
    b, n = sets.shape[:2]
    for name, k in shared.items():
        require(0 < k <= n, f"support sets of {name} cannot have {k} of {n} examples: give 1 to {n}")
    require(
        mixture_size > 0 and n_inner > 0,
        f"mixture_size and n_inner must be positive, not {mixture_size} and {n_inner}",
    )
    weights = ImportanceWeights(b, sets.device)
    for start in range(0, n_samples, mixture_size):
        s = min(mixture_size, n_samples - start)
        support_sets = _random_support_sets(sets, shared, s)
        values, _ = model.encode(support_sets)  # {latent: (s * B, ...)}
        log_q = _log_mixture(model, support_sets, values, s)
        log_likelihood = _log_likelihood(model, sets, values, s, n_inner)
        weights.add(log_likelihood + _log_prior(model, shared, values).view(s, b) - log_q)
    return weights.estimate()


def _random_support_sets(sets: Tensor, shared: Mapping[str, int], s: int) -> dict[str, Tensor]:
    """Draw s times k different examples of each set (B, n, ...): {latent: (s * B, k, ...)}."""
    b, n = sets.shape[:2]
    order = torch.rand(s, b, n, device=sets.device).argsort(dim=-1)
    members = (order + n * torch.arange(b, device=sets.device)[:, None]).flatten(0, 1)  # (s * B, n)
    examples = sets.flatten(0, 1)  # (B * n, ...)
    return {name: examples[members[:, :k]] for name, k in shared.items()}


def _log_mixture(model: VHE, support_sets: Mapping[str, Tensor], values: Mapping[str, Tensor], s: int) -> Tensor:
    """Return the log-density of each value under the mean of the s encoders of its set: (s, B), nats.

    Args:
        support_sets: {latent: (s * B, k, ...)}.
        values: {latent: (s * B, ...)}.
    """
    first = next(iter(support_sets.values()))
    b = len(first) // s

    def log_q(rows: Tensor) -> Tensor:  # rows count values, support sets and sets of examples, the latter fastest
        value, support_set = rows // (s * b) * b + rows % b, rows % (s * b)
        return _log_q(model.encode(_select(support_sets, support_set), _select(values, value))[1])

    log_q_each = _in_batches(log_q, s * s * b, first.device).view(s, s, b)
    return _log_mean(log_q_each.transpose(0, 1))


def _log_likelihood(model: VHE, sets: Tensor, values: Mapping[str, Tensor], s: int, n_inner: int) -> Tensor:
    """Estimate log p(x_1, ..., x_n|c) of the sets (B, n, ...) for s values of c each: (s, B), nats.

    Args:
        values: {latent: (s * B, ...)}.
        n_inner: the number of samples of the z of each example.
    """
    b, n = sets.shape[:2]
    examples = sets.flatten(0, 1)  # (B * n, ...)

    def log_weight(rows: Tensor) -> Tensor:  # rows count values of c, sets, examples and samples, the latter fastest
        example, value = rows % (b * n * n_inner) // n_inner, rows // (n * n_inner)
        return _log_weight(model, examples[example], _select(values, value))

    log_w = _in_batches(log_weight, s * b * n * n_inner, sets.device).view(s, b, n, n_inner)
    return _log_mean(log_w.movedim(-1, 0)).sum(dim=-1)


def _log_weight(model: VHE, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Return log p(x|c, z) p(z|c) / q(z|x, c) of examples (n, ...) given c, with one sample of z each: (n,), nats."""
    inferred = {name: x.unsqueeze(1) for name in model.latents if name not in values}
    values, posteriors = model.encode(inferred, values)
    log_p = model.p(model.observed, values, x).log_prob
    return log_p + _log_prior(model, inferred, values) - _log_q(posteriors)


def _log_q(posteriors: Mapping[str, Result]) -> Tensor | int:
    """Return log q, summed over the latent variables that were encoded: (n,), nats."""
    return sum(result.log_prob for result in posteriors.values())


def _log_prior(model: VHE, names: Iterable[str], values: Mapping[str, Tensor]) -> Tensor | int:
    """Return the sum of log p of some latent variables, (n,), nats."""
    return sum(model.p(name, values, values[name]).log_prob for name in names)


def _in_batches(f: Callable[[Tensor], Tensor], n: int, device: torch.device) -> Tensor:
    """Return f of the rows 0 to n - 1, (n, ...), computed in batches."""
    return torch.cat([f(rows) for rows in _batches(n, device)])


def _batches(n: int, device: torch.device) -> tuple[Tensor, ...]:
    return torch.arange(n, device=device).split(ROWS_AT_ONCE[device.type])


def _select(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: x[rows] for name, x in tensors.items()}


def _log_mean(x: Tensor) -> Tensor:
    """Return the logarithm of the mean, over the first dimension, of numbers given by their logarithms."""
    return x.logsumexp(dim=0) - math.log(len(x))


def _check(model: VHE, names: Iterable[str], n_samples: int, *, priors: bool = False) -> None:
    """Check that the names are latent variables and that those which they depend on are named too."""
    require(n_samples > 0, f"an estimate needs at least one importance sample, not {n_samples}")
    for name in names:
        require(name in model.latents, f"{name} is not a latent variable: the model has {', '.join(model.latents)}")
        needed = {*model.encoders[name].given, *(model.priors[name].given if priors else ())} - set(names)
        require(not needed, f"{name} depends on {', '.join(needed)}: give that too")
