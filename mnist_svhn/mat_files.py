"""Arrays of bytes in MATLAB 5 files, such as SVHN's. scipy's reader is compiled code, which one changed bit can crash.

A file is a header and one element for each variable. An element is a tag (type and number of bytes) and these bytes.
A variable's element holds four (flags, dimensions, name and values) and may be compressed by zlib
(MathWorks, MAT-File Format, 2010, chapter 1).
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.data.arrays import Expected
from common.errors import require
from common.io import reading

import numpy as np

FILE_HEADER, VERSION = 128, b"\x00\x01IM"  # bytes; version 5 of a little-endian machine, at the header's end
UINT8, COMPRESSED = 2, 15  # types of elements
MAX_BESIDE = 1000  # bytes of a variable beside its values


def read(path: Path, arrays: Mapping[str, Expected], remedy: str) -> dict[str, np.ndarray]:
    """Read arrays of unsigned bytes; other variables are skipped.

    Args:
        arrays: what each must be, {name: "|u1" of some shape}.

    Returns:
        {name: its values, in MATLAB's order: the first dimension changes fastest in memory}.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or an array is not as expected.
    """
    values, at_most = {}, MAX_BESIDE + max(expected.at_most for expected in arrays.values())
    with reading(path, remedy, "a MATLAB 5 file") as file:
        if file.read(FILE_HEADER)[-4:] != VERSION:
            raise ValueError("it has another header")
        while tag := file.read(8):
            kind, n_bytes = struct.unpack("<II", tag)
            variable = file.read(n_bytes)
            if len(variable) < n_bytes:
                raise EOFError("it is truncated")
            if kind == COMPRESSED:
                variable = zlib.decompressobj().decompress(variable, at_most)[8:]
            _, (_, dimensions), (_, name), (kind, content), *_ = _elements(variable)
            name = str(name, "latin-1")
            if name in arrays:
                require(kind == UINT8, f"{path}: {name} holds another type than bytes: {remedy}")
                array = np.ndarray(tuple(np.frombuffer(dimensions, "<i4")), np.uint8, content, order="F")
                arrays[name].check(array, f"{path}: {name}", remedy)
                values[name] = array
    lacking = [name for name in arrays if name not in values]
    require(not lacking, f"{path} lacks {' and '.join(lacking)}: {remedy}")
    return values


def _elements(variable: bytes) -> Iterator[tuple[int, memoryview]]:
    """The elements of a variable: type and content."""
    rest = memoryview(variable)
    while len(rest) >= 8:
        kind, n_bytes = struct.unpack_from("<II", rest)
        if kind >> 16:  # up to four bytes stand in the tag
            yield kind & 0xFFFF, rest[4 : 4 + (kind >> 16)]
            rest = rest[8:]
        else:
            yield kind, rest[8 : 8 + n_bytes]
            rest = rest[8 + n_bytes + -n_bytes % 8 :]
