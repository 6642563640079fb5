"""Arrays in the idx format of MNIST, plain or gzipped."""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, brief
from common.io import DOWNLOAD_AGAIN, open_regular

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
    with open_regular(path, DOWNLOAD_AGAIN) as file:
        try:
            with gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file as content:
                header = content.read(4 + 4 * (len(shape) + 1))
                n = _checked_length(header, path, shape)
                promised = n * math.prod(shape)
                items = content.read(promised + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path} cannot be read ({brief(error)}): {DOWNLOAD_AGAIN}") from error
    if len(items) != promised:
        relation = "fewer" if len(items) < promised else "more"
        raise InputError(f"{path} holds {relation} bytes than its header says, {n} items of {shape}: {DOWNLOAD_AGAIN}")
    return torch.frombuffer(bytearray(items), dtype=torch.uint8).reshape(n, *shape)


def md5_of_items(items: Tensor) -> str:
    """The md5, in hex, of the unpacked file that holds these items; archives differ with the program that packed them.

    Args:
        items: a uint8 tensor (N, *shape), as `read_idx` returns it.
    """
    digest = hashlib.md5(struct.pack(f">HBB{items.ndim}I", 0, 8, items.ndim, *items.shape))
    digest.update(items.numpy())
    return digest.hexdigest()


def _checked_length(header: bytes, path: Path, shape: tuple[int, ...]) -> int:
    """The number of items that a header promises."""
    magic = bytes([0, 0, 8, len(shape) + 1])
    if header[:4] != magic:
        raise InputError(
            f"{path} is not an idx file: it starts with {header[:4].hex()}, not {magic.hex()}: {DOWNLOAD_AGAIN}"
        )
    n, *item = np.frombuffer(header[4:], ">u4").tolist() if len(header) == 4 + 4 * (len(shape) + 1) else (0,)
    if tuple(item) != shape:
        raise InputError(f"{path} holds items of shape {tuple(item)}, not {shape}: {DOWNLOAD_AGAIN}")
    if not 0 < n <= MAX_ITEMS:
        raise InputError(f"{path} promises {n} items, not 1 to {MAX_ITEMS}: {DOWNLOAD_AGAIN}")
    return n
