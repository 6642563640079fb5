"""Arrays in numpy's .npy format: no more is read or mapped than the file holds and the caller expects."""

import io
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from common.errors import InputError, brief, require
from common.io import open_regular

MARK = b"\x93NUMPY"
LENGTH_BYTES = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}  # by version: bytes of the header text's length
NAMES = {"|u1": "uint8", "<i8": "int64", "<f4": "float32", "<f8": "float64"}
MAX_HEADER = 10_000  # bytes; numpy's own limit
# a Python dict of three items in any order; not evaluated, since Python's parser has limits and exceptions of its own
ITEM = r"'(descr|fortran_order|shape)': *('[<>|=]?[A-Za-z]\d{0,9}'|True|False|\((?:\d{1,15}, *)*(?:\d{1,15})?\)) *,? *"
HEADER = re.compile(rf"\{{(?:{ITEM}){{3}}\}} *\n?")


def named(dtype: str) -> str:
    """A type as users know it: "|u1" -> "uint8"."""
    return NAMES.get(dtype, dtype)


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

    def check(self, dtype: str, shape: tuple[int, ...], name: str, remedy: str) -> None:
        """Raise InputError, which begins with `name`, unless an array of this type and shape is expected."""
        fits = len(shape) == len(self.shape) and all(
            size in expected if isinstance(expected, range) else size == expected
            for size, expected in zip(shape, self.shape, strict=True)
        )
        sizes = (f"{x[0]} to {x[-1]}" if isinstance(x, range) else str(x) for x in self.shape)
        require(
            fits and dtype == self.dtype,
            f"{name} holds {named(dtype)} of shape {shape}, not {named(self.dtype)} of ({', '.join(sizes)}): {remedy}",
        )


class Header(NamedTuple):
    """What an array is, and the byte at which its values begin."""

    dtype: str
    shape: tuple[int, ...]
    order: str
    start: int


def read_header(file: BinaryIO, name: str, remedy: str) -> Header:
    """Read the header of an array.

    Args:
        name: of the array, the beginning of error messages.

    Raises:
        InputError: it is not the header of an array of numbers or text.
    """
    mark, version = file.read(len(MARK)), file.read(2)
    n_bytes = LENGTH_BYTES.get(version, 0)
    length = int.from_bytes(file.read(n_bytes), "little")
    text = file.read(min(length, MAX_HEADER + 1)).decode("latin-1")
    items = dict(re.findall(ITEM, text)) if HEADER.fullmatch(text) else {}
    require(
        mark == MARK and len(text) == length <= MAX_HEADER and len(items) == 3 and items["descr"][0] == "'",
        f"{name} is damaged or not an array that np.save wrote: {remedy}",
    )
    shape = tuple(int(size) for size in re.findall(r"\d+", items["shape"]))
    order = "F" if items["fortran_order"] == "True" else "C"
    return Header(items["descr"].strip("'"), shape, order, len(MARK) + len(version) + n_bytes + length)


def parse(content: bytes, expected: Expected, name: str, remedy: str) -> np.ndarray:
    """The array in the content of an .npy file.

    Args:
        name: of the array, the beginning of error messages.

    Raises:
        InputError: the content is damaged, or the array is not as expected.
    """
    dtype, shape, order, start = read_header(io.BytesIO(content), name, remedy)
    expected.check(dtype, shape, name, remedy)
    _check_size(len(content) - start, dtype, shape, name, remedy)
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order=order).copy()


def parse_text(content: bytes, name: str, remedy: str) -> str:
    """The text in the content of an .npy file of a single string; args and errors as of `parse`."""
    dtype, shape, _, start = read_header(io.BytesIO(content), name, remedy)
    require(
        dtype.startswith("<U") and shape == (), f"{name} holds {named(dtype)} of shape {shape}, not a text: {remedy}"
    )
    _check_size(len(content) - start, dtype, shape, name, remedy)
    try:
        return content[start:].decode("utf-32-le").rstrip("\0")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is damaged ({brief(error)}): {remedy}") from error


def mapped(path: Path, dtypes: Collection[str], remedy: str, mode: str = "c") -> np.ndarray:
    """The array of an .npy file, mapped into memory.

    Args:
        dtypes: the types that it may have, by numpy's names.
        mode: np.memmap's: "c" for an array whose changes stay in memory, "r+" for one whose changes reach the file.

    Raises:
        InputError: the file is missing, damaged or truncated, holds no values, or values of another type.
    """
    with open_regular(path, remedy) as file:
        dtype, shape, order, start = read_header(file, str(path), remedy)
        known = " or ".join(map(named, dtypes))
        require(dtype in dtypes, f"{path} holds values of type {named(dtype)}, not {known}: {remedy}")
        require(math.prod(shape) > 0, f"{path} holds no values, its shape is {shape}: {remedy}")
        _check_size(os.fstat(file.fileno()).st_size - start, dtype, shape, str(path), remedy)
        try:
            return np.memmap(file if mode == "c" else path, dtype, mode, start, shape, order)
        except OSError as error:
            raise InputError(f"{path} cannot be mapped into memory ({error.strerror}): {remedy}") from error


def _check_size(n_bytes: int, dtype: str, shape: tuple[int, ...], name: str, remedy: str) -> None:
    promised = np.dtype(dtype).itemsize * math.prod(shape)
    in_place = f"it has {n_bytes} bytes of values in place of {promised}"
    require(n_bytes == promised, f"{name} is truncated or damaged, {in_place}: {remedy}")
