"""Pictures: the one place where files are decoded by Pillow."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.Image import Transpose

from common.errors import InputError, brief, require
from common.io import MIB, open_regular

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # the decoders of others start programs, take minutes, or print
MAX_PIXELS = 64_000_000
MAX_WEBP_PIXELS = MAX_PIXELS // 4  # its decoder keeps many copies
MAX_SCANS = 200  # of a progressive JPEG, usually ten; each goes through all pixels
MAX_RATIO = 100  # of the sides, since a strip whose shorter side is enlarged grows without bounds
MAX_BYTES = 128 * MIB
TURNS = {  # by EXIF's orientation
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# what Pillow raises for changed bytes and for too many pixels, the last where warnings are errors
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning)

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # also for sizes that a picture's own blocks claim
warnings.filterwarnings("ignore", module=r"PIL\.")  # sizes are checked below


@contextmanager
def open_picture(source: Path | bytes, remedy: str, name: str = "") -> Iterator[Image.Image]:
    """A picture whose size is known and whose pixels are not decoded yet.

    Args:
        source: a file, or the content of one.
        remedy: what to do about a missing or unreadable picture, the end of error messages.
        name: what the picture is, the beginning of error messages; by default the path.

    Raises:
        InputError: the file is missing or too large, or not a readable picture, also if that shows only inside the with
            statement.
    """
    name = name or str(source)
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, remedy) as file:
        n_bytes = file.seek(0, os.SEEK_END)
        if n_bytes > MAX_BYTES:
            raise InputError(f"{name} has {n_bytes:,} bytes, more than {MAX_BYTES:,}: {remedy}")
        file.seek(0)
        try:
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, name, remedy)
                if "progressive" in image.info:
                    _check_scans(file, name, remedy)
                yield image
        except UnidentifiedImageError as error:
            raise InputError(f"{name} is not a readable image ({', '.join(FORMATS)}): {remedy}") from error
        except UNREADABLE as error:
            raise InputError(f"{name} is not a readable image ({brief(error)}): {remedy}") from error


def upright(image: Image.Image) -> Image.Image:
    """The picture as its camera was held, which EXIF tells.

    Unlike Pillow's exif_transpose it does not rewrite EXIF, which fails in many ways on damaged values.
    """
    image.load()
    turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if turn is None else image.transpose(turn)


def _check_size(image: Image.Image, name: str, remedy: str) -> None:
    """Raise InputError for a picture of too many pixels, or for a strip."""
    width, height = image.size
    at_most = MAX_WEBP_PIXELS if image.format == "WEBP" else MAX_PIXELS
    if width * height > at_most or max(width, height) > MAX_RATIO * min(width, height):
        limits = f"at most {at_most // 10**6} megapixels, and sides that differ at most {MAX_RATIO}-fold"
        raise InputError(f"{name} has {width:,} x {height:,} pixels; allowed are {limits}: {remedy}")


def _check_scans(file: BinaryIO, name: str, remedy: str) -> None:
    """Raise InputError for a progressive JPEG of too many scans."""
    file.seek(0)
    n = file.read().count(b"\xff\xda")
    require(n <= MAX_SCANS, f"{name} has {n} scans; allowed are at most {MAX_SCANS}: {remedy}")
