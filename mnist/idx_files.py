"""Arrays in the idx format of MNIST, plain or gzipped."""

import gzip
import hashlib
import math
import struct
from pathlib import Path

from common.errors import require
from common.io import DOWNLOAD_AGAIN, reading

import numpy as np
import torch
from torch import Tensor

MAX_ITEMS = 280_000  # EMNIST's digits are the largest set in MNIST's format


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a file of unsigned bytes; unpacks at most one byte more than its header states.

    Args:
        shape: the expected shape of one item: (28, 28) for images, () for labels.

    Returns:
        a uint8 tensor (N, *shape).

    Raises:
        InputError: the file is unreadable, truncated, corrupted, of another format, its items have another shape, or
            there are more than MAX_ITEMS.
    """
    with reading(path, DOWNLOAD_AGAIN, "an idx file") as file:
        content = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
        magic, n, *item = struct.unpack(f">{2 + len(shape)}I", content.read(8 + 4 * len(shape)))
        kind = 0x800 + len(shape) + 1  # unsigned bytes of so many dimensions
        require(
            magic == kind, f"{path} is not an idx file: it starts with {magic:08x}, not {kind:08x}: {DOWNLOAD_AGAIN}"
        )
        require(tuple(item) == shape, f"{path} holds items of shape {tuple(item)}, not {shape}: {DOWNLOAD_AGAIN}")
        require(0 < n <= MAX_ITEMS, f"{path} promises {n} items, not 1 to {MAX_ITEMS}: {DOWNLOAD_AGAIN}")
        items = np.frombuffer(bytearray(content.read(n * math.prod(shape) + 1)), np.uint8)
        return torch.from_numpy(items.reshape(n, *shape))


def md5_of_items(items: Tensor) -> str:
    """The md5, in hex, of the unpacked file that holds these items; archives differ with the program that packed them.

    Args:
        items: a uint8 tensor (N, *shape), as `read_idx` returns it.
    """
    digest = hashlib.md5(struct.pack(f">HBB{items.ndim}I", 0, 8, items.ndim, *items.shape))
    digest.update(items.numpy())
    return digest.hexdigest()
