"""Arrays in numpy's .npy format, mapped into memory."""

import mmap
from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import require
from common.io import reading


def mapped(path: Path, dtypes: Collection[str], remedy: str, mode: str = "c") -> np.ndarray:
    """The array of an .npy file, mapped into memory.

    Args:
        dtypes: the types that it may have, by numpy's names.
        mode: "c" for an array whose changes stay in memory, "r+" for one whose changes reach the file.

    Raises:
        InputError: the file is missing, damaged or truncated, holds no values, or values of another type.
    """
    with reading(path, remedy, "an array that np.save wrote"):
        array = np.lib.format.open_memmap(path, "c")  # refuses a truncated file, which "r+" would lengthen
        known = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        require(array.dtype.str in dtypes, f"{path} holds values of type {array.dtype}, not {known}: {remedy}")
        require(array.size > 0, f"{path} holds no values, its shape is {array.shape}: {remedy}")
        return array if mode == "c" else np.lib.format.open_memmap(path, mode)


def mapped_rows(path: Path) -> Tensor:
    """The rows (n, ...) uint8, int64 or float32 of an .npy file, mapped into memory: for data larger than memory.

    Raises:
        InputError: as `mapped`.
    """
    remedy = "write rows (n, ...) with n > 0 and np.save"
    rows = mapped(path, ("|u1", "<i8", "<f4"), remedy)
    require(rows.ndim > 0, f"{path} holds a single number: {remedy}")
    rows._mmap.madvise(mmap.MADV_RANDOM)  # rows are read in random order: reading ahead takes three times as long
    return torch.from_numpy(rows)
