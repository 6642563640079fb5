"""Images as Pillow reads them, and caches: a folder's images, decoded once into a file that is mapped into memory."""

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common.data.arrays import mapped
from common.errors import InputError, require
from common.io import read_json, reading, write_atomically
from common.progress import progress_bar

import numpy as np
import torch
from filelock import FileLock
from joblib import cpu_count
from PIL import Image, ImageOps
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # the decoders of others start programs, take minutes, or print
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
MAX_PIXELS = 64_000_000
MAX_RATIO = 100
CHANNELS = {"RGB": 3, "L": 1}
AT_ONCE = 64  # images that a thread decodes before it hands them over

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # also for sizes that a picture's own blocks claim; beyond twice as many it raises
warnings.filterwarnings("ignore", module=r"PIL\.")


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


@contextmanager
def open_picture(source: Path | bytes, remedy: str, name: str = "") -> Iterator[Image.Image]:
    """A picture whose size is known and whose pixels are not decoded yet; `in_mode` decodes them.

    Args:
        source: a file, or the content of one.
        remedy: what to do about a missing or unreadable picture, the end of error messages.
        name: what the picture is, the beginning of error messages; by default the path.

    Raises:
        InputError: the file is missing, or not a readable picture of at most 64 megapixels, also if that shows only
            inside the with statement.
    """
    what = f"an image in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
    with reading(source, remedy, what, name) as file, Image.open(file, formats=FORMATS) as image:
        width, height = image.size
        fits = width * height <= MAX_PIXELS
        require(fits, f"{name or source} has {width:,} x {height:,} pixels, more than {MAX_PIXELS:,}: {remedy}")
        yield image


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    """An opened picture in PIL's mode RGB or L: upright by its EXIF orientation, and on white where it is transparent.

    Gray of 16 bits a pixel becomes gray of 8. A picture whose pixels fit 12 bits is taken as one of 12 bits.
    """
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):
        pixels = np.asarray(image)
        white = 2**12 - 1 if pixels.max() < 2**12 else 2**16 - 1
        pixels = np.where(pixels == image.info.get("transparency"), white, pixels)
        return Image.fromarray((pixels * (255 / white)).round().astype(np.uint8)).convert(mode)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


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
        image = in_mode(file, kind.mode)
        w, h = image.size
        fits = not exact or (w, h) == (kind.size, kind.size)
        require(fits, f"{path} has {w} x {h} pixels, not {kind.size} x {kind.size}: {remedy}")
        w, h = (kind.size if kind.squashed else int(kind.size * side / min(w, h)) for side in (w, h))
        left, top = (round((side - kind.size) / 2) for side in (w, h))
        image = image.resize((w, h), Image.Resampling.BILINEAR).crop((left, top, left + kind.size, top + kind.size))
    pixels = np.asarray(image).reshape(kind.size, kind.size, -1).transpose(2, 0, 1)
    return 255 - pixels if kind.inverted else pixels


def load(
    folder: Path, names: Sequence[str], path: Path, kind: Kind, remedy: str = "download it again", exact: bool = False
) -> Tensor:
    """The named images of a folder, from their cache; the first call decodes them on all cores.

    A call while another process decodes waits for it. NAME.json, beside the cache NAME.npy, says what it holds.

    Args:
        names: a file may have another of the SUFFIXES than its name, as .JPG or .png for .jpg.
        path: the cache.
        remedy: what to do about an image that is missing or unreadable, the end of error messages.
        exact: refuse images of other sizes than `kind.size`.

    Returns:
        (N, C, size, size) uint8, memory-mapped: pages are read on access and may be dropped again.

    Raises:
        InputError: an image is missing, unreadable or of another size, or the cache is damaged, or images were
            replaced since it was made.
    """
    notes, names = path.with_suffix(".json"), _find(folder, names, remedy)
    about = {**kind._asdict(), "n": len(names), "files": fingerprint(folder, names, remedy)}
    shape = len(names), CHANNELS[kind.mode], kind.size, kind.size
    if not (path.exists() and notes.exists()):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not (path.exists() and notes.exists()):
                    _decode_all([folder / name for name in names], shape, path, kind, remedy, exact)
                    write_atomically(notes, json.dumps(about).encode())
        except OSError as error:
            where = f"{path.parent} cannot be written ({error.strerror})"
            raise InputError(f"{where}: give another --cache-dir, or free disk space") from error
    again = f"delete {path.name} and {notes.name}, and they will be made again"
    images = mapped(path, ("|u1",), again)
    same = about.items() <= read_json(notes, dict, again).items() and images.shape == shape
    require(same, f"{path} holds other images than {folder}: {again}, or give another --cache-dir")
    return torch.from_numpy(images)


def fingerprint(folder: Path, names: Sequence[str], remedy: str) -> str:
    """The md5 of the names, sizes and modification times of a folder's files; InputError if one cannot be read."""
    lines = hashlib.md5()
    for name in names:
        try:
            stat = os.stat(folder / name)
        except OSError as error:
            raise InputError(f"{folder / name} is missing or cannot be read: {remedy}") from error
        lines.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return lines.hexdigest()


def _find(folder: Path, names: Sequence[str], remedy: str) -> list[str]:
    """The names as the folder has them, which may have other suffixes."""
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror}): {remedy}") from error
    split = () if there.issuperset(names) else map(os.path.splitext, sorted(there))
    others = {stem: stem + suffix for stem, suffix in split if suffix.lower() in SUFFIXES}
    return [name if name in there else others.get(os.path.splitext(name)[0], name) for name in names]


def _decode_all(
    files: Sequence[Path], shape: tuple[int, ...], path: Path, kind: Kind, remedy: str, exact: bool
) -> None:
    """Decode images into an .npy file of a shape, which gets its name when it is whole."""

    def decoded(batch: Sequence[Path]) -> np.ndarray:
        return np.stack([decode(file, kind, remedy, exact) for file in batch])

    batches = [files[start : start + AT_ONCE] for start in range(0, len(files), AT_ONCE)]
    part, bar = path.with_suffix(".part"), progress_bar(total=len(files), unit=" images", desc=path.name)
    # PIL releases the interpreter while it decodes and resizes
    with ThreadPoolExecutor(cpu_count()) as pool, bar, open(part, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for images in pool.map(decoded, batches):
            file.write(images.tobytes())
            bar.update(len(images))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
