"""Caches of decoded images: a folder's images are decoded once into a file of uint8, which is mapped into memory."""

import hashlib
import io
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import torch
from filelock import lock_descriptor
from joblib import cpu_count
from msgspec import Meta, Struct
from PIL import Image, ImageOps
from torch import Tensor

from common import distributed
from common.data.pictures import open_picture
from common.data.schemas import read_json
from common.errors import InputError, require
from common.io import check_writable, write_atomically

AT_ONCE = 64  # images that a thread decodes before it hands them over
NOTED_EVERY = 5.0  # seconds between notes of how many images are done; an interrupted build continues from there
LOOKED_AT = 1000  # files whose sizes tell whether the images have changed
MAX_RATIO = 100
CHANNELS = {"RGB": 3, "L": 1}


class Kind(NamedTuple):
    """The format that images are brought to.

    mode: PIL's mode, RGB or L.
    size: height and width in pixels.
    inverted: swap black and white.
    squashed: resize the whole image to the square, instead of cutting out the square in its middle.
    """

    mode: str = "RGB"
    size: int = 64
    inverted: bool = False
    squashed: bool = False

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, size, size)."""
        return CHANNELS[self.mode], self.size, self.size


class Notes(Struct):
    """What a cache holds, in JSON beside it.

    mode, size, inverted, squashed: a `Kind`.
    n: number of images.
    names: md5 of their names.
    done: number of the images that are decoded.
    files: md5 of the sizes of some of their files.
    """

    mode: str
    size: int
    inverted: bool
    squashed: bool
    n: int
    names: str
    done: Annotated[int, Meta(ge=0)]
    files: str


def load(
    folder: Path,
    names: Sequence[str],
    path: Path,
    kind: Kind,
    remedy: str = "download it again",
    exact: bool = False,
) -> Tensor:
    """The named images of a folder, from their cache; the first call builds it on all cores.

    An interrupted build is continued by the next call; a call during another's build waits for it. NAME.json,
    beside the cache NAME.npy, identifies the images by their names and the sizes of some of their files.

    Args:
        path: the cache.
        remedy: what to do about an image that is missing or unreadable, the end of error messages.
        exact: refuse images of other sizes than `kind.size`.

    Returns:
        (N, C, size, size) uint8, memory-mapped: pages are read on access and may be dropped again.

    Raises:
        InputError: an image is missing, unreadable or of another size, or the cache is truncated or holds other images.
    """
    cache = _Cache(folder, names, path, kind, remedy, exact)
    if cache.notes.exists() and not os.access(path.parent, os.W_OK):
        cache.complete()  # built by somebody else, and only readable here
    else:
        lock_file = path.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            check_writable(lock_file)
            lock_file.touch()
        except OSError as error:
            raise InputError(f"{path.parent} cannot be written ({error.strerror}): give another --cache-dir") from error
        with open(lock_file) as lock:
            lock_descriptor(lock.fileno())
            cache.complete()
    return torch.from_numpy(np.memmap(path, np.uint8, "c", len(cache.header()), (len(names), *kind.shape)))


def decode(path: Path, kind: Kind, remedy: str = "give another image", exact: bool = False) -> np.ndarray:
    """Read an image, resize its shorter side to `size` and cut out the square in its middle: (C, size, size) uint8.

    The same as torchvision's Resize and CenterCrop; with `kind.squashed` as Resize of both sides.

    Args:
        remedy: what to do about a missing or unreadable image, the end of the error message.
        exact: refuse an image of another size than `kind.size`.

    Raises:
        InputError: the image is missing, unreadable, or of another size.
    """
    with open_picture(path, remedy) as file:
        w, h = file.size
        allowed = max(w, h) <= MAX_RATIO * min(w, h)  # enlarging the shorter side of a strip would fill the memory
        require(allowed, f"{path} has {w:,} x {h:,} pixels; sides may differ {MAX_RATIO}-fold at most: {remedy}")
        image = ImageOps.exif_transpose(file).convert(kind.mode)
        w, h = image.size
        fits = not exact or (w, h) == (kind.size, kind.size)
        require(fits, f"{path} has {w} x {h} pixels, not {kind.size} x {kind.size}: {remedy}")
        w, h = (kind.size if kind.squashed else int(kind.size * side / min(w, h)) for side in (w, h))
        left, top = (round((side - kind.size) / 2) for side in (w, h))
        image = image.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + kind.size, top + kind.size))
    pixels = np.asarray(image).reshape(kind.size, kind.size, -1).transpose(2, 0, 1)
    return 255 - pixels if kind.inverted else pixels


@dataclass(frozen=True)
class _Cache:
    """The cache of a folder's images; see `load` for the fields.

    remedy: what to do about an image that is missing or unreadable.
    exact: whether images of other sizes are refused.
    """

    folder: Path
    names: Sequence[str]
    path: Path
    kind: Kind
    remedy: str
    exact: bool

    @property
    def notes(self) -> Path:
        """The JSON file that says what the cache holds."""
        return self.path.with_suffix(".json")

    def header(self) -> bytes:
        """The first bytes of the cache, in numpy's format, so that np.load can read the cache too."""
        header = io.BytesIO()
        about = {"descr": "|u1", "fortran_order": False, "shape": (len(self.names), *self.kind.shape)}
        np.lib.format.write_array_header_1_0(header, about)
        return header.getvalue()

    def complete(self) -> None:
        """Check what the cache holds, and build what it lacks."""
        done = 0
        if self.notes.exists():
            done = self._checked()
        else:
            write_atomically(self.path, self.header())
        if done < len(self.names):
            self._build(done)

    def _notes_of(self, done: int) -> Notes:
        """What the notes say when the first `done` images are decoded."""
        names = hashlib.md5("\n".join(self.names).encode()).hexdigest()
        return Notes(*self.kind, len(self.names), names, done, self._fingerprint(done))

    def _checked(self) -> int:
        """The number of images that the cache holds.

        Raises:
            InputError: its notes are damaged, it holds other images, or it is truncated.
        """
        remedy = f"delete {self.path.name} and {self.notes.name}, and they will be made again"
        notes = read_json(self.notes, Notes, remedy)
        done = min(notes.done, len(self.names))
        same = notes == self._notes_of(done)
        require(same, f"{self.path} holds other images than {self.folder}: {remedy}, or give another --cache-dir")
        expected = len(self.header()) + done * int(np.prod(self.kind.shape))
        size = self.path.stat().st_size if self.path.exists() else 0
        # an interrupted build may have written more images than its last notes say
        fits = size == expected if done == len(self.names) else size >= expected
        require(fits, f"{self.path} is truncated, it has {size:,} bytes of {expected:,}: {remedy}")
        return done

    def _fingerprint(self, done: int) -> str:
        """A digest of the sizes of some of the first `done` files: looking at all can take minutes on some disks."""
        names, digest = self.names[:done], hashlib.md5()
        for name in names[:: -(-len(names) // LOOKED_AT) or 1]:
            try:
                digest.update(str((self.folder / name).stat().st_size).encode())
            except OSError as error:
                raise InputError(f"{self.folder / name} is missing: {self.remedy}") from error
        return digest.hexdigest()

    def _build(self, done: int) -> None:
        """Decode the images after the first `done` and append them, with notes every few seconds."""
        batches = [self.names[start : start + AT_ONCE] for start in range(done, len(self.names), AT_ONCE)]
        pool = ThreadPoolExecutor(cpu_count())  # PIL releases the interpreter while it decodes and resizes
        noted, title = time.monotonic(), f"making {self.path.name}"
        bar = distributed.progress(total=len(self.names), initial=done, unit=" images", desc=title)
        try:
            check_writable(self.path)
            with open(self.path, "r+b") as file, bar as progress:
                file.seek(len(self.header()) + done * int(np.prod(self.kind.shape)))
                for images in pool.map(self._decode_batch, batches):
                    file.write(images.tobytes())
                    done += len(images)
                    progress.update(len(images))
                    if done == len(self.names) or time.monotonic() - noted > NOTED_EVERY:
                        file.flush()
                        os.fsync(file.fileno())
                        write_atomically(self.notes, msgspec.json.encode(self._notes_of(done)))
                        noted = time.monotonic()
                file.truncate()
        except OSError as error:
            raise InputError(f"{self.path} could not be written ({error.strerror}): free disk space") from error
        finally:
            pool.shutdown(cancel_futures=True)

    def _decode_batch(self, names: Sequence[str]) -> np.ndarray:
        """The named images, (n, C, size, size)."""
        return np.stack([decode(self.folder / name, self.kind, self.remedy, self.exact) for name in names])
