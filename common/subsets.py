"""Subsets of the modalities: rows of a bool matrix (T, M), one for each ELBO term that an objective sums.

In a term, the modalities marked True are given to the encoders and scored.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from common.data.batches import Columns, n_columns
from common.errors import require

import torch
from torch import Tensor

MAX_ENUMERATED = 10  # the most modalities to enumerate subsets of, and the most elements of a set to have a term each


def on_device(subsets: Tensor, device: torch.device) -> Tensor:
    """Subsets (T, M) on a device, see `constant`."""
    return constant(tuple(map(tuple, subsets.tolist())), torch.bool, device)


@lru_cache
@torch.inference_mode(False)
def constant(values: tuple[Any, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers as a tensor on a device. It is cached: a copy makes the GPU wait, and no CUDA graph can hold it."""
    return torch.tensor(values, dtype=dtype, device=device)


def joint_subset(n_modalities: int) -> Tensor:
    """The subset of all modalities, (1, M)."""
    return torch.ones(1, n_modalities, dtype=torch.bool)


def all_subsets(n_modalities: int) -> Tensor:
    """Every subset but the empty one, (2^M - 1, M).

    Raises:
        InputError: more than `MAX_ENUMERATED` modalities.
    """
    require(
        n_modalities <= MAX_ENUMERATED,
        f"a mixture over all subsets needs at most {MAX_ENUMERATED} modalities (got {n_modalities}): take moe or poe",
    )
    codes = torch.arange(1, 2**n_modalities)
    return (codes[:, None] >> torch.arange(n_modalities)) % 2 == 1


def named_subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Every subset of named modalities but the empty one, by size.

    Raises:
        InputError: more than `MAX_ENUMERATED` modalities.
    """
    n, largest = len(names), MAX_ENUMERATED
    require(n <= largest, f"figures of all subsets need at most {largest} modalities (got {n}): leave them out")
    return [subset for size in range(1, n + 1) for subset in combinations(names, size)]


def random_subsets(
    n_modalities: int, k: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """Draw k random subsets of 2 to M - 1 modalities, (k, M): first the size, uniformly, then a subset of that size.

    Costs O(k M log M): the 2^M subsets are never enumerated.

    Args:
        generator: draws them, on the device; None: the device's own.

    Raises:
        InputError: fewer than three modalities.
    """
    require(n_modalities > 2, f"random subsets need at least 3 modalities (got {n_modalities})")
    sizes = torch.randint(2, n_modalities, (k, 1), generator=generator, device=device)
    ranks = torch.rand(k, n_modalities, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    return ranks < sizes


def single_modalities(columns: Mapping[str, Columns]) -> dict[str, Tensor]:
    """The subsets of one modality, {name: (M,)}.

    A set with at most `MAX_ENUMERATED` elements has a subset for each element, named "x[0]", "x[1]", ... A larger one
    has a single subset.
    """
    terms, m = {}, n_columns(columns)
    for name, column in columns.items():
        elements = [slice(i, i + 1) for i in range(column.start, column.stop)]
        if len(elements) > MAX_ENUMERATED:
            elements = [column.slice]
        for i, element in enumerate(elements):
            term = f"{name}[{i}]" if len(elements) > 1 else name
            terms[term] = torch.zeros(m, dtype=torch.bool)
            terms[term][element] = True
    return terms


def mvae_subsets(columns: Mapping[str, Columns]) -> dict[str, Tensor]:
    """MVAE's subsets that are not random: each modality, and all of them, {name: (M,)} (Wu & Goodman 2018, eq. 5)."""
    singles = single_modalities(columns)
    return (singles if len(singles) > 1 else {}) | {"joint": joint_subset(n_columns(columns))[0]}
