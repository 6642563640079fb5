"""Pictures: the one place where files are decoded by Pillow."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from common.errors import require
from common.io import reading

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # the decoders of others start programs, take minutes, or print
MAX_PIXELS = 64_000_000

Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # also for sizes that a picture's own blocks claim; beyond twice as many it raises
warnings.filterwarnings("ignore", module=r"PIL\.")


@contextmanager
def open_picture(source: Path | bytes, remedy: str, name: str = "") -> Iterator[Image.Image]:
    """A picture whose size is known and whose pixels are not decoded yet.

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
