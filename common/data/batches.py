"""Batches with presence masks, and the examples that they are made of."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.errors import InputError, require, require_names

import numpy as np
import torch
from torch import Tensor


@dataclass
class Columns:
    """A modality's columns of a mask (..., M): one, or n if the modality is a set of n like elements.

    stop: the column after the last one; slice: all of them.
    """

    start: int
    n_elements: int | None = None
    stop: int = field(init=False)
    slice: slice = field(init=False)

    def __post_init__(self) -> None:
        self.stop = self.start + (self.n_elements or 1)
        self.slice = slice(self.start, self.stop)

    def of(self, mask: Tensor) -> Tensor:
        """Select these columns of a mask (..., M): (...), or (..., n) for a set."""
        return mask[..., self.start] if self.n_elements is None else mask[..., self.slice]


def columns_of(sizes: Mapping[str, int | None]) -> dict[str, Columns]:
    """Assign mask columns to modalities, in their order.

    Args:
        sizes: {name: number of elements of a set modality, None for a plain one}.
    """
    columns, start = {}, 0
    for name, n in sizes.items():
        columns[name] = Columns(start, n)
        start = columns[name].stop
    return columns


def n_columns(columns: Mapping[str, Columns]) -> int:
    """M, the number of columns of a mask."""
    return max(column.stop for column in columns.values())


@dataclass
class Batch:
    """B examples, and a mask of the modalities that each of them has.

    modalities: {name: (B, ...)}; values where the mask is False have no meaning.
    mask: (B, M) bool over all of the model's modalities, or None if every example has all of them. A set of n like
        elements, (B, n, ...), has n of the M columns.
    joint_only: (B,) bool, True for rows that count only in joint terms. Other rows hold their modalities alone. None if
        there are no such rows.
    every_row: run the networks on every row, even where the modality is absent, so that all batches take the same
        operations, as a CUDA graph requires.
    observed: {name: (B, ...) bool} of the modalities that lack some of their values, True where a value is there; a
        value that is not there is 0. Other modalities have all their values. None: nobody has looked (see `observe`).
    """

    modalities: dict[str, Tensor]
    mask: Tensor | None = None
    joint_only: Tensor | None = None
    every_row: bool = False
    observed: Mapping[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.modalities.values())))

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        modalities, observed = (
            x and {name: x[rows] for name, x in x.items()} for x in (self.modalities, self.observed)
        )
        mask, joint_only = (None if x is None else x[rows] for x in (self.mask, self.joint_only))
        return Batch(modalities, mask, joint_only, self.every_row, observed)

    def observed_values(self, name: str) -> Tensor:
        """Which values of a modality are there, (B, ...) bool."""
        x = self.modalities[name]
        return self.observed[name] if name in (self.observed or ()) else torch.ones_like(x, dtype=torch.bool)

    def only(self, given: Sequence[str], columns: Mapping[str, Columns]) -> "Batch":
        """The same examples with only the given modalities.

        Args:
            given: names of modalities, at least one.
            columns: the mask columns of all of the model's modalities, by name.

        Raises:
            InputError: no modality is given, or one that the batch lacks.
        """
        require(len(given) > 0, f"no modality is given: name at least one of {', '.join(self.modalities)}")
        require_names(given)
        absent = [name for name in given if name not in self.modalities]
        require(not absent, f"the inputs lack the modality {', '.join(absent)}: they have {', '.join(self.modalities)}")
        x = self.modalities[given[0]]
        selected = torch.zeros(n_columns(columns), dtype=torch.bool, device=x.device)
        for name in given:
            selected[columns[name].slice] = True
        mask = selected.repeat(len(x), 1) if self.mask is None else self.mask & selected
        return replace(self, modalities={name: self.modalities[name] for name in given}, mask=mask)


def is_missing(x: Tensor) -> Tensor:
    """Which values of a modality are missing, (...) bool: NaN, or negative integers."""
    return x.isnan() if x.is_floating_point() else x < 0


def observe(inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor | Batch, columns: Mapping[str, Columns]) -> Batch:
    """Turn inputs into a Batch. This is the one place where absence becomes a mask.

    A modality is absent from all examples if the inputs leave it out. An example lacks a modality, or an element of a
    set, if all its values are missing (`is_missing`). If only some are, it has the modality, and `Batch.observed` says
    which values are there. The caller's tensors are not changed. What the mask of a Batch leaves out stays absent.

    Args:
        inputs: {name: (B, ...)}; tensors in a list are modalities "0", "1", ...; a single tensor is modality "0".
        columns: the mask columns of all of the model's modalities, by name.

    Raises:
        InputError: no modality, an unknown one, values that are not tensors, modalities of different lengths, or a set
            of another size.
    """
    batch = inputs if isinstance(inputs, Batch) else Batch(_by_name(inputs, columns))
    check_known(batch.modalities, columns)
    if batch.mask is not None:
        n, shape = n_columns(columns), tuple(batch.mask.shape)
        fits = batch.mask.dtype == torch.bool and shape == (len(batch), n)
        require(fits, f"a mask must be bool of shape ({len(batch)}, {n}) (got {batch.mask.dtype} of {shape})")
    if batch.observed is None:
        batch = _without_missing(batch, columns)
    if not all(name in batch.modalities for name in columns):
        batch = batch.only(tuple(batch.modalities), columns)
    if batch.mask is None:
        return batch
    filled = dict(batch.modalities)
    for name, x in batch.modalities.items():
        if columns[name].n_elements is not None:  # a set's network sees absent elements too
            present = columns[name].of(batch.mask)  # (B, n)
            filled[name] = x.masked_fill(~present.view(*present.shape, *[1] * (x.dim() - 2)), 0)
    return replace(batch, modalities=filled)


def _by_name(inputs: Mapping[str, Tensor] | Sequence[Tensor] | Tensor, columns: Mapping[str, Columns]) -> dict:
    """The inputs of `observe` as {name: (B, ...)}, in the model's order; errors as there."""
    if isinstance(inputs, Tensor):
        inputs = [inputs]
    if isinstance(inputs, list | tuple):
        inputs = {str(i): x for i, x in enumerate(inputs)}
    kind = type(inputs).__name__
    require(isinstance(inputs, Mapping), f"give a batch or tensors by name, not {kind}: examples[:] makes one")
    require(len(inputs) > 0, f"no modality given: give at least one of {', '.join(columns)}")
    check_known(inputs, columns)
    _check_tensors(inputs)
    scalars = [name for name, x in inputs.items() if x.dim() == 0]
    require(not scalars, f"modalities need a dimension of examples, (B, ...); these have none: {', '.join(scalars)}")
    require(_n_rows(inputs) > 0, "the batch is empty: give at least one example")
    for name, x in inputs.items():
        n = columns[name].n_elements
        needed = f"{name} is a set of {n} elements and needs the shape (B, {n}, ...) (got {tuple(x.shape)})"
        require(n is None or x.shape[1:2] == (n,), needed)
    return {name: inputs[name] for name in columns if name in inputs}


