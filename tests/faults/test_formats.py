"""Damaged data files of every format: each is read, or refused in one line."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import celeba.data
import mfeat.data
import vhe.data
from common.data import arrays, image_caches, mapped_rows
from common.data.files import unpack
from cub.captions import SPECIAL, read_vocabulary
from mnist.idx_files import read_idx
from mnist_svhn.data import FILES, read_svhn
from tests.faults.attack import GIB, attack, scaled
from tests.faults.mutated import mutations
from tests.helpers.celeba_files import write_celeba
from tests.helpers.data_config import data_config
from tests.helpers.mfeat_files import write_mfeat
from tests.helpers.mnist_files import IMAGES, idx
from tests.helpers.omniglot_files import write_omniglot
from tests.helpers.small_files import ABOUT, EXPECTED, mat, npy, npz, picture, png

import numpy as np
import pytest

PAGES, IMAGE = "images_evaluation.zip", "x.img"
PAGE = (b"\0" + b"\xf0" * 14) * 105  # rows of a page, in bits, each after the number of its filter


class Case(NamedTuple):
    """A format and what reads it.

    make: writes what lies beside the file into a folder, and returns the content that is to be damaged.
    read: reads a file at a path.
    name: of the file.
    pack: turns damaged content into the file, such as by compressing it.
    """

    make: Callable[[Path], bytes]
    read: Callable[[Path], object]
    name: str
    pack: Callable[[bytes], bytes] = bytes


def _unpacked_mat(_):
    """The two variables of a .mat, without its header."""
    return mat(compressed=False)[128:]


def _packed_mat(elements):
    """A .mat of the header and elements, of which each is compressed."""
    size = min(struct.unpack("<I", elements[4:8].ljust(4, b"\0"))[0] + 8, len(elements))
    packed = [zlib.compress(part) for part in (elements[:size], elements[size:])]
    return mat(compressed=True)[:128] + b"".join(struct.pack("<II", 15, len(x)) + x for x in packed)


def _read_images(path):
    read_idx(path, (28, 28))


def _read_cache(path):
    arrays.load(path, ABOUT, EXPECTED, "make it again")


def _read_mat(path):
    read_svhn("test", path.parent)


def _read_picture(path):
    image_caches.decode(path, image_caches.Kind(size=16))
    vhe.data.decode(path)


def _omniglot(folder):
    return (write_omniglot(folder) / PAGES).read_bytes()


def _omniglot_of(rows):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images_evaluation/a/b/0001_01.png", png(rows))
    return file.getvalue()


def _load_pages(path):
    vhe.data.load("test", data_config(path.parent))


def _archive(folder):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"cub/{i}.txt", f"a bird {i} " * 20)
    return file.getvalue()


def _unpack(path):
    unpack(path, "cub")
    for file in (path.parent / "cub").iterdir():
        file.unlink()
    (path.parent / "cub").rmdir()


def _faces(name):
    return lambda folder: (write_celeba(folder) / name).read_bytes()


def _load_faces(path):
    celeba.data.load("train", data_config(path.parent, cache_dir=None))


def _table(folder):
    return (write_mfeat(folder) / "mfeat-mor.csv").read_bytes()


def _load_tables(path):
    mfeat.data.load("train", data_config(path.parent))


def _vocabulary(_):
    words = [*SPECIAL, "bird", "blue"]
    return json.dumps({"w2i": {w: i for i, w in enumerate(words)}, "i2w": dict(enumerate(words))}).encode()


def _shard(_):
    return npy(np.arange(60, dtype=np.float32).reshape(6, 10))


PICTURES = {
    "png, palette": ("PNG", {"mode": "P"}),
    "png, bits": ("PNG", {"mode": "1"}),
    "jpeg": ("JPEG", {}),
    "jpeg, progressive": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "gif": ("GIF", {}),
}
CASES = {
    "idx": Case(lambda _: idx(IMAGES), _read_images, "images"),
    "idx in gz": Case(lambda _: idx(IMAGES), _read_images, "images.gz", gzip.compress),
    "npy": Case(_shard, lambda path: mapped_rows(path).clone(), "x.npy"),
    "npz": Case(lambda _: npz(), _read_cache, "x.npz"),
    **{
        f"npz, its {name}": Case(
            lambda _, name=name: zipfile.ZipFile(io.BytesIO(npz())).read(f"{name}.npy"),
            _read_cache,
            "x.npz",
            lambda content, name=name: npz(**{name: content}),
        )
        for name in ("about", "image", "rows")
    },
    "mat": Case(lambda _: mat(False), _read_mat, FILES["test"]),
    "mat, compressed": Case(lambda _: mat(True), _read_mat, FILES["test"]),
    "mat, inside": Case(_unpacked_mat, _read_mat, FILES["test"], _packed_mat),
    "zip of pages": Case(_omniglot, _load_pages, PAGES),
    "zip, its page": Case(lambda _: PAGE, _load_pages, PAGES, _omniglot_of),
    "zip to unpack": Case(_archive, _unpack, "cub.zip"),
    **{
        name: Case(lambda _, kind=kind, options=options: picture(kind, **options), _read_picture, IMAGE)
        for name, (kind, options) in PICTURES.items()
    },
    "png, its rows": Case(lambda _: PAGE, _read_picture, IMAGE, png),
    "attributes": Case(_faces("list_attr_celeba.txt"), _load_faces, "list_attr_celeba.txt"),
    "table": Case(_table, _load_tables, "mfeat-mor.csv"),
    "vocabulary": Case(_vocabulary, read_vocabulary, "cub.vocab"),
}


def _read_damaged(case, path, content):
    path.write_bytes(case.pack(content))
    case.read(path)


@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("name", CASES)
def test_damaged_files_are_read_or_refused_in_one_line(name, tmp_path):
    case = CASES[name]
    content, path = case.make(tmp_path), tmp_path / case.name
    _read_damaged(case, path, content)  # undamaged
    damaged = enumerate(mutations(content, 0, scaled(20)))
    calls = ((f"file {i}", partial(_read_damaged, case, path, x)) for i, x in damaged)
    counts = attack("damaged data files", calls, memory=4 * GIB)
    assert counts["one line"] > 0 or counts.total() < 10
