"""Arrays of bytes in MATLAB 5 files, such as SVHN's: a reader of what they need, which checks every length.

A file is a header and one element for each variable. An element is a tag (type and number of bytes) and these bytes.
A variable's element holds four (flags, dimensions, name and values) and may be compressed by zlib
(MathWorks, MAT-File Format, 2010, chapter 1). scipy reads all of the format in compiled code, which one changed bit can
crash.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from common.data.npy_files import Expected
from common.errors import InputError, brief, require
from common.io import open_regular

FILE_HEADER, VERSION = 128, b"\x00\x01IM"  # bytes; version 5 of a little-endian machine, at the header's end
INT8, UINT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 2, 5, 6, 14, 15  # types of elements
BYTES_CLASS = 9  # flags of a matrix of unsigned bytes
MAX_DIMENSIONS, MAX_NAME, MAX_VARIABLES = 8, 64, 16
CHUNK = 2**20  # bytes


class _DamagedError(Exception):
    """An element is not the one that the format requires at its position."""


class _Matrix(NamedTuple):
    """A variable; `dtype` is "|u1" for unsigned bytes, "another type" for everything else."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read(path: Path, arrays: Mapping[str, Expected], remedy: str) -> dict[str, np.ndarray]:
    """Read arrays of unsigned bytes; other variables are skipped.

    Args:
        arrays: what each must be, {name: "|u1" of some shape}. It is checked before the values are unpacked.

    Returns:
        {name: its values (math.prod(shape),), in which the first dimension changes fastest}.

    Raises:
        InputError: the file is missing or damaged, lacks an array, or an array is not as expected.
    """
    values = {}
    with open_regular(path, remedy) as file:
        try:
            if file.read(FILE_HEADER)[-4:] != VERSION:
                raise _DamagedError("it has another header")
            for _ in range(MAX_VARIABLES):
                if not (tag := file.read(8)):
                    break
                kind, n_bytes = struct.unpack("<II", tag)
                end = file.tell() + n_bytes
                stream = _Stream(file, n_bytes, packed=kind == COMPRESSED)
                if kind == COMPRESSED:
                    kind, _ = struct.unpack("<II", stream.read(8))
                if kind != MATRIX:
                    raise _DamagedError(f"a variable has the type {kind}")
                matrix = _read_matrix(stream)
                if matrix.name in arrays:
                    arrays[matrix.name].check(matrix.dtype, matrix.shape, f"{path}: {matrix.name}", remedy)
                    values[matrix.name] = _read_values(stream, math.prod(matrix.shape))
                file.seek(end)
        except (_DamagedError, struct.error, zlib.error) as error:
            raise InputError(f"{path} is damaged or not a MATLAB 5 file ({brief(error)}): {remedy}") from error
    lacking = [name for name in arrays if name not in values]
    require(not lacking, f"{path} lacks {' and '.join(lacking)}: {remedy}")
    return values


class _Stream:
    """The bytes of an element, unpacked as they are read.

    Args:
        n_bytes: that the element takes in the file.
    """

    def __init__(self, file: BinaryIO, n_bytes: int, packed: bool) -> None:
        self.file, self.left = file, n_bytes
        self.unpacker, self.waiting = zlib.decompressobj() if packed else None, b""

    def read(self, n: int) -> bytes:
        """The next n bytes, or fewer at the element's end."""
        content = np.empty(n, np.uint8)
        return content[: self.fill(content)].tobytes()

    def fill(self, values: np.ndarray) -> int:
        """Read into bytes (n,), and return how many of them the element has."""
        if self.unpacker is None:
            done = self.file.readinto(values[: self.left])
            self.left -= done
            return done
        done = 0
        while done < len(values):
            self.waiting = self.waiting or self._packed()
            piece = self.unpacker.decompress(self.waiting, len(values) - done)
            if not piece and not self.waiting:
                break
            self.waiting = self.unpacker.unconsumed_tail
            values[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
            done += len(piece)
        return done

    def is_at_its_end(self) -> bool:
        """Whether all was read; with it zlib has verified its checksum."""
        return self.left == 0 if self.unpacker is None else self.unpacker.eof

    def _packed(self) -> bytes:
        content = self.file.read(min(CHUNK, self.left))
        self.left -= len(content)
        return content


def _read_matrix(stream: _Stream) -> _Matrix:
    """Read a variable up to its values."""
    flags, dimensions, name = (
        _read_element(stream, kind, at_most)
        for kind, at_most in ((UINT32, 8), (INT32, 4 * MAX_DIMENSIONS), (INT8, MAX_NAME))
    )
    dtype = "|u1" if flags[:1] == bytes([BYTES_CLASS]) and flags[1:2] == b"\x00" else "another type"
    shape = struct.unpack(f"<{len(dimensions) // 4}i", dimensions)
    if min(shape, default=-1) < 0:
        raise _DamagedError(f"its dimensions are {shape}")
    return _Matrix(name.decode("latin-1"), dtype, shape)


def _read_values(stream: _Stream, n: int) -> np.ndarray:
    """Read n unsigned bytes, the values of a matrix, up to the end of its element."""
    kind, n_bytes, inside = _read_tag(stream)
    if (kind, n_bytes) != (UINT8, n):
        raise _DamagedError(f"{n} values have the type {kind} and {n_bytes} bytes")
    values = np.empty(n, np.uint8)
    if inside:
        values[:] = np.frombuffer(inside[:n], np.uint8)
    elif stream.fill(values) < n:
        raise _DamagedError("its values are truncated")
    if len(stream.read(8)) == 8 or not stream.is_at_its_end():
        raise _DamagedError("a variable is longer than its values, or its end is missing")
    return values


def _read_element(stream: _Stream, kind: int, at_most: int) -> bytes:
    """Read an element of a type and of at most `at_most` bytes."""
    read_kind, n_bytes, inside = _read_tag(stream)
    if read_kind != kind or n_bytes > at_most:
        raise _DamagedError(f"an element has the type {read_kind} and {n_bytes} bytes, not {kind} and {at_most}")
    content = inside or stream.read(n_bytes + -n_bytes % 8)
    return content[:n_bytes]


def _read_tag(stream: _Stream) -> tuple[int, int, bytes]:
    """The type of an element, its number of bytes, and the bytes if the tag holds them (up to four)."""
    tag = stream.read(8)
    kind, n_bytes = struct.unpack("<II", tag)
    if kind >> 16 == 0:
        return kind, n_bytes, b""
    return kind & 0xFFFF, min(kind >> 16, 4), tag[4:]
