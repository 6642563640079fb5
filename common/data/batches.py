"""Data in memory: presence masks, batches, pairing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.data.shards import Shards
from common.errors import require


class Columns(NamedTuple):
    """The columns of a mask (..., M) that a modality has: one, or n if it is a set of n like elements."""

    start: int
    n_elements: int | None = None

    @property
    def stop(self) -> int:
        return self.start + (self.n_elements or 1)

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)

    def of(self, mask: Tensor) -> Tensor:
        """These columns of a mask (..., M): (...), for a set (..., n)."""
        return mask[..., self.start] if self.n_elements is None else mask[..., self.slice]


def columns_of(sizes: Mapping[str, int | None]) -> dict[str, Columns]:
    """The columns of modalities, in their order.

    Args:
        sizes: {name: number of elements of a set, None for a plain modality}.
    """
    columns, start = {}, 0
    for name, n in sizes.items():
        columns[name] = Columns(start, n)
        start = columns[name].stop
    return columns


def n_columns(columns: Mapping[str, Columns]) -> int:
    """M, the number of columns of the mask."""
    return max(column.stop for column in columns.values())


@dataclass
class Batch:
    """Examples of some modalities, and which example has which modality.

    modalities: {name: (B, ...)}; values where the mask is False have no meaning.
    mask: (B, M) bool over all of the model's modalities, or None if every example has all of them. A set of n like
        elements, (B, n, ...), has n of the M columns.
    together: (B,) bool, examples that count jointly only, since other rows hold their modalities; None for none.
    every_row: run the networks on every row, also where the modality is absent, so that all batches take the same
        operations, as a CUDA graph needs it.
    """

    modalities: dict[str, Tensor]
    mask: Tensor | None = None
    together: Tensor | None = None
    every_row: bool = False

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    def __getitem__(self, rows: slice) -> "Batch":
        x = {name: x[rows] for name, x in self.modalities.items()}
        return Batch(x, *(None if x is None else x[rows] for x in (self.mask, self.together)), self.every_row)

    def only(self, given: Sequence[str], columns: Mapping[str, Columns]) -> "Batch":
        """The same examples with only the given modalities.

        Args:
            columns: those of all of the model's modalities, by name.

        Raises:
            InputError: a given modality is not in the batch.
        """
        require(not isinstance(given, str), f"name modalities in a tuple: ({given!r},), not {given!r}")
        x = next(iter(self.modalities.values()))
        absent = [name for name in given if name not in self.modalities]
        require(not absent, f"the inputs lack the modality {', '.join(absent)}")
        chosen = torch.zeros(len(x), n_columns(columns), dtype=torch.bool, device=x.device)
        for name in given:
            chosen[:, columns[name].slice] = True
        mask = chosen if self.mask is None else self.mask & chosen
        return Batch({name: self.modalities[name] for name in given}, mask, self.together, self.every_row)


def observe(inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Batch, columns: Mapping[str, Columns]) -> Batch:
    """Turn inputs into a Batch: the one place where absence becomes a mask.

    A modality is absent if it is left out of the inputs, and for an example if it, or an element of a set, holds a NaN
    (floats) or a negative number (integers). The caller's tensors are left as they are; a Batch keeps its mask.

    Args:
        inputs: {name: (B, ...)}; tensors in a list are modalities "0", "1", ...; a single tensor is modality "0".
        columns: the mask's columns of each of the model's modalities.

    Raises:
        InputError: an unknown modality, none, modalities of different lengths, or a set of another size.
    """
    if isinstance(inputs, Batch):
        return _complete(inputs, columns)
    if isinstance(inputs, Tensor):
        inputs = [inputs]
    if isinstance(inputs, list | tuple):
        inputs = {str(i): x for i, x in enumerate(inputs)}
    _check(inputs, columns)
    first = next(iter(inputs.values()))
    filled, mask = {}, torch.zeros(len(first), n_columns(columns), dtype=torch.bool, device=first.device)  # (B, M)
    for name in (name for name in columns if name in inputs):
        x = inputs[name]
        missing = x.isnan() if x.is_floating_point() else x < 0
        filled[name] = x.masked_fill(missing, 0) if missing.any() else x
        present = columns[name].of(mask)  # (B,), for a set (B, n)
        n = present.shape[-1]
        require(
            x.shape[: present.dim()] == present.shape,
            f"{name} is a set of {n} elements, (B, {n}, ...): not {tuple(x.shape)}",
        )
        present.copy_(~missing.reshape(*present.shape, -1).any(dim=-1))
    return Batch(filled, None if mask.all() else mask)


def _complete(batch: Batch, columns: Mapping[str, Columns]) -> Batch:
    """A batch whose mask says which modalities it lacks, with zeros for the absent elements of sets."""
    if not all(name in batch.modalities for name in columns):
        batch = batch.only(tuple(batch.modalities), columns)
    if batch.mask is None:
        return batch
    filled = {}
    for name, x in batch.modalities.items():
        if columns[name].n_elements is not None:  # networks on sets see absent elements too
            present = columns[name].of(batch.mask)  # (B, n)
            filled[name] = x.masked_fill(~present.view(*present.shape, *[1] * (x.dim() - 2)), 0)
    return replace(batch, modalities=batch.modalities | filled) if filled else batch


def _check(inputs: Mapping[str, Tensor], columns: Mapping[str, Columns]) -> None:
    unknown = [name for name in inputs if name not in columns]
    require(not unknown, f"unknown modality {', '.join(unknown)}: the model has {', '.join(columns)}")
    require(len(inputs) > 0, f"no modality given: the model has {', '.join(columns)}")
    sizes = {name: len(x) for name, x in inputs.items()}
    require(len(set(sizes.values())) == 1, f"the modalities differ in their number of examples: {sizes}")
    require(0 not in sizes.values(), "the batch is empty")


class Examples:
    """A split: compact tensors (uint8 images, int64 labels), batched by indexing.

    Args:
        modalities: {name: (N, ...)}, in memory or mapped into it; N may differ between modalities that rows pair.
        rows: {name: (R,)}, which of the N each example takes; all of them once, in order, by default. (R, G) for
            examples of G rows each.
        mask: (R, M) or (R, G, M) bool where these lack modalities, else None.
        together: (R,) or (R, G) bool, see Batch.
        derived: {name: (of which, function)}, modalities that are made of another one's batch, (B, ...) float, as they
            are needed.
    """

    def __init__(
        self,
        modalities: dict[str, Tensor | Shards],
        rows: Mapping[str, Tensor] | None = None,
        mask: Tensor | None = None,
        together: Tensor | None = None,
        derived: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] | None = None,
    ) -> None:
        self.modalities = modalities
        self.rows = rows
        self.mask = mask
        self.together = together
        self.derived = derived or {}

    def __len__(self) -> int:
        return len(next(iter((self.rows or self.modalities).values())))

    @property
    def device(self) -> torch.device:
        return next(iter(self.modalities.values())).device

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in self.modalities.values())

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """A batch of these examples, all their rows; uint8 becomes float in [0, 1]."""
        rows = self.rows and {name: rows[index].flatten() for name, rows in self.rows.items()}
        values = {name: x[rows[name] if rows else index] for name, x in self.modalities.items()}
        values = {name: x.float() / 255 if x.dtype == torch.uint8 else x for name, x in values.items()}
        values |= {name: make(values[source]) for name, (source, make) in self.derived.items()}
        mask = None if self.mask is None else self.mask[index].flatten(0, -2)
        return Batch(values, mask, None if self.together is None else self.together[index].flatten())

    def to(self, device: torch.device) -> "Examples":
        modalities, rows = (x and {name: x.to(device) for name, x in x.items()} for x in (self.modalities, self.rows))
        masks = [None if x is None else x.to(device) for x in (self.mask, self.together)]
        return Examples(modalities, rows, *masks, self.derived)

    def only(self, names: Sequence[str]) -> "Examples":
        """The same examples with some of their modalities; for examples that have all."""
        return Examples(*(x and {name: x[name] for name in names} for x in (self.modalities, self.rows)))

    def take(self, index: slice | Tensor) -> "Examples":
        """These examples alone; of shards nothing is read."""
        masks = [None if x is None else x[index] for x in (self.mask, self.together)]
        if self.rows is None:
            values = {n: x.take(index) if isinstance(x, Shards) else x[index] for n, x in self.modalities.items()}
            return Examples(values, None, *masks, self.derived)
        return Examples(self.modalities, {name: x[index] for name, x in self.rows.items()}, *masks, self.derived)

    def apart(self, index: Tensor) -> "Examples":
        """These examples alone, with nothing beside their own rows in memory; for examples on the CPU."""
        masks = [None if x is None else x[index] for x in (self.mask, self.together)]
        if self.rows is None:
            return Examples({name: _rows(x, index) for name, x in self.modalities.items()}, None, *masks, self.derived)
        rows = {name: x[index] for name, x in self.rows.items()}
        values = {name: _rows(x, rows[name].flatten()) for name, x in self.modalities.items()}
        own = {name: torch.arange(x.numel()).view_as(x) for name, x in rows.items()}
        return Examples(values, own, *masks, self.derived)

    def batches(self, batch_size: int, order: Tensor | None = None) -> Iterator[Batch]:
        """The rows of an order, or all as they stand, in batches; the last one may be smaller."""
        for start in range(0, len(self) if order is None else len(order), batch_size):
            rows = slice(start, start + batch_size)
            yield self[rows] if order is None else self[order[rows]]


def _rows(x: Tensor | Shards, index: Tensor) -> Tensor:
    """By numpy, which leaves a step that computes beside it its threads."""
    return x[index] if isinstance(x, Shards) else torch.from_numpy(np.take(x.numpy(), index.numpy(), axis=0))


def hold_out(examples: Examples, n: int | None) -> tuple[Examples, Examples | None]:
    """Split off the last n examples for validation, the last sixth by default (10,000 of MNIST); none for n = 0."""
    n = len(examples) // 6 if n is None else n
    require(n < len(examples), f"--valid {n} leaves no training example: there are {len(examples)}")
    return examples.take(slice(len(examples) - n)), examples.take(slice(len(examples) - n, None)) if n else None


def draw_paired(examples: Examples, fraction: float, seed: int) -> Tensor:
    """Which examples keep their pairing, a random fraction of them: indices."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return order[: round(fraction * len(examples))]


