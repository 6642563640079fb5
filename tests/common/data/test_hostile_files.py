"""Small files that promise or unpack to gigabytes, and what never ends: how each is read, and what that costs."""

import gzip
import io
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import celeba.data
import vhe.data
from common.data import arrays, image_caches, mapped_rows
from common.data.files import unpack
from common.errors import InputError
from mnist.idx_files import read_idx
from mnist_svhn.data import FILES, read_svhn
from tests.helpers.celeba_files import write_celeba
from tests.helpers.data_config import data_config
from tests.helpers.small_files import ABOUT, EXPECTED, npy, npz, png

import numpy as np
import pytest

BLOCK, BLOCKS = 2**26, 48  # 3 GiB
PAGES, IMAGE = "images_evaluation.zip", "x.img"


class Hostile(NamedTuple):
    """A file and what reads it.

    write: the file at a path.
    read: reads it.
    name: of the file.
    message: a pattern of the error's message; None if the file is read.
    """

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    name: str
    message: str | None


@cache
def zeros():
    """Three GiB of zeros, compressed without zlib's header: the same block again and again."""
    packer = zlib.compressobj(wbits=-15)
    block = packer.compress(bytes(BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * BLOCKS + b"\x03\x00"  # at last an empty block


def written(content):
    """A function that writes the content, which is made when it is called."""
    return lambda path: path.write_bytes(content())


def archive(name, packed, size):
    """A zip archive of one deflated file, whatever size it promises."""
    sizes = struct.pack("<III", 0, len(packed), min(size, 2**32 - 1))
    common = struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes + struct.pack("<HH", len(name), 0)
    entry = b"PK\x03\x04" + common + name + packed
    directory = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(directory), len(entry), 0)
    return entry + directory + end


def claiming_npy():
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 100)})
    return file.getvalue() + bytes(4000)


def sparse(path):
    with open(path, "wb") as file:
        file.truncate(2**40)


def faces_with(write):
    """CelebA's files, of which the partition is written by a function."""

    def write_all(path):
        write_celeba(path.parent)
        path.unlink()
        write(path)

    return write_all


def read_images(path):
    return read_idx(path, (28, 28))


def read_picture(path):
    image_caches.decode(path, image_caches.Kind())


def read_pages(path):
    vhe.data.load("test", data_config(path.parent))


def read_faces(path):
    celeba.data.load("train", data_config(path.parent))


def read_cache(path):
    arrays.load(path, ABOUT, EXPECTED, "make it again")


def read_mat(path):
    read_svhn("test", path.parent)


def idx_header(n):
    return struct.pack(">HBB3I", 0, 8, 3, n, 28, 28)


PAGE = b"images_evaluation/a/b/0001_01.png"
HOSTILE = {
    "idx.gz of 3 GiB": Hostile(
        written(lambda: gzip.compress(idx_header(60_000)) + gzip.compress(bytes(BLOCK), 1) * BLOCKS),
        read_images,
        "x.gz",
        "cannot reshape",
    ),
    "idx of 10^9 items": Hostile(written(lambda: idx_header(10**9)), read_images, "x", "10+ items"),
    "npy of 10^12 rows": Hostile(written(claiming_npy), mapped_rows, "x.npy", "is damaged or not an array .*: write"),
    "npz of 3 GiB": Hostile(
        written(lambda: archive(b"about.npy", zeros(), BLOCK * BLOCKS)), read_cache, "x.npz", "unpacks to 3221225472"
    ),
    "npz that promises less": Hostile(
        written(lambda: archive(b"about.npy", zeros(), 1000)), read_cache, "x.npz", "is damaged or not"
    ),
    "npz with a text of 2^29 letters": Hostile(
        written(lambda: npz(about=npy(np.array("x")).replace(b"<U1'", b"<U536870912'").replace(b" " * 9, b"", 1))),
        read_cache,
        "x.npz",
        "is damaged or not an archive of arrays",
    ),
    "zip of a page of 3 GiB": Hostile(
        written(lambda: archive(PAGE, zeros(), BLOCK * BLOCKS)), read_pages, PAGES, "unpacks to 3221225472"
    ),
    "zip to unpack": Hostile(
        written(lambda: archive(b"cub/a.txt", zeros(), BLOCK * BLOCKS)),
        lambda path: unpack(path, "cub"),
        "cub.zip",
        "unpacks to 3221225472",
    ),
    "png of 200,000 x 1": Hostile(
        written(lambda: png(b"\0", 200_000, 1)), read_picture, IMAGE, "200,000 x 1 pixels; sides may differ 100-fold"
    ),
    "png of 6,000 x 6,000, as a character": Hostile(
        written(lambda: png(b"\0", 6000, 6000)), vhe.data.decode, IMAGE, "6000 x 6000 pixels, more than 4096 a side"
    ),
    "text of 1 TiB": Hostile(faces_with(sparse), read_faces, "list_eval_partition.txt", "more than 64 MiB"),
    **{
        f"a pipe as {file}": Hostile(os.mkfifo, read, file, "is not a regular file|is missing")
        for read, file in (
            (read_images, "x"),
            (mapped_rows, "x.npy"),
            (read_cache, "x.npz"),
            (read_pages, PAGES),
            (read_mat, FILES["test"]),
            (read_picture, IMAGE),
        )
    },
    "the largest png that is read": Hostile(
        written(lambda: png(bytes(8000 * 1001), 8000, 8000)), read_picture, IMAGE, None
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_cost_neither_memory_nor_time(name, tmp_path):
    hostile, path = HOSTILE[name], tmp_path / HOSTILE[name].name
    hostile.write(path)
    signal.alarm(60)  # ends a wait for a pipe
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory begins anew
    before, started = peak(), time.perf_counter()
    if hostile.message is None:
        hostile.read(path)
    else:
        with pytest.raises(InputError, match=hostile.message) as error:
            hostile.read(path)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
    signal.alarm(0)
    assert peak() - before < (800 if hostile.message is None else 150), "MiB"
    assert time.perf_counter() - started < 10


def peak():
    """Most memory that this process has had, in MiB."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
