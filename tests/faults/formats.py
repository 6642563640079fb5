"""The formats of data files, each with a small file and what reads it."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy.io import savemat

import celeba.data
import vhe.data
from common.data import Shards, array_caches, image_caches
from common.data.idx_files import read_idx
from common.data.npy_files import Expected
from common.data.zip_files import unpack
from cub import features, layouts
from cub.captions import SPECIAL, read_vocabulary
from mnist_svhn.data import FILES, read_svhn
from tests.faults.attacked import Case
from tests.helpers.celeba_files import write_celeba
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import IMAGES, idx
from tests.helpers.omniglot_files import write_omniglot

RANDOM = np.random.default_rng(0)
PHOTOGRAPH = Image.fromarray(np.kron(RANDOM.integers(0, 256, (10, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8))
PAGE = (b"\0" + b"\xf0" * 14) * 105  # rows of a page, in bits, each after the number of its filter
ABOUT = {"seed": 3, "fixed": True}
EXPECTED = {"image": Expected("|u1", (20, 1, 8, 8)), "rows": Expected("<i8", (2, range(1, 100)))}


def _npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(_=None, **members):
    """An .npz as `array_caches.save` writes it, with other contents of some members."""
    arrays = {"about": np.array(json.dumps(ABOUT)), "image": np.zeros((20, 1, 8, 8), np.uint8)}
    arrays["rows"] = np.arange(20).reshape(2, 10)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", members.get(name, _npy(array)))
    return file.getvalue()


def _mat(compressed):
    file, n = io.BytesIO(), 6
    images = RANDOM.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    savemat(file, {"X": images, "y": np.arange(1, n + 1, dtype=np.uint8)[:, None]}, do_compression=compressed)
    return file.getvalue()


def _unpacked_mat(_):
    """The two variables of a .mat, without its header."""
    return _mat(compressed=False)[128:]


def _packed_mat(elements):
    """A .mat of the header and elements, of which each is compressed."""
    size = min(struct.unpack("<I", elements[4:8].ljust(4, b"\0"))[0] + 8, len(elements))
    packed = [zlib.compress(part) for part in (elements[:size], elements[size:])]
    return _mat(compressed=True)[:128] + b"".join(struct.pack("<II", 15, len(x)) + x for x in packed)


def _picture(kind, mode="RGB", **options):
    file = io.BytesIO()
    exif = PHOTOGRAPH.getexif()
    exif[0x0112] = 6
    PHOTOGRAPH.convert(mode).save(file, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}), **options)
    return file.getvalue()


def _mended_png(content):
    """A PNG with the checksums that its chunks should have, so that damage is decoded."""
    mended, place = [content[:8]], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack(">I", content[place : place + 4])
        size = min(size, len(content) - place - 12)
        chunk = content[place + 4 : place + 8 + size]
        mended.append(content[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk)))
        place += 12 + size
    return b"".join(mended)


def _repacked_png(pixels):
    """A PNG of unpacked rows."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 105, 105, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b""),
    )
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _read_picture(path):
    image_caches.decode(path, image_caches.Kind(size=16))
    vhe.data.decode(path)


def _omniglot(folder):
    return (write_omniglot(folder) / "images_evaluation.zip").read_bytes()


def _omniglot_of(rows):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("images_evaluation/a/b/0001_01.png", _repacked_png(rows))
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
    def make(folder):
        return (write_celeba(folder) / name).read_bytes()

    return make


def _load_faces(path):
    celeba.data.load("train", data_config(path.parent, cache_dir=None))


def _face_notes(folder):
    _load_faces(write_celeba(folder) / "x")
    return (folder / "celeba_64.json").read_bytes()


def _feature_notes(folder):
    np.save(folder / "features_train.npy", np.zeros((3, 2048), np.float32))
    network = {"weights": "x", "size": 224, "md5": "0", "learnt": ["a"], "lr": 0.1}
    names = features._md5(["a", "b", "c"])
    return json.dumps({"names": names, "network": network, "done": 3}).encode()


def _load_features(path):
    features.load_features(SimpleNamespace(names={"train": ["a", "b", "c"]}, folder="x"), "train", path.parent)


def _vocabulary(_):
    words = [*SPECIAL, "bird", "blue"]
    return json.dumps({"w2i": {w: i for i, w in enumerate(words)}, "i2w": dict(enumerate(words))}).encode()


def _shard(_):
    return _npy(np.arange(60, dtype=np.float32).reshape(6, 10))


def _captions(_):
    return "\n".join(f"this bird is {i} \ufffd blue" for i in range(10)).encode()


PICTURES = {
    "png": ("PNG", {}),
    "png, palette": ("PNG", {"mode": "P"}),
    "png, bits": ("PNG", {"mode": "1"}),
    "jpeg": ("JPEG", {}),
    "jpeg, progressive": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "gif": ("GIF", {}),
}
CASES = {
    "idx": Case(lambda _: idx(IMAGES), lambda path: read_idx(path, (28, 28)), "images"),
    "idx.gz": Case(lambda _: gzip.compress(idx(IMAGES)), lambda path: read_idx(path, (28, 28)), "images.gz"),
    "idx in gz": Case(lambda _: idx(IMAGES), lambda path: read_idx(path, (28, 28)), "images.gz", gzip.compress),
    "npy": Case(_shard, lambda path: Shards([path])[:], "x.npy"),
    "npz": Case(_npz, lambda path: array_caches.load(path, ABOUT, EXPECTED, "make it again"), "x.npz"),
    **{
        f"npz, its {name}": Case(
            lambda _, name=name: zipfile.ZipFile(io.BytesIO(_npz())).read(f"{name}.npy"),
            lambda path: array_caches.load(path, ABOUT, EXPECTED, "make it again"),
            "x.npz",
            lambda content, name=name: _npz(**{name: content}),
        )
        for name in ("about", "image", "rows")
    },
    "mat": Case(lambda _: _mat(False), lambda path: read_svhn("test", path.parent), FILES["test"]),
    "mat, compressed": Case(lambda _: _mat(True), lambda path: read_svhn("test", path.parent), FILES["test"]),
    "mat, inside": Case(_unpacked_mat, lambda path: read_svhn("test", path.parent), FILES["test"], _packed_mat),
    "zip of pages": Case(_omniglot, _load_pages, "images_evaluation.zip"),
    "zip, its page": Case(lambda _: PAGE, _load_pages, "images_evaluation.zip", _omniglot_of),
    "zip to unpack": Case(_archive, _unpack, "cub.zip"),
    **{
        name: Case(lambda _, kind=kind, options=options: _picture(kind, **options), _read_picture, "x.img")
        for name, (kind, options) in PICTURES.items()
    },
    "png, mended": Case(lambda _: _picture("PNG"), _read_picture, "x.img", _mended_png),
    "png, its rows": Case(lambda _: PAGE, _read_picture, "x.img", _repacked_png),
    "attributes": Case(_faces("list_attr_celeba.txt"), _load_faces, "list_attr_celeba.txt"),
    "partition": Case(_faces("list_eval_partition.txt"), _load_faces, "list_eval_partition.txt"),
    "image notes": Case(_face_notes, _load_faces, "celeba_64.json"),
    "feature notes": Case(_feature_notes, _load_features, "features_train.json"),
    "vocabulary": Case(_vocabulary, read_vocabulary, "cub.vocab"),
    "captions": Case(_captions, lambda path: layouts._captions(path, 1), "x.txt"),
}
