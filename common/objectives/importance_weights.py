"""Importance weights of samples, and which samples have a gradient that is not lost in rounding."""

import torch
from torch import Tensor

ROWS = 64  # decoded with gradients in multiples of it: arrays of ever new sizes would leave gaps in the memory


def normalised(log_w: Tensor, share: Tensor, looser: bool) -> Tensor:
    """w divided by its sum over the samples: each component's own if looser, else all: (T, K, B).

    Args:
        log_w: (T, K, B), of K samples of each component.
        share: the components' weights in the mixture, (T, B).
    """
    if looser:
        return log_w.softmax(dim=1)
    return (log_w + share.log()[:, None]).flatten(0, 1).softmax(dim=0).view_as(log_w)


def changes_gradient(log_w: Tensor, share: Tensor, looser: bool) -> Tensor:
    """Which samples have a weight large enough to change the gradient in floating point, (T, K, B) bool.

    Args:
        log_w, share, looser: see `normalised`.
    """
    return normalised(log_w, share, looser) > torch.finfo(log_w.dtype).eps ** 2


def up_to_a_multiple(matters: Tensor, has_weight: Tensor) -> Tensor:
    """The samples that matter, filled up to a multiple of ROWS with others that have weight: (T, K, B) bool."""
    n = min(-(-int(matters.sum()) // ROWS) * ROWS, matters.numel())
    rows = (2 * matters.int() + has_weight).flatten().argsort(descending=True, stable=True)[:n]
    return torch.zeros_like(matters).flatten().index_fill(0, rows, True).view_as(matters)
