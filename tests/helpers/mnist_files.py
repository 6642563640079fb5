"""Files of MNIST's format, with random images."""

import gzip
import struct

from mnist.data import FILES

import numpy as np


def idx(array, magic=None):
    array = np.asarray(array, dtype=np.uint8)
    magic = struct.pack(">HBB", 0, 8, array.ndim) if magic is None else magic
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 10


def write_mnist(folder, compress=True, images=IMAGES, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    for names in FILES.values():
        for name, array in zip(names, (images, labels), strict=True):
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder
