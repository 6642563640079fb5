r"""Importance-sampling estimates of a Variational Homoencoder's log-likelihoods, in nats.

Each is the logarithm of a mean of weights, and in expectation a lower bound on what it approaches with the number of
samples S (Burda et al. 2016, arXiv 1509.00519). Group sizes and KL factors never enter.
"""

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from common.errors import require
from common.estimators import Estimate, Weights
from vhe.homoencoder import VHE

AT_ONCE = {"cpu": 100, "cuda": 4000}  # examples in a batch: as many as are fast


@torch.no_grad()
def log_conditional(
    model: VHE, x: Tensor, given: Mapping[str, Tensor] | None = None, n_samples: int = 100, at_once: int | None = None
) -> Tensor:
    r"""Estimate log p(x|D), of nothing given log p(x).

    .. math:: \log \frac1S \sum_s p(x|c_s, z_s) \frac{p(z_s|c_s)}{q(z_s|x, c_s)}, \quad c_s \sim q(c|D), \;
              z_s \sim q(z|x, c_s)

    c stands for the latent variables that support sets are given of, whose posterior q(c|D) is part of the model; z for
    the others, which are inferred from x itself.

    Args:
        x: examples (B, ...).
        given: {latent: support sets (B, k, ...)}.
        n_samples: S.
        at_once: how many of the S B pairs make a batch; by default as many as are fast.

    Returns:
        (B,), nats.

    Raises:
        InputError: an unknown latent, one whose encoder depends on another that is not given, no samples.
    """
    given = given or {}
    _check(model, given, n_samples)
    n = len(x)

    def log_w(rows: Tensor) -> Tensor:
        values, _ = encode(model, {name: d[rows % n] for name, d in given.items()}, {})
        return _own(model, x[rows % n], values)

    return _log_mean(_in_batches(log_w, n_samples * n, at_once, x.device).view(n_samples, n))


