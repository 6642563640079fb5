"""Arrays in numpy's files: .npz caches with the options that they were made with, and .npy mapped into memory."""

import io
import json
import math
import mmap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import brief, flags, require
from common.io import check_total, decode, reading, write_atomically

import numpy as np
import torch
from torch import Tensor

Scalar = bool | int | float | str | None
MAX_ABOUT = 2**17  # bytes of the options and of the arrays' headers


class Expected(NamedTuple):
    """What an array must be.

    dtype: numpy's name of its type, such as "|u1".
    shape: its sizes; a range allows several.
    """

    dtype: str
    shape: tuple[int | range, ...]

    @property
    def at_most(self) -> int:
        """Bytes of the largest such array."""
        sizes = (size[-1] if isinstance(size, range) else size for size in self.shape)
        return np.dtype(self.dtype).itemsize * math.prod(sizes)

    def check(self, array: np.ndarray, name: str, remedy: str) -> None:
        """Raise InputError, which begins with `name`, unless an array is as expected."""
        ranges = [size if isinstance(size, range) else range(size, size + 1) for size in self.shape]
        fits = array.dtype.str == self.dtype and array.ndim == len(ranges)
        fits = fits and all(size in allowed for size, allowed in zip(array.shape, ranges, strict=True))
        sizes = ", ".join(f"{x[0]} to {x[-1]}" if len(x) > 1 else str(x[0]) for x in ranges)
        expected = f"{np.dtype(self.dtype).name} of ({sizes})"
        require(fits, f"{name} holds {array.dtype} of shape {array.shape}, not {expected}: {remedy}")


def save(path: Path, about: Mapping[str, Scalar], arrays: Mapping[str, Tensor]) -> None:
    """Write arrays, {name: array}, and the options that they were made with, {option: plain JSON value}."""
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(dict(about))), **{k: x.numpy() for k, x in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getbuffer())


def load(path: Path, about: Mapping[str, Scalar], expected: Mapping[str, Expected], remedy: str) -> list[Tensor]:
    """Read arrays of a file that `save` wrote.

    Args:
        about: {option: value} that they must have been made with.
        expected: what the arrays must be, by name.
        remedy: how to make the file again, the end of error messages.

    Returns:
        the arrays, in the order of the names.

    Raises:
        InputError: the file is missing or damaged, was made with other options, or an array is not as expected.
    """
    with reading(path, remedy, "an archive of arrays") as file, np.load(file, allow_pickle=False) as archive:
        read = [f"{name}.npy" for name in ("about", *expected)]  # a file may hold other splits too
        check_total(archive.zip, MAX_ABOUT + sum(kind.at_most for kind in expected.values()), read)
        saved = decode(str(archive["about"]), dict[str, Scalar], f"{path}: about", remedy)
        changed = [name for name in about if name not in saved or saved[name] != about[name]]
        was, asked = (flags({name: values.get(name) for name in changed}) for values in (saved, about))
        again = f"give the same options, another --data-dir, or {remedy}"
        require(not changed, f"{path} was made with {brief(was)}, not {asked}: {again}")
        arrays = {name: archive[name] for name in expected}
        for name, array in arrays.items():
            expected[name].check(array, f"{path}: {name}", remedy)
        return [torch.from_numpy(array) for array in arrays.values()]


def mapped(path: Path, dtypes: Collection[str], remedy: str) -> np.ndarray:
    """The array of an .npy file, mapped into memory; changes of it stay in memory.

    Args:
        dtypes: the types that it may have, by numpy's names.

    Raises:
        InputError: the file is missing, damaged or truncated, holds no values, or values of another type.
    """
    with reading(path, remedy, "an array that np.save wrote"):
        array = np.lib.format.open_memmap(path, "c")
        known = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        require(array.dtype.str in dtypes, f"{path} holds values of type {array.dtype}, not {known}: {remedy}")
        require(array.size > 0, f"{path} holds no values, its shape is {array.shape}: {remedy}")
        return array


def mapped_rows(path: Path) -> Tensor:
    """The rows (n, ...) uint8, int64 or float32 of an .npy file, mapped into memory; InputError as `mapped`."""
    remedy = "write rows (n, ...) with n > 0 and np.save"
    rows = mapped(path, ("|u1", "<i8", "<f4"), remedy)
    require(rows.ndim > 0, f"{path} holds a single number: {remedy}")
    rows._mmap.madvise(mmap.MADV_RANDOM)  # rows are read in random order: reading ahead takes three times as long
    return torch.from_numpy(rows)
