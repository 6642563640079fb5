"""What values a modality can have, checked where they enter; the line of an error names the modality."""

from common.errors import require
from common.likelihoods import BernoulliLikelihood, BinaryLikelihood, CategoricalLikelihood, LocationScaleLikelihood

import torch
from torch import Tensor, nn


def check_values(
    name: str, x: Tensor, likelihood: nn.Module, is_set: bool, present: Tensor | None, dtype: torch.dtype | None
) -> None:
    """Raise InputError for values (B, ...) of a type, dimensions or range that the likelihood has no density of.

    Args:
        is_set: whether they are sets, (B, n, ...).
        present: where they are present, (B,) or (B, n) bool; None: everywhere.
        dtype: of the model's parameters; None if it has none.
    """
    check_type(name, x, likelihood, dtype)
    check_dims(name, x, likelihood, is_set)
    check_range(name, x, likelihood, present)


def check_type(
    name: str, x: Tensor, likelihood: nn.Module | None, dtype: torch.dtype | None, in_examples: bool = False
) -> None:
    """Raise InputError for a type of values that the likelihood, or a model with parameters of a type, cannot take.

    Args:
        likelihood: None if the model does not score the values.
        dtype: of the model's parameters; None if it has none.
        in_examples: whether the values are those of `Examples`, whose batches have uint8 as floats in [0, 1].
    """
    floats, is_bytes = x.is_floating_point(), x.dtype in (torch.uint8, torch.bool)
    is_class = isinstance(likelihood, CategoricalLikelihood | BinaryLikelihood)
    no_class = f"{name} is {x.dtype}, which is no class: convert it with .long(), classes count from 0"
    require(not is_class or not (floats or is_bytes), no_class)
    is_number = isinstance(likelihood, BernoulliLikelihood | LocationScaleLikelihood)
    scaled = in_examples and x.dtype == torch.uint8
    pixels = x.dim() > 2 if likelihood is None else getattr(likelihood, "takes_bytes", False)
    no_pixels = f"{name} is {x.dtype}, which would become pixels in [0, 1], and its likelihood has no takes_bytes"
    require(not scaled or is_class or pixels, f"{no_pixels}: convert it with .to({dtype}), pixels with / 255 too")
    kinds, convert = ("floats or uint8", "") if pixels and in_examples else ("floats", ", pixels of uint8 with / 255")
    no_number = f"{name} is {x.dtype}, and its likelihood takes {kinds}: convert it with .to({dtype}){convert}"
    require(not is_number or floats or scaled, no_number)
    require(
        not floats or dtype in (None, x.dtype),
        f"{name} is {x.dtype}, and the model {dtype}: convert it with .to({dtype})",
    )


def check_dims(name: str, x: Tensor, likelihood: nn.Module, is_set: bool) -> None:
    """Raise InputError for values (B, ...), or (B, n, ...) of a set, with another number of dimensions than an event.

    A likelihood would give several numbers for each example, and an encoder of classes several posteriors.
    """
    event_dims, n = getattr(likelihood, "event_dims", None), x.dim() - 1 - is_set
    takes = f"its likelihood takes {event_dims} dimensions for each {'element' if is_set else 'example'}"
    one_hot = isinstance(likelihood, CategoricalLikelihood) and n == event_dims + 1
    remedy = "give classes, x.argmax(-1) of one-hots" if one_hot else "reshape them"
    given = f"{name} has values of shape {tuple(x.shape)}, and {takes}: {remedy}"
    require(event_dims in (None, n), f"{given}, or give the likelihood event_dims={n}")


def check_range(name: str, x: Tensor, likelihood: nn.Module, present: Tensor | None) -> None:
    """Raise InputError for values (B, ...) that have no density, where they are present, (B,) or (B, n).

    These are infinity, and values outside [0, 1] under a Bernoulli.
    """
    if not x.is_floating_point():
        return
    is_bernoulli = isinstance(likelihood, BernoulliLikelihood)
    wrong = outside_unit_interval(x) if is_bernoulli else x.isinf()
    if present is not None:
        wrong = wrong.reshape(*present.shape, -1).any(dim=-1) & present
    what = "values outside [0, 1], and its likelihood takes no others" if is_bernoulli else "infinity"
    remedy = "scale them, those of uint8 with / 255" if is_bernoulli else "NaN says that a value is missing"
    require(not wrong.any(), f"{name} has {what}: {remedy}")


def outside_unit_interval(x: Tensor) -> Tensor:
    """Which values (...) a Bernoulli likelihood has no density of, (...) bool."""
    return (x < 0) | (x > 1)
