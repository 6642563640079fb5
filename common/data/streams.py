"""Splits on the device: as a whole where they fit, otherwise a batch at a time."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from common.data.batches import Examples

T = TypeVar("T")
SHARE = 0.5  # of a device's memory that a split may take
AHEAD = 8  # batches that are read at once, each by a thread: a disk answers many requests as fast as one


class Stream:
    """A split that stays where it is; the batches next wanted are read while the device computes.

    Args:
        examples: of the disk or of the computer's memory.
        target: the device where its batches are wanted.
    """

    device = torch.device("cpu")  # of indices

    def __init__(self, examples: Examples, target: torch.device) -> None:
        self.examples, self.target = examples, target
        self.room: Examples | None = None  # one place for all batches, as captured steps need it

    def __len__(self) -> int:
        return len(self.examples)

    def fed(self, indices: Iterable[Tensor]) -> Iterator[tuple[Examples, Tensor]]:
        """See `fed`; what is given is overwritten by the next."""
        indices, waiting = iter(indices), deque[Future[Examples]]()
        pool = ThreadPoolExecutor(AHEAD)
        try:
            for index in islice(indices, AHEAD):
                waiting.append(pool.submit(self._read, index))
            while waiting:
                batch = waiting.popleft().result()
                for index in islice(indices, 1):
                    waiting.append(pool.submit(self._read, index))
                yield self._put(batch)
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, index: Tensor) -> Examples:
        batch = self.examples.apart(index)
        if self.target.type == "cuda":
            batch.modalities = {name: x.pin_memory() for name, x in batch.modalities.items()}
        return batch

    def _put(self, batch: Examples) -> tuple[Examples, Tensor]:
        n = len(batch)
        if self.room is None or len(self.room) < n:
            self.room = batch.to(self.target)
        for name, x in batch.modalities.items():
            self.room.modalities[name][: len(x)].copy_(x, non_blocking=True)
        for there, x in ((self.room.mask, batch.mask), (self.room.together, batch.together)):
            if x is not None:
                there[:n].copy_(x)
        return self.room, torch.arange(n, device=self.target)


def placed(examples: T, device: torch.device) -> T | Stream:
    """A split on the device where it fits there, or as a stream."""
    if isinstance(examples, Examples) and examples.nbytes > SHARE * _memory(device):
        return Stream(examples, device)
    return examples.to(device)


def fed(examples: T | Stream, indices: Iterable[Tensor]) -> Iterator[tuple[T, Tensor]]:
    """For each of some batches' indices (B,): examples on the device, and which of these are the batch."""
    if isinstance(examples, Stream):
        yield from examples.fed(indices)
    else:
        for index in indices:
            yield examples, index


def _memory(device: torch.device) -> int:
    """Bytes that it has in all."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