@torch.no_grad()
def log_conditionals(
    model: VHE, x: Tensor, given: Mapping[str, Tensor], n_samples: int = 100, at_once: int | None = None
) -> Tensor:
    """Estimate log p(x|D) of every example under every class; examples share the draws of a class's variables.

    Args:
        x: examples (Q, ...).
        given: {latent: support sets (N, k, ...)}, one of each class.
        n_samples, at_once: as of `log_conditional`.

    Returns:
        (Q, N), nats.

    Raises:
        InputError: as `log_conditional`; nothing is given.
    """
    _check(model, given, n_samples)
    require(bool(given), f"give support sets of a latent variable: {', '.join(model.latents)}")
    q, n = len(x), len(next(iter(given.values())))
    drawn = [
        encode(model, {name: d[rows % n] for name, d in given.items()}, {})[0]
        for rows in _batches(n_samples * n, at_once, x.device)
    ]
    values = {name: torch.cat([part[name] for part in drawn]) for name in given}  # (S * N, ...)

    def log_w(rows: Tensor) -> Tensor:
        of_class = rows // (q * n) * n + rows % n
        return _own(model, x[rows % (q * n) // n], {name: v[of_class] for name, v in values.items()})

    return _log_mean(_in_batches(log_w, n_samples * q * n, at_once, x.device).view(n_samples, q, n))


@torch.no_grad()
def log_joint(
    model: VHE,
    sets: Tensor,
    shared: Mapping[str, int],
    n_samples: int = 100,
    mixed: int = 10,
    n_own: int = 10,
    at_once: int | None = None,
) -> Estimate:
    r"""Estimate log p(x_1, ..., x_n) of sets whose examples share latent variables c and have others, z_i, each.

    .. math:: \log \frac1S \sum_s \frac{p(c_s)}{q(c_s)}
              \prod_i \frac1J \sum_j p(x_i|c_s, z_{ijs}) \frac{p(z_{ijs}|c_s)}{q(z_{ijs}|x_i, c_s)}

    c_s is drawn from q(c|D_s), each time of other k examples D_s of the set. One q(c|D_s) is narrow and sees part of
    the set only; so q(c) is the mean of several q(c|D_s), that draw a sample each, which bounds the weights (the
    balance heuristic of Veach & Guibas 1995).

    Args:
        sets: (B, n, ...).
        shared: {latent: k}, the variables c and how many examples their support sets have. Those of several variables
            overlap as far as they can.
        n_samples: S.
        mixed: how many support sets a mixture has; each of the S draws is scored by so many encoders.
        n_own: J; since n images multiply their errors, few draws of c with some of z each do better than the reverse.
        at_once: how many examples make a batch; by default as many as are fast.

    Returns:
        an Estimate of the B sets.

    Raises:
        InputError: an unknown latent, or none; one whose encoder or prior depends on another that is not shared; k > n;
            no samples.
    """
    _check(model, shared, n_samples, priors=True)
    require(bool(shared), f"name latent variables that a set shares: {', '.join(model.latents)}")
    b, n = sets.shape[:2]
    for name, k in shared.items():
        require(0 < k <= n, f"support sets of {name} of {k} examples cannot be drawn of sets of {n}")
    require(mixed > 0 and n_own > 0, f"mixed and n_own must be positive, not {mixed} and {n_own}")
    examples = sets.flatten(0, 1)  # (B * n, ...)
    weights = Weights()
    for start in range(0, n_samples, mixed):
        s = min(mixed, n_samples - start)
        order = torch.rand(s, b, n, device=sets.device).argsort(dim=-1)
        members = (order + n * torch.arange(b, device=sets.device)[:, None]).flatten(0, 1)  # (s * B, n)
        d = {name: examples[members[:, :k]] for name, k in shared.items()}  # (s * B, k, ...)
        values, _ = encode(model, d, {})

        def log_q(rows: Tensor, s: int = s, d: Mapping = d, values: Mapping = values) -> Tensor:
            draw, of_set = rows // (s * b) * b + rows % b, rows % (s * b)
            return encode(model, _take(d, of_set), _take(values, draw))[1]

        def log_p(rows: Tensor, values: Mapping = values) -> Tensor:
            return _own(model, examples[rows % (b * n * n_own) // n_own], _take(values, rows // (n * n_own)))

        mixture = _log_mean(_in_batches(log_q, s * s * b, at_once, sets.device).view(s, s, b).transpose(0, 1))  # (s, B)
        log_w = _in_batches(log_p, s * b * n * n_own, at_once, sets.device).view(s, b, n, n_own)
        likelihood = _log_mean(log_w.movedim(-1, 0)).sum(dim=-1)  # (s, B)
        weights.add(likelihood + _log_prior(model, shared, values).view(s, b) - mixture)
    return weights.estimate()


def encode(
    model: VHE, inputs: Mapping[str, Tensor], values: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor | int]:
    """Draw the latent variables that support sets (n, k, ...) are of, but for known ones, which are scored.

    Returns:
        all values; log q (n,), summed over those variables.
    """
    values, log_q = dict(values), 0
    for name in model.latents:
        if name in inputs:
            result = model.call(model.encoder[name], model.encoders[name], values, values.get(name), inputs[name])
            values[name] = result.value
            log_q = log_q + result.log_prob
    return values, log_q


def _own(model: VHE, x: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """log p(x|c, z) p(z|c) / q(z|x, c) of examples (n, ...), c given and one z drawn: (n,)."""
    own = {name: x.unsqueeze(1) for name in model.latents if name not in values}
    values, log_q = encode(model, own, values)
    log_p = model.call(model.decoder, model.likelihood, values, x).log_prob
    return log_p + _log_prior(model, own, values) - log_q


def _log_prior(model: VHE, names: Iterable[str], values: Mapping[str, Tensor]) -> Tensor | int:
    return sum(model.call(model.prior[name], model.priors[name], values, values[name]).log_prob for name in names)


def _in_batches(f: Callable[[Tensor], Tensor], n: int, at_once: int | None, device: torch.device) -> Tensor:
    """f of the rows 0 to n, some at once."""
    return torch.cat([f(rows) for rows in _batches(n, at_once, device)])


def _batches(n: int, at_once: int | None, device: torch.device) -> tuple[Tensor, ...]:
    return torch.arange(n, device=device).split(at_once or AT_ONCE[device.type])


def _take(tensors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: x[rows] for name, x in tensors.items()}


def _log_mean(x: Tensor) -> Tensor:
    return x.logsumexp(dim=0) - math.log(len(x))


def _check(model: VHE, names: Iterable[str], n_samples: int, *, priors: bool = False) -> None:
    require(n_samples > 0, f"an estimate needs at least one importance sample, not {n_samples}")
    for name in names:
        require(name in model.latents, f"{name} is no latent variable: there are {', '.join(model.latents)}")
        needed = {*model.encoders[name].given, *(model.priors[name].given if priors else ())} - set(names)
        require(not needed, f"{name} depends on {', '.join(needed)}: give that too")