def unpair(examples: Examples, fraction: float, seed: int, unimodal: bool = True) -> Examples:
    """Keep the pairing of a random fraction of the examples (weak supervision, Wu & Goodman 2018).

    Unpaired examples contribute their unimodal ELBOs only. The objective sums expectations, of ELBO(all) over the
    pairs and of ELBO({m}) over all examples, paired or not. So each of the N examples becomes M + 1 rows: one of the
    pairs, which are repeated in turn and count jointly only, and one of each modality alone. A batch of them has the
    terms of as many whole examples.

    Args:
        unimodal: whether the objective has terms of one modality (`MultimodalObjective.unimodal`): if not, only what is
            unpaired counts alone, and the rows of what is paired are left without any modality.

    Returns:
        N examples of M + 1 rows, M if there is no pair; nothing is copied. If all are paired, the examples themselves.
    """
    n, m = len(examples), len(examples.modalities) + len(examples.derived)
    paired = draw_paired(examples, fraction, seed)
    if len(paired) == n:
        return examples
    rows = torch.arange(n)[:, None].expand(n, m)
    mask = torch.eye(m, dtype=torch.bool).repeat(n, 1, 1)
    if not unimodal:
        mask[paired] = False
    if len(paired) > 0:
        rows = torch.cat([paired.repeat(-(-n // len(paired)))[:n, None], rows], dim=1)  # (N, M + 1)
        mask = torch.cat([torch.ones(n, 1, m, dtype=torch.bool), mask], dim=1)  # (N, M + 1, M)
    of = {name: rows if examples.rows is None else examples.rows[name][rows] for name in examples.modalities}
    together = mask.all(dim=-1)
    if examples.mask is not None:
        mask &= examples.mask[rows]
    return Examples(examples.modalities, of, mask, together, examples.derived)