def _without_missing(batch: Batch, columns: Mapping[str, Columns]) -> Batch:
    """Put 0 in the place of missing values, and say where: in the mask, and in `observed`."""
    modalities, observed, mask = dict(batch.modalities), {}, batch.mask
    for name, x in batch.modalities.items():
        missing = is_missing(x)
        if not missing.any():
            continue
        modalities[name] = x.masked_fill(missing, 0)
        mask = missing.new_ones(len(batch), n_columns(columns)) if mask is None else mask.clone()  # (B, M)
        present = columns[name].of(mask)  # (B,), for a set (B, n)
        values = ~missing.reshape(*present.shape, -1)
        present &= values.any(dim=-1)
        if not values[present].all():
            observed[name] = ~missing
    if batch.mask is None and mask is not None and mask.all():
        mask = None
    return replace(batch, modalities=modalities, mask=mask, observed=observed)


def check_known(names: Iterable[str], columns: Collection[str]) -> None:
    """Raise InputError for modalities that the model does not have."""
    unknown = [name for name in names if name not in columns]
    if unknown:
        raise InputError(f"unknown modality {', '.join(unknown)}: the model has {', '.join(columns)}")


def _check_tensors(values: Mapping[str, object]) -> None:
    arrays = {name: type(x).__name__ for name, x in values.items() if not isinstance(x, Tensor)}
    arrays |= {name: "nested" for name, x in values.items() if name not in arrays and x.is_nested}
    remedy = "torch.as_tensor(x) makes one of rows of equal length"
    require(not arrays, f"modalities must be tensors, these are not: {arrays}; {remedy}")


def _n_rows(values: Mapping[str, Tensor]) -> int:
    """The number of rows of all modalities; InputError if they differ."""
    sizes = {name: len(x) for name, x in values.items()}
    require(len(set(sizes.values())) <= 1, f"all modalities need the same number of examples (got {sizes})")
    return next(iter(sizes.values()), 0)


