"""Examples in a tensor, or in a list if they are anything else, such as strings or sequences of different lengths."""

from collections.abc import Sequence
from itertools import accumulate
from numbers import Number
from typing import Any

import numpy as np
import torch
from torch import Tensor

Examples = Tensor | Sequence[Any]  # (N, ...), or N objects of any kind


def stacked_if_alike(data: Examples) -> Examples:
    """Return numbers, or tensors, arrays or lists of numbers of one shape, as one tensor; anything else as it is."""
    if isinstance(data, Tensor) or not all(
        isinstance(x, Tensor | np.ndarray | np.generic | Number | list) for x in data
    ):
        return data
    try:
        tensors = [torch.as_tensor(x) for x in data]
    except (RuntimeError, ValueError, TypeError):  # arrays or lists of anything but numbers, or of unequal lengths
        return data
    return torch.stack(tensors) if len({x.shape for x in tensors}) == 1 else data


def select(examples: Examples, rows: Tensor) -> Examples:
    """Return the examples of the rows (n,)."""
    return examples.index_select(0, rows) if isinstance(examples, Tensor) else [examples[i] for i in rows.tolist()]


def in_sets(examples: Examples, sizes: Sequence[int]) -> list[Examples]:
    """Split B times sum(sizes) examples into a batch of sets for each size k: (B, k, ...), or B lists of k objects."""
    n = sum(sizes)
    if isinstance(examples, Tensor):
        return list(examples.unflatten(0, (-1, n)).split(list(sizes), dim=1))
    of_each = [examples[start : start + n] for start in range(0, len(examples), n)]
    places = [slice(stop - size, stop) for size, stop in zip(sizes, accumulate(sizes), strict=True)]
    return [[x[place] for x in of_each] for place in places]
