"""Splits on the device: whole if they fit, otherwise streamed batch by batch."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from common.data.batches import Examples

import torch
from torch import Tensor

T = TypeVar("T")
SHARE = 0.5  # the share of a device's memory that a split may take
AHEAD = 8  # batches read ahead, one thread each: a disk serves many requests as fast as one


class Stream:
    """A split on disk or in the computer's memory; threads read the next batches while the device computes.

    Args:
        examples: the split.
        target: the device that batches are copied to.
    """

    device = torch.device("cpu")  # where the indices of examples have to be

    def __init__(self, examples: Examples, target: torch.device) -> None:
        self.examples, self.target = examples, target
        self.buffer: Examples | None = None  # all batches lie at the same addresses, as a CUDA graph needs it

    def __len__(self) -> int:
        return len(self.examples)

    def feed(self, indices: Iterable[Tensor]) -> Iterator[tuple[Examples, Tensor]]:
        """The function `feed` for this split; each batch overwrites the one before."""
        indices = iter(indices)
        with ThreadPoolExecutor(AHEAD) as pool:
            waiting = deque(pool.submit(self._read, index) for index in islice(indices, AHEAD))
            while waiting:
                batch = waiting.popleft().result()
                waiting.extend(pool.submit(self._read, index) for index in islice(indices, 1))
                yield self._put(batch)

    def _read(self, index: Tensor) -> Examples:
        """Copy a batch's examples into memory; pinned, if they go to a GPU."""
        batch = self.examples.extract(index)
        if self.target.type == "cuda":
            batch.modalities = {name: x.pin_memory() for name, x in batch.modalities.items()}
        return batch

    def _put(self, batch: Examples) -> tuple[Examples, Tensor]:
        """Copy a batch to the device: the examples there, and the batch's indices among them (B,)."""
        n = len(batch)
        if self.buffer is None or len(self.buffer) < n:
            self.buffer = batch.to(self.target)
        for name, x in batch.modalities.items():
            self.buffer.modalities[name][: len(x)].copy_(x, non_blocking=True)
        for on_device, x in ((self.buffer.mask, batch.mask), (self.buffer.joint_only, batch.joint_only)):
            if x is not None:
                on_device[:n].copy_(x)
        return self.buffer, torch.arange(n, device=self.target)


def place(examples: T, device: torch.device) -> T | Stream:
    """Move a split to the device if it fits in `SHARE` of its memory, else make it a `Stream`."""
    if isinstance(examples, Examples) and examples.nbytes > SHARE * _memory(device):
        return Stream(examples, device)
    return examples.to(device)


def feed(examples: T | Stream, indices: Iterable[Tensor]) -> Iterator[tuple[T, Tensor]]:
    """Yield each batch: examples on the device, and the indices (B,) of the batch among them.

    Args:
        indices: for each batch the indices (B,) of its examples in the split.
    """
    if isinstance(examples, Stream):
        yield from examples.feed(indices)
    else:
        for index in indices:
            yield examples, index


def _memory(device: torch.device) -> int:
    """The device's total memory in bytes; for the CPU the computer's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
