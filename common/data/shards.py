"""Memory-mapped rows of several files, for a modality that is larger than memory."""

import mmap
from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data import npy_files
from common.errors import require

DTYPES = ("|u1", "<i8", "<f4")


class Shards:
    """The rows of several .npy files, one file after the other, which `Examples` take in place of a modality's tensor.

    Args:
        paths: the files in order. Each holds (n, ...) uint8, int64 or float32; only n may differ.

    Raises:
        InputError: a file is missing, empty, not an array, or its rows differ from the first file's in type or shape.
    """

    device = torch.device("cpu")

    def __init__(self, paths: Sequence[Path]) -> None:
        require(len(paths) > 0, "Shards need at least one file (got none)")
        self.files = [_mapped(path) for path in paths]
        first = self.files[0]
        for path, x in zip(paths, self.files, strict=True):
            same = x.dtype == first.dtype and x.shape[1:] == first.shape[1:]
            given, expected = (f"{array.dtype} rows of shape {array.shape[1:]}" for array in (x, first))
            require(same, f"{path} has {given}, {paths[0]} has {expected}: rows must have one type and shape")
        self.starts = np.cumsum([0, *map(len, self.files)])
        self.rows = np.arange(self.starts[-1])
        self.dtype = torch.from_numpy(first[:0].copy()).dtype

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, ...) of all rows together."""
        return len(self), *self.files[0].shape[1:]

    @property
    def nbytes(self) -> int:
        """Bytes that the rows would take in memory."""
        return len(self) * self.files[0][0].nbytes

    def take(self, index: slice | Tensor) -> "Shards":
        """Shards of only the indexed rows; nothing is read yet."""
        taken = copy(self)
        taken.rows = self._rows_at(index)
        return taken

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Read the indexed rows into memory: (B, ...)."""
        rows = self._rows_at(index)
        file_of_row = np.searchsorted(self.starts, rows, side="right") - 1
        values = np.empty((len(rows), *self.shape[1:]), self.files[0].dtype)
        for i in np.unique(file_of_row):
            in_file = file_of_row == i
            values[in_file] = np.take(self.files[i], rows[in_file] - self.starts[i], axis=0)
        return torch.from_numpy(values)

    def _rows_at(self, index: slice | Tensor) -> np.ndarray:
        """The numbers of the indexed rows, counted over all files."""
        return self.rows[index if isinstance(index, slice) else index.numpy()]

    def to(self, device: torch.device) -> "Shards | Tensor":
        """These shards for the CPU; for another device all rows as one tensor on it."""
        return self if device == self.device else self[:].to(device)


def _mapped(path: Path) -> np.ndarray:
    """The array of an .npy file, (n, ...), mapped into memory."""
    x = npy_files.mapped(path, DTYPES, "write rows (n, ...) with n > 0 and np.save")
    require(x.ndim > 0, f"{path} holds a single number: write rows (n, ...) with n > 0")
    # rows are read in random order, so reading ahead would be wasted
    x._mmap.madvise(mmap.MADV_RANDOM)
    return x