@dataclass(eq=False, repr=False)
class Examples:
    """A split of a dataset: compact tensors (uint8 images, int64 labels), batched by indexing.

    modalities: {name: (N, ...)}, in memory or memory-mapped; N may differ between modalities that `rows` pairs.
    rows: {name: (R,)}, the row of the N that each of R examples takes; (R, G) for examples of G rows each. By default
        example i is row i of every modality.
    mask: (R, M) or (R, G, M) bool, False where examples lack modalities; None if they have all. Its columns are the
        model's modalities, in the order of its encoders.
    joint_only: (R,) or (R, G) bool, see Batch.
    derived: {name: (source, function)}, modalities that are computed from the source modality's batch, (B, ...) float,
        whenever a batch is made. One with its source's name replaces it.
    incomplete: the modalities that lack some of their values (`is_missing`) in examples that have the modality; None:
        nobody has looked, and `observe` looks at each batch. `common.model_data.modelled` looks at all examples.

    Raises:
        InputError: modalities that are no tensors or of different lengths, or a mask that is not bool or does not fit.
    """

    modalities: dict[str, Tensor]
    rows: Mapping[str, Tensor] | None = None
    mask: Tensor | None = None
    joint_only: Tensor | None = None
    derived: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = field(default_factory=dict)
    incomplete: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check_tensors(self.modalities)
        n = _n_rows(self.rows or self.modalities)
        if self.mask is not None:
            kind = self.mask.dtype if isinstance(self.mask, Tensor) else type(self.mask).__name__
            require(kind == torch.bool, f"a mask must be a tensor of bool, not {kind}")
            require(len(self.mask) == n, f"a mask needs a row for each of {n:,} examples, not {len(self.mask):,}")

    def __len__(self) -> int:
        return len(next(iter((self.rows or self.modalities).values())))

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.modalities.values())).device

    @property
    def nbytes(self) -> int:
        """Bytes of the modalities' tensors."""
        return sum(x.nbytes for x in self.modalities.values())

    def __getitem__(self, index: slice | Tensor) -> Batch:
        """A batch of all rows of the indexed examples; uint8 becomes float in [0, 1]."""
        rows = self.rows and {name: rows[index].flatten() for name, rows in self.rows.items()}
        values = {name: x[rows[name] if rows else index] for name, x in self.modalities.items()}
        values = {name: x.float() / 255 if x.dtype == torch.uint8 else x for name, x in values.items()}
        values |= {name: make(values[source]) for name, (source, make) in self.derived.items()}
        mask = None if self.mask is None else self.mask[index].flatten(0, -2)
        joint_only = None if self.joint_only is None else self.joint_only[index].flatten()
        if self.incomplete is None:
            return Batch(values, mask, joint_only)
        observed = {name: ~is_missing(values[name]) for name in self.incomplete if name in values}
        values |= {name: values[name].masked_fill(~there, 0) for name, there in observed.items()}
        return Batch(values, mask, joint_only, observed=observed)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Yield the examples in batches; the last may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]

    def to(self, device: torch.device) -> "Examples":
        """The same examples on a device."""
        return self._with(lambda x: x.to(device), "modalities", "rows", "mask", "joint_only")

    def only(self, names: Sequence[str]) -> "Examples":
        """The same examples without modalities that are not named, such as labels; itself if there are none.

        Raises:
            InputError: they have a mask, with columns for all modalities, or a named one is derived from another that
                is not named.
        """
        require_names(names)
        if {*self.modalities, *self.derived} <= set(names):
            return self
        require(self.mask is None, "examples with a mask keep all modalities: select modalities before masking")
        kept = [name for name in names if name in self.modalities]
        derived = {name: made for name, made in self.derived.items() if {name, made[0]} <= set(names)}
        lost = [name for name in self.derived if name in names and name not in (*kept, *derived)]
        require(not lost, f"{', '.join(lost)} is derived: also name {', '.join(self.derived[n][0] for n in lost)}")
        modalities, rows = (x and {name: x[name] for name in kept} for x in (self.modalities, self.rows))
        return replace(self, modalities=modalities, rows=rows, derived=derived)

    def take(self, index: slice | Tensor) -> "Examples":
        """Only the indexed examples; a slice reads nothing of mapped files."""
        return self._with(lambda x: x[index], "rows" if self.rows else "modalities", "mask", "joint_only")

    def extract(self, index: Tensor) -> "Examples":
        """Only the indexed examples, with copies of just the rows they take; they have to be on the CPU."""
        if self.rows is None:
            return self._with(lambda x: _copied(x, index), "modalities", "mask", "joint_only")
        part = self.take(index)
        values = {name: _copied(x, part.rows[name].flatten()) for name, x in self.modalities.items()}
        rows = {name: torch.arange(x.numel()).view_as(x) for name, x in part.rows.items()}
        return replace(part, modalities=values, rows=rows)

    def _with(self, change: Callable[[Tensor], Tensor], *fields: str) -> "Examples":
        """The same examples with a change of the tensors in some fields."""

        def changed(held: Tensor | Mapping[str, Tensor] | None) -> Tensor | dict[str, Tensor] | None:
            if isinstance(held, Mapping):
                return {name: change(x) for name, x in held.items()}
            return held if held is None else change(held)

        return replace(self, **{field: changed(getattr(self, field)) for field in fields})


def _copied(x: Tensor, index: Tensor) -> Tensor:
    """Copy the indexed rows with numpy: unlike torch it takes no threads from the training step that runs meanwhile."""
    return torch.from_numpy(np.take(x.numpy(), index.numpy(), axis=0))
