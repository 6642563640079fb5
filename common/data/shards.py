"""Rows of several files, mapped into memory: for a modality that exceeds it."""

import mmap
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, require


class Shards:
    """The rows of files in numpy's format (.npy), one file's after the other's, as `Examples` take a modality's tensor.

    Args:
        paths: their order counts. Each holds (n, ...) of uint8, int64 or float32: alike but for n.

    Raises:
        InputError: a file is missing, no array, empty, or unlike the first one.
    """

    device = torch.device("cpu")

    def __init__(self, paths: Sequence[Path]) -> None:
        require(len(paths) > 0, "no file of rows is named")
        self.parts = [_mapped(path) for path in paths]
        first = self.parts[0]
        for path, x in zip(paths, self.parts, strict=True):
            same = x.dtype == first.dtype and x.shape[1:] == first.shape[1:]
            found, wanted = (f"{a.dtype} rows of {a.shape[1:]}" for a in (x, first))
            require(same, f"{path} has {found}, {paths[0]} {wanted}: they must be alike")
        self.starts = np.cumsum([0, *map(len, self.parts)])
        self.rows = np.arange(self.starts[-1])
        self.dtype = torch.from_numpy(first[:0].copy()).dtype

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return len(self), *self.parts[0].shape[1:]

    @property
    def nbytes(self) -> int:
        return len(self) * self.parts[0][0].nbytes

    def take(self, index: slice | Tensor) -> "Shards":
        """Some of these rows, of which nothing is read."""
        some = copy(self)
        some.rows = self._wanted(index)
        return some

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Copies of some rows (B, ...)."""
        rows = self._wanted(index)
        part = np.searchsorted(self.starts, rows, side="right") - 1
        found = np.empty((len(rows), *self.shape[1:]), self.parts[0].dtype)
        for i in np.unique(part):
            here = part == i
            found[here] = np.take(self.parts[i], rows[here] - self.starts[i], axis=0)
        return torch.from_numpy(found)

    def _wanted(self, index: slice | Tensor) -> np.ndarray:
        return self.rows[index if isinstance(index, slice) else index.numpy()]

    def to(self, device: torch.device) -> "Shards | Tensor":
        return self if device == self.device else self[:].to(device)


def _mapped(path: Path) -> np.ndarray:
    try:
        x = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or holds no array that can be mapped ({error})") from error
    require(isinstance(x, np.memmap) and x.ndim > 0 and len(x) > 0, f"{path} holds no rows")
    require(x.dtype in (np.uint8, np.int64, np.float32), f"{path} has {x.dtype}, not uint8, int64 or float32")
    # rows are wanted in any order: what the system would read around them is of no use
    x._mmap.madvise(mmap.MADV_RANDOM)
    return x
