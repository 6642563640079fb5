"""Examples in groups, and support sets that are drawn from the groups at random."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from numbers import Number
from typing import Any, NamedTuple

from common.errors import require

import numpy as np
import torch
from torch import Tensor

Examples = Tensor | Sequence[Any]  # (N, ...), or N objects of any kind
DRAWN_AT_ONCE = 10_000  # examples whose support sets a loader draws together: a single batch takes nearly as long


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


class Transform(NamedTuple):
    """Versions of each example: the data contain it once for each of the args.

    f: (examples (n, ...), one of the args) -> (n, ...), or a list of n objects -> n objects; it must return the same at
        each call.
    args: the second argument of f, for each version.
    share_labels: the latent variables whose groups contain all versions of their examples, and are larger by the factor
        len(args). For any other latent variable, each version of a group is a group by itself.
    """

    f: Callable[[Examples, Any], Examples]
    args: Sequence[Any]
    share_labels: Sequence[str] = ()

    def apply(self, x: Examples, version: Tensor) -> Examples:
        """Return each of the n examples in its version (n,), an index of `args`."""
        rows_of = [(version == i).nonzero().squeeze(1) for i in range(len(self.args))]
        made = [(rows, self.f(select(x, rows), arg)) for rows, arg in zip(rows_of, self.args, strict=True) if len(rows)]
        order = torch.cat([rows for rows, _ in made]).argsort()
        if isinstance(x, Tensor):
            return torch.cat([y for _, y in made])[order]
        return select([example for _, y in made for example in y], order)


@dataclass
class Batch:
    """A batch of examples with their support sets.

    target: the examples, (B, ...), or a list of B objects if the data are not a tensor.
    inputs: {latent: support sets (B, k, ...), or B lists of k objects}.
    sizes: {latent: the size of each example's group, (B,) float}.
    """

    target: Examples
    inputs: dict[str, Examples]
    sizes: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.target)


class Groups:
    """The groups that equal labels make, G of N examples.

    Attributes:
        names: the label of each group, (G,), a NumPy array.
        group: the group of each example, (N,).
        count: the number of examples in each group, (G,).
        members: the examples sorted by group, (N,).
        start: where each group begins in `members`, (G,).
        rank: the place of each example within its group, (N,): members[start[group[i]] + rank[i]] == i.
    """

    def __init__(self, labels: np.ndarray, device: torch.device) -> None:
        self.names, group, count = np.unique(labels, return_inverse=True, return_counts=True)
        self.group, self.count = (torch.from_numpy(x).to(device) for x in (group, count))
        self.start = self.count.cumsum(0) - self.count
        self.members = self.group.argsort(stable=True)
        self.rank = torch.empty_like(self.members)
        self.rank[self.members] = torch.arange(len(group), device=device) - self.start[self.group[self.members]]


class SupportSets:
    """Examples by index, each with a support set for each latent variable, drawn from the example's group.

    A support set holds k different examples of the group, in a random order; all such sets are equally likely. The
    support sets of a batch are drawn together, on the data's device.

    Args:
        data: examples (N, ...), or a list of N of any kind. Numbers, and tensors or arrays of one shape, make a tensor;
            others, such as strings or sequences of different lengths, stay as they are, on the CPU.
        labels: {latent: N labels}; examples with equal labels are a group.
        k_shot: {latent: k}.
        transforms: versions of the examples.
        exclude_target: whether to leave an example, in its version, out of its own support sets. Latent variables whose
            groups are single examples are exempt. The objective is then not strictly a bound, since the support sets
            depend on the example.
        generator: of the random draws, on the data's device; torch's global one by default.

    Raises:
        InputError: labels or k_shot do not fit the data, or a group is too small for its support sets.
    """

    mask, incomplete = None, ()  # every example is complete

    def __init__(
        self,
        data: Examples,
        labels: Mapping[str, Any],
        k_shot: Mapping[str, int],
        transforms: Sequence[Transform] = (),
        exclude_target: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        for name, by_latent in {"labels": labels, "k_shot": k_shot}.items():
            given = type(by_latent).__name__
            require(hasattr(by_latent, "keys"), f"{name} must be {{latent: ...}}, one for each, not a {given}")
        self.data = stacked_if_alike(data)
        self.labels, self.k_shot, self.transforms = labels, dict(k_shot), tuple(transforms)
        self.exclude_target, self.generator = exclude_target, generator
        require(len(self.data) > 0, "data is empty: give at least one example")
        require(
            set(labels) == set(k_shot),
            f"labels are given for {', '.join(labels)} and k_shot for {', '.join(k_shot)}: "
            "both need the same latent variables",
        )
        for transform in self.transforms:
            unknown = ", ".join(name for name in transform.share_labels if name not in labels)
            require(not unknown, f"share_labels of a transform names {unknown}: the labels are {', '.join(labels)}")
            require(len(transform.args) > 0, "a transform has no args: give one for each version")
        self.groups: dict[str, Groups] = {}
        self.sizes: dict[str, Tensor] = {}  # {latent: the size of each example's group, (N,)}
        self.excluded: dict[str, bool] = {}  # {latent: whether its support sets leave the target out}
        for name, values in labels.items():
            self._group(name, values)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def device(self) -> torch.device:
        """The device of the data, on which support sets are drawn."""
        return self.data.device if isinstance(self.data, Tensor) else torch.device("cpu")

    def to(self, device: torch.device) -> "SupportSets":
        """Return the same examples on a device; on another one, draws come from that device's global generator.

        Examples that are not a tensor stay where they are.
        """
        if device == self.device or not isinstance(self.data, Tensor):
            return self
        return SupportSets(self.data.to(device), self.labels, self.k_shot, self.transforms, self.exclude_target)

    def __getitem__(self, index: Tensor) -> Batch:
        """Return the examples of an index (B,), each in a random version, with new support sets."""
        return self.take(*self.draw(index))

    def draw(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Draw versions and support sets for the examples of an index (B,).

        Returns:
            the rows of the data (B, 1 + sum of k), the example itself first and then its support sets; their versions
            by transform, each of the same shape.
        """
        draws = {"size": (len(index), 1), "device": self.device, "generator": self.generator}
        target_versions = [torch.randint(len(transform.args), **draws) for transform in self.transforms]
        rows, versions = [index[:, None]], [target_versions]
        for name in self.k_shot:
            set_rows, set_versions = self._draw(name, index, target_versions)
            rows.append(set_rows)
            versions.append(set_versions)
        return torch.cat(rows, dim=1), [torch.cat(columns, dim=1) for columns in zip(*versions, strict=True)]

    def take(self, rows: Tensor, versions: Sequence[Tensor]) -> Batch:
        """Return the batch of the rows and versions that `draw` returned."""
        x = select(self.data, rows.flatten())
        for transform, version in zip(self.transforms, versions, strict=True):
            x = transform.apply(x, version.flatten())
        sizes = {name: group_size.index_select(0, rows[:, 0]) for name, group_size in self.sizes.items()}
        target, *inputs = in_sets(x, [1, *self.k_shot.values()])
        target = target.squeeze(1) if isinstance(target, Tensor) else [x for (x,) in target]
        return Batch(target, dict(zip(self.k_shot, inputs, strict=True)), sizes)

    def _group(self, name: str, labels: Any) -> None:  # noqa: ANN401 (whatever NumPy takes)
        """Group the examples by the labels of a latent variable; InputError unless all groups are large enough."""
        values = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
        n, k = len(self.data), self.k_shot[name]
        require(values.shape == (n,), f"labels of {name} has the shape {values.shape}: give {n}, one for each example")
        require(isinstance(k, int) and k > 0, f"k_shot of {name} must be a positive whole number, not {k!r}")
        groups = Groups(values, self.device)
        sizes = groups.count * prod(self._shared_versions(name))
        self.groups[name] = groups
        self.sizes[name] = sizes[groups.group].float()
        self.excluded[name] = self.exclude_target and bool(sizes.max() > 1)
        smallest = int(sizes.argmin())
        size, needed = int(sizes[smallest]), k + self.excluded[name]
        require(
            size >= needed,
            f"the group {groups.names[smallest]} of {name} has {size} example{'s' * (size != 1)}: k_shot {k}"
            f"{', besides the target,' * self.excluded[name]} needs {needed}",
        )

    def _shared_versions(self, name: str) -> list[int]:
        """Return, for each transform, the number of versions of an example that a group of a latent variable holds."""
        return [len(t.args) if name in t.share_labels else 1 for t in self.transforms]

    def _draw(self, name: str, index: Tensor, target_versions: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Draw the support sets of a latent variable.

        The places in a group count its pairs of a member and a combination of versions, as numbers of mixed radix
        whose last digit is the version of the last transform.

        Args:
            index: (B,).
            target_versions: the version of each example by transform, (B, 1) each.

        Returns:
            the rows of the data, (B, k); their versions by transform, (B, k) each.
        """
        k, groups, shared_versions = self.k_shot[name], self.groups[name], self._shared_versions(name)
        target_place = groups.rank[index]
        for n, version in zip(shared_versions, target_versions, strict=True):
            target_place = target_place * n + (version[:, 0] if n > 1 else 0)
        group = groups.group[index]
        n_places = groups.count[group] * prod(shared_versions)
        places = self._distinct(n_places - int(self.excluded[name]), k)
        if self.excluded[name]:
            places = places + (places >= target_place[:, None])
        versions = []
        for n, version in zip(reversed(shared_versions), reversed(target_versions), strict=True):
            versions.append(places % n if n > 1 else version.expand(-1, k))
            places = places // n if n > 1 else places
        return groups.members[groups.start[group][:, None] + places], versions[::-1]

    def _distinct(self, n: Tensor, k: int) -> Tensor:
        """Draw k different whole numbers below each n (B,), in a random order: (B, k).

        Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance").
        """
        drawn = n.new_empty(len(n), 0)
        for last in range(-k, 0):
            new = (self._rand(len(n)) * (n + last + 1)).long()
            taken = (drawn == new[:, None]).any(dim=1)
            drawn = torch.cat([drawn, torch.where(taken, n + last, new)[:, None]], dim=1)
        return drawn.gather(1, self._rand(len(n), k).argsort(dim=1)) if k > 1 else drawn

    def _rand(self, *shape: int) -> Tensor:
        # float64, since float32 has only 2^24 different values
        return torch.rand(shape, dtype=torch.float64, device=self.device, generator=self.generator)


class DataLoader:
    """Passes over the data in a random order, in batches with support sets; the last batch may be smaller.

    Args, raises: as `SupportSets`, whose other arguments are `options`; and batch_size, of examples.
    """

    def __init__(
        self, data: Examples, labels: Mapping[str, Any], k_shot: Mapping[str, int], batch_size: int, **options: object
    ) -> None:
        require(batch_size > 0, f"batch_size must be positive, not {batch_size}")
        self.examples = SupportSets(data, labels, k_shot, **options)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        examples = self.examples
        order = torch.randperm(len(examples), device=examples.device, generator=examples.generator)
        for index in order.split(self.batch_size * max(1, DRAWN_AT_ONCE // self.batch_size)):
            rows, versions = examples.draw(index)
            versions = [version.split(self.batch_size) for version in versions]
            for i, batch_rows in enumerate(rows.split(self.batch_size)):
                yield examples.take(batch_rows, [version[i] for version in versions])
