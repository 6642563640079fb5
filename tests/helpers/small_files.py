"""Small files of the formats that data come in."""

import io
import json
import struct
import zipfile
import zlib

from common.data.arrays import Expected

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.io import savemat

PHOTOGRAPH = np.kron(np.random.default_rng(0).integers(0, 256, (10, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)
# what `npz` was made with, and the arrays that it holds
ABOUT = {"seed": 3, "fixed": True}
EXPECTED = {"image": Expected("|u1", (20, 1, 8, 8)), "rows": Expected("<i8", (2, range(1, 100)))}


def npy(array):
    """An array as np.save writes it."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(**members):
    """An .npz as `arrays.save` writes it, with other contents of some members."""
    arrays = {"about": np.array(json.dumps(ABOUT)), "image": np.zeros((20, 1, 8, 8), np.uint8)}
    arrays["rows"] = np.arange(20).reshape(2, 10)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            archive.writestr(f"{name}.npy", members.get(name, npy(array)))
    return file.getvalue()


def mat(compressed):
    """Six images and labels as SVHN's."""
    file, n = io.BytesIO(), 6
    images = np.random.default_rng(0).integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
    savemat(file, {"X": images, "y": np.arange(1, n + 1, dtype=np.uint8)[:, None]}, do_compression=compressed)
    return file.getvalue()


def picture(kind, mode="RGB", **options):
    """A photograph in one of Pillow's formats, with what may stand beside its pixels: texts, colours, its position."""
    file, photograph = io.BytesIO(), Image.fromarray(PHOTOGRAPH)
    exif, texts = photograph.getexif(), PngInfo()
    exif.update(
        {0x0112: 6, 0x010F: "a camera", 0x011A: 72.0, 0x9286: b"a comment", 0x8825: {1: "N", 2: (1.0, 2.0, 3.0)}}
    )
    texts.add_text("a", "text" * 20)
    texts.add_text("b", "text" * 20, zip=True)
    texts.add_itxt("c", "text" * 20, zip=True)
    beside = {"exif": exif, "icc_profile": b"colours" * 20, "pnginfo": texts, "comment": b"a comment"}
    photograph.convert(mode).save(file, kind, **beside | options)
    return file.getvalue()


def png(rows, width=105, height=105):
    """A PNG of unpacked rows, each of a filter's number and pixels of one bit."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    parts = [struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
