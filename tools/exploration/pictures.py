"""Pictures on the explorer's page. They travel as data URIs, so that no file is ever written or served."""

import base64
import binascii
import html
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from threading import Lock

from common.data.image_caches import MAX_PIXELS, open_picture
from common.errors import InputError, require

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

SIDE = 280  # width and height of the canvas, pixels
MAX_BYTES = 16 * 2**20  # of an upload, and of a request
MAX_DECODED = 4_000_000  # pixels; the page sends SIDE x SIDE
DECODING = Lock()  # one picture at a time, for the sake of memory
START = "data:image/png;base64,"
CANVAS = f"""
<canvas width="{SIDE}" height="{SIDE}" role="img" aria-label="${{label}}"></canvas>
<div class="examples">${{examples}}</div>
<label>picture <input type="file" accept="image/*"></label> <button type="button" class="clear">Clear</button>
<p role="alert"></p>
"""


def canvas(label: str, examples: Sequence[str], brush: float | None) -> gr.HTML:
    """A component to upload a picture with, and to draw one; its value is for `read`.

    Args:
        examples: tags of pictures that take the canvas when they are clicked.
        brush: width of the brush, pixels of the canvas; None for no drawing.
    """
    script = Path(__file__).with_name("picture.js").read_text()
    limits = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
    shape = {"html_template": CANVAS, "js_on_load": script, "elem_classes": "given-picture"}
    buttons = "".join(f'<button type="button">{tag}</button>' for tag in examples)
    return gr.HTML("", label=label, show_label=True, container=True, examples=buttons, brush=brush, **shape, **limits)


def read(value: str) -> Image.Image | None:
    """The canvas as an RGBA picture; None if it is empty. A drawing is opaque where there is ink, an upload everywhere.

    Raises:
        InputError: it is not a picture, or has too many pixels.
    """
    if not value:
        return None
    require(value.startswith(START), f"a picture is given as {START}..., not as {value[:30]!r}")
    try:
        content = base64.b64decode(value[len(START) :], validate=True)
    except binascii.Error as error:
        raise InputError("the picture is not base64: choose another one") from error
    with DECODING, open_picture(content, "choose another one", "the picture") as image:
        width, height = image.size
        fits = width * height <= MAX_DECODED
        require(fits, f"the picture has {width:,} x {height:,} pixels, more than {MAX_DECODED:,}: choose another one")
        return ImageOps.fit(image, (SIDE, SIDE)).convert("RGBA")


def tag(pixels: np.ndarray, label: str) -> str:
    """A picture (H, W, 3) uint8 as HTML."""
    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG", compress_level=1)
    return f'<img alt="{html.escape(label)}" src="{START}{base64.b64encode(png.getvalue()).decode()}">'
