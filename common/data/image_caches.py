"""Images of a folder, decoded once and kept: a file of uint8 that is mapped into memory, not read."""

import fcntl
import hashlib
import io
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from common.errors import InputError, require
from common.io import write_atomically

AT_ONCE = 64  # images that a thread decodes before it hands them over
NOTED_EVERY = 5.0  # seconds between notes of how far the work is, from where it is taken up again
LOOKED_AT = 1000  # files whose sizes say whether the images are the same
CHANNELS = {"RGB": 3, "L": 1}


class Kind(NamedTuple):
    """What is made of each image: PIL's mode, the pixels it is high and wide, whether black and white change places.

    squashed: whether all of the image is brought to that size, instead of the square in its middle.
    """

    mode: str = "RGB"
    size: int = 64
    inverted: bool = False
    squashed: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        return CHANNELS[self.mode], self.size, self.size


def load(
    folder: Path,
    names: Sequence[str],
    path: Path,
    kind: Kind,
    jobs: int | None = None,
    again: str = "get it again",
) -> Tensor:
    """The named images of a folder, from their cache, which the first use builds with all cores.

    A build that was broken off is taken up again; who comes while another builds waits for it. Beside the cache,
    NAME.npy, lies NAME.json, which says what it holds: images of these names, some of whose files had these sizes.

    Args:
        path: the cache.
        jobs: threads that build it; one a core by default.
        again: what to do about an image that is missing or unreadable.

    Returns:
        (N, C, size, size) uint8, mapped: pages are read when they are looked at, and may be dropped again.

    Raises:
        InputError: an image is missing or unreadable, the cache is truncated, or of other images.
    """
    if path.with_suffix(".json").exists() and not os.access(path.parent, os.W_OK):
        _complete(folder, names, path, kind, jobs, again)  # made by someone else, for all to read
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".lock").touch()
        except OSError as error:
            raise InputError(f"{path.parent} cannot be written ({error.strerror}): give another --cache-dir") from error
        with open(path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _complete(folder, names, path, kind, jobs, again)
    return torch.from_numpy(np.memmap(path, np.uint8, "c", len(_header(len(names), kind)), (len(names), *kind.shape)))


def _complete(folder: Path, names: Sequence[str], path: Path, kind: Kind, jobs: int | None, again: str) -> None:
    """Build what is not there yet."""
    notes = path.with_suffix(".json")
    anew = f"delete {path.name} and {notes.name}, and they will be made again"
    about = {**kind._asdict(), "n": len(names), "names": hashlib.md5("\n".join(names).encode()).hexdigest()}
    header = _header(len(names), kind)
    done = 0
    if notes.exists():
        try:
            found = json.loads(notes.read_text())
            done, files = int(found.pop("done")), found.pop("files")
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise InputError(f"{notes} is damaged: {anew}") from error
        same = found == about and files == _fingerprint(folder, names[:done], again)
        require(same, f"{path} holds other images than {folder}: {anew}, or give another --cache-dir")
        expected = len(header) + done * int(np.prod(kind.shape))
        size = path.stat().st_size if path.exists() else 0
        whole = size == expected if done == len(names) else size >= expected
        require(whole, f"{path} is truncated, it has {size:,} bytes of {expected:,}: {anew}")
    else:
        write_atomically(path, header)
    if done < len(names):
        _build(folder, names, path, kind, about, done, jobs, again)


def _fingerprint(folder: Path, names: Sequence[str], again: str) -> str:
    """Of the sizes of some of the files: looking at each of many takes minutes on some disks."""
    digest = hashlib.md5()
    for name in names[:: -(-len(names) // LOOKED_AT) or 1]:
        try:
            digest.update(str((folder / name).stat().st_size).encode())
        except OSError as error:
            raise InputError(f"{folder / name} is missing: {again}") from error
    return digest.hexdigest()


def decode(path: Path, kind: Kind, again: str = "get it again") -> np.ndarray:
    """An image, its shorter side brought to `size`, and the square in the middle of it: (C, size, size) uint8.

    As torchvision's Resize and CenterCrop make it. With `kind.squashed` both sides are brought to `size`, as by Resize
    alone.

    Raises:
        InputError: it is missing or unreadable.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert(kind.mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} is missing or no readable image: {again}") from error
    w, h = image.size
    w, h = (kind.size if kind.squashed else int(kind.size * side / min(w, h)) for side in (w, h))
    left, top = (round((side - kind.size) / 2) for side in (w, h))
    image = image.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + kind.size, top + kind.size))
    pixels = np.asarray(image).reshape(kind.size, kind.size, -1).transpose(2, 0, 1)
    return 255 - pixels if kind.inverted else pixels


def _header(n: int, kind: Kind) -> bytes:
    """Of numpy's format, so that np.load reads the cache too."""
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (n, *kind.shape)}
    np.lib.format.write_array_header_1_0(header, about)
    return header.getvalue()


def _build(
    folder: Path,
    names: Sequence[str],
    path: Path,
    kind: Kind,
    about: dict[str, str | int],
    done: int,
    jobs: int | None,
    again: str,
) -> None:
    parts = [names[start : start + AT_ONCE] for start in range(done, len(names), AT_ONCE)]
    pool = ThreadPoolExecutor(jobs or os.cpu_count())  # PIL lets go of the interpreter while it decodes and resizes
    notes, noted = path.with_suffix(".json"), time.monotonic()
    progress = tqdm(total=len(names), initial=done, unit=" images", desc=f"making {path.name}", disable=None)
    try:
        with open(path, "r+b") as file, progress:
            file.seek(len(_header(len(names), kind)) + done * int(np.prod(kind.shape)))
            for images in pool.map(partial(_decode_some, folder, kind, again), parts):
                file.write(images.tobytes())
                done += len(images)
                progress.update(len(images))
                if done == len(names) or time.monotonic() - noted > NOTED_EVERY:
                    file.flush()
                    os.fsync(file.fileno())
                    files = _fingerprint(folder, names[:done], again)
                    write_atomically(notes, json.dumps(about | {"done": done, "files": files}).encode())
                    noted = time.monotonic()
            file.truncate()
    except OSError as error:
        raise InputError(f"{path} could not be written ({error.strerror})") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _decode_some(folder: Path, kind: Kind, again: str, names: Sequence[str]) -> np.ndarray:
    return np.stack([decode(folder / name, kind, again) for name in names])
