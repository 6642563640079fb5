"""Examples in groups, and support sets drawn from the groups."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, require

DRAWN_AT_ONCE = 10_000  # examples that a loader draws support sets for: one batch takes hardly less


class Transform(NamedTuple):
    """Versions of each example: the data have as many copies as there are args.

    f: (examples (n, ...), one of the args) -> (n, ...), the same at each call.
    share_labels: the latent variables whose groups hold all versions, and are so many times as large; of other latent
        variables, each version of a group is a group of its own.
    """

    f: Callable[[Tensor, Any], Tensor]
    args: Sequence[Any]
    share_labels: Sequence[str] = ()

    def of(self, x: Tensor, which: Tensor) -> Tensor:
        """Each of the examples (n, ...) in its version (n,)."""
        parts = [(rows, self.f(x[rows], arg)) for i, arg in enumerate(self.args) if len(rows := _where(which == i))]
        made = parts[0][1].new_empty(len(x), *parts[0][1].shape[1:])
        for rows, part in parts:
            made[rows] = part
        return made


@dataclass
class Batch:
    """target: examples (B, ...); inputs: {latent: support sets (B, k, ...)}; sizes: {latent: of its groups, (B,)}."""

    target: Tensor
    inputs: dict[str, Tensor]
    sizes: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.target)


class Groups:
    """The groups of a latent variable's labels: `of` (N,) and `rank` (N,) of each example; `count`, `start` (G,).

    The examples, sorted by group, are `members` (N,).
    """

    def __init__(self, labels: np.ndarray, device: torch.device) -> None:
        names, of, count = np.unique(labels, return_inverse=True, return_counts=True)
        self.names = names
        self.of, self.count = (torch.from_numpy(x).to(device) for x in (of, count))
        self.start = self.count.cumsum(0) - self.count
        self.members = self.of.argsort(stable=True)
        self.rank = torch.empty_like(self.members)
        self.rank[self.members] = torch.arange(len(of), device=device) - self.start[self.of[self.members]]


class SupportSets:
    """Examples by index, each with a support set for each latent variable, drawn from the example's group.

    A support set has k different examples of the group, in a random order; all sets of them are equally likely. All
    of a batch are drawn at once, on the data's device.

    Args:
        data: examples (N, ...), or a list of N.
        labels: {latent: N labels}; equal ones make a group.
        k_shot: {latent: k}.
        transforms: versions of the examples.
        exclude_target: whether an example, in the version that it has, is left out of its own support sets, but for
            latent variables whose groups are single examples. The sets then depend on the example, and the bound is
            none in the strict sense.
        generator: of the draws, on the data's device; torch's own by default.

    Raises:
        InputError: labels or k_shot that do not fit the data, or a group too small for its support sets.
    """

    mask = None  # nothing is absent

    def __init__(
        self,
        data: Tensor | Sequence[Any],
        labels: Mapping[str, Any],
        k_shot: Mapping[str, int],
        transforms: Sequence[Transform] = (),
        exclude_target: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        self.data = data if isinstance(data, Tensor) else _stacked(data)
        self.labels, self.k_shot, self.transforms = labels, dict(k_shot), tuple(transforms)
        self.exclude_target, self.generator = exclude_target, generator
        require(len(self.data) > 0, "there are no data")
        require(
            set(labels) == set(k_shot), f"labels are of {', '.join(labels)}, k_shot of {', '.join(k_shot)}: give both"
        )
        for transform in self.transforms:
            unknown = [name for name in transform.share_labels if name not in labels]
            require(
                not unknown, f"a transform shares the labels of {', '.join(unknown)}: there are {', '.join(labels)}"
            )
            require(len(transform.args) > 0, "a transform has no args: give one for each version")
        self.groups, self.sizes, self.excluded = {}, {}, {}  # sizes: {latent: of each example's group, (N,)}
        for name, of_each in labels.items():
            values = np.asarray(of_each.cpu() if isinstance(of_each, Tensor) else of_each)
            require(
                values.shape == (len(self.data),),
                f"the labels of {name} should be {len(self.data)}, one an example: they are {values.shape}",
            )
            groups = self.groups[name] = Groups(values, self.data.device)
            k, copies = self.k_shot[name], prod(self._versions(name))
            require(isinstance(k, int) and k > 0, f"k_shot of {name} must be a positive whole number, not {k!r}")
            sizes = groups.count * copies
            self.sizes[name] = sizes[groups.of].float()
            self.excluded[name] = exclude_target and bool(sizes.max() > 1)
            smallest = int(sizes.argmin())
            n, needed = int(sizes[smallest]), k + self.excluded[name]
            require(
                n >= needed,
                f"the group {groups.names[smallest]} of {name} has {n} example{'s' * (n != 1)}: k_shot {k}"
                f"{' beside a target' * self.excluded[name]} needs {needed}",
            )

    def __len__(self) -> int:
        return len(self.data)

    @property
    def device(self) -> torch.device:
        return self.data.device

    def to(self, device: torch.device) -> "SupportSets":
        """The same data on another device, with that device's own generator if they lie elsewhere."""
        if device == self.device:
            return self
        return SupportSets(self.data.to(device), self.labels, self.k_shot, self.transforms, self.exclude_target)

    def __getitem__(self, index: Tensor) -> Batch:
        """The examples of an index (B,), each in a random version, with new support sets."""
        return self.take(*self.draw(index))

    def draw(self, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The rows (B, 1 + sum of k) of each example and its support sets, and by transform their versions."""
        versions = [self._uniform(len(t.args), (len(index), 1)) for t in self.transforms]  # each (B, 1)
        rows, which = [index[:, None]], [versions]
        for name, k in self.k_shot.items():
            drawn = self._draw(name, k, index, versions)
            rows.append(drawn[0])
            which.append(drawn[1])
        return torch.cat(rows, dim=1), [torch.cat(of_each, dim=1) for of_each in zip(*which, strict=True)]

    def take(self, rows: Tensor, versions: Sequence[Tensor]) -> Batch:
        """The batch of what was drawn."""
        x = self.data.index_select(0, rows.flatten())
        for transform, which in zip(self.transforms, versions, strict=True):
            x = transform.of(x, which.flatten())
        target, *inputs = x.view(*rows.shape, *x.shape[1:]).split([1, *self.k_shot.values()], dim=1)
        sizes = {name: of_each.index_select(0, rows[:, 0]) for name, of_each in self.sizes.items()}
        return Batch(target.squeeze(1), dict(zip(self.k_shot, inputs, strict=True)), sizes)

    def _versions(self, name: str) -> list[int]:
        """How many versions of an example each transform adds to the groups of a latent variable."""
        return [len(t.args) if name in t.share_labels else 1 for t in self.transforms]

    def _draw(self, name: str, k: int, index: Tensor, versions: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Support sets: which examples, (B, k), and which version of each by transform."""
        groups, shared = self.groups[name], self._versions(name)
        copies = prod(shared)
        own = groups.rank[index]
        for n, version in zip(shared, versions, strict=True):
            own = own * n + (version[:, 0] if n > 1 else 0)
        group = groups.of[index]
        places = self._distinct(groups.count[group] * copies - int(self.excluded[name]), k)
        if self.excluded[name]:
            places = places + (places >= own[:, None])
        of_each = []
        for n, version in zip(reversed(shared), reversed(versions), strict=True):
            of_each.append(places % n if n > 1 else version.expand(-1, k))
            places = places // n if n > 1 else places
        return groups.members[groups.start[group][:, None] + places], of_each[::-1]

    def _distinct(self, n: Tensor, k: int) -> Tensor:
        """k different whole numbers below each n (B,), in a random order, (B, k): Floyd's algorithm (Bentley 1987)."""
        drawn = n.new_empty(len(n), 0)
        for last in range(-k, 0):
            new = (self._rand(len(n)) * (n + last + 1)).long()
            taken = (drawn == new[:, None]).any(dim=1)
            drawn = torch.cat([drawn, torch.where(taken, n + last, new)[:, None]], dim=1)
        return drawn.gather(1, self._rand(len(n), k).argsort(dim=1)) if k > 1 else drawn

    def _rand(self, *shape: int) -> Tensor:
        # in float64, since float32 has no more than 2^24 different draws
        return torch.rand(shape, dtype=torch.float64, device=self.device, generator=self.generator)

    def _uniform(self, n: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(n, shape, device=self.device, generator=self.generator)


class DataLoader:
    """Passes over the data in a random order, in batches with support sets; the last batch may be smaller.

    Arguments and errors as of `SupportSets`.
    """

    def __init__(
        self,
        data: Tensor | Sequence[Any],
        labels: Mapping[str, Any],
        k_shot: Mapping[str, int],
        batch_size: int,
        transforms: Sequence[Transform] = (),
        exclude_target: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        require(batch_size > 0, f"batch_size must be positive, not {batch_size}")
        self.examples = SupportSets(data, labels, k_shot, transforms, exclude_target, generator)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.examples) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        examples = self.examples
        order = torch.randperm(len(examples), device=examples.device, generator=examples.generator)
        for index in order.split(self.batch_size * max(1, DRAWN_AT_ONCE // self.batch_size)):
            rows, versions = examples.draw(index)
            versions = [which.split(self.batch_size) for which in versions]
            for i, part in enumerate(rows.split(self.batch_size)):
                yield examples.take(part, [parts[i] for parts in versions])


def _where(mask: Tensor) -> Tensor:
    return mask.nonzero().squeeze(1)


def _stacked(data: Sequence[Any]) -> Tensor:
    """A list of tensors, arrays or numbers of one shape, as one tensor."""
    try:
        return torch.stack([torch.as_tensor(x) for x in data]) if len(data) else torch.empty(0)
    except (RuntimeError, ValueError, TypeError) as error:
        raise InputError(
            f"the data should be numbers or tensors of one shape: {' '.join(str(error).split())}"
        ) from error
