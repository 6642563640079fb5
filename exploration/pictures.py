"""Pictures on the explorer's page. They travel as data URIs, so that no file is ever written or served."""

import base64
import binascii
import html
from io import BytesIO
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from common.data.pictures import MAX_PIXELS, open_picture
from common.errors import InputError, require

SIDE = 280  # width and height of the canvas, pixels
MAX_BYTES = 16 * 2**20  # of an upload, and of a request
START = "data:image/png;base64,"
CANVAS = f"""
<canvas width="{SIDE}" height="{SIDE}" role="img" aria-label="${{label}}"></canvas>
<div><label>picture <input type="file" accept="image/*"></label> <button type="button">Clear</button></div>
<p role="alert"></p>
"""
STYLE = "canvas { margin-top: 1.5rem; border: 1px solid; background: #fff; touch-action: none; }"


def canvas(label: str, drawn: bool) -> gr.HTML:
    """A component to upload a picture with, and to draw one if `drawn`; its value is for `read`."""
    script = Path(__file__).with_name("picture.js").read_text()
    limits = {"max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}
    shape = {"html_template": CANVAS, "css_template": STYLE, "js_on_load": script}
    return gr.HTML("", label=label, show_label=True, container=True, drawn=drawn, **shape, **limits)


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
    with open_picture(content, "choose another one", "the picture") as image:
        return ImageOps.fit(image, (SIDE, SIDE)).convert("RGBA")


def digit(ink: Image.Image) -> Image.Image:
    """A drawing as MNIST's digits are: bright on black, 28 x 28, the longer side 20, the centre of mass in the middle.

    Args:
        ink: how much ink is where, with mode L; it is not empty.
    """
    pixels = np.array(ImageOps.contain(ink.crop(ink.getbbox()), (20, 20)))
    mass = pixels / pixels.sum()
    centre = [float((mass.sum(1 - axis) * (np.arange(n) + 0.5)).sum()) for axis, n in enumerate(pixels.shape)]
    row, column = (min(max(round(14 - x), 0), 28 - n) for x, n in zip(centre, pixels.shape, strict=True))
    whole = Image.new("L", (28, 28))
    whole.paste(Image.fromarray(pixels), (column, row))
    return whole


def output(label: str) -> gr.HTML:
    """A component that shows a picture, given by `shown`."""
    return gr.HTML(label=label, show_label=True, container=True, css_template="img { margin-top: 1.5rem; }")


def shown(pixels: np.ndarray, label: str) -> str:
    """A picture (H, W, 3) uint8 as HTML."""
    png = BytesIO()
    Image.fromarray(pixels).save(png, "PNG", compress_level=1)
    return f'<img alt="{html.escape(label)}" src="{START}{base64.b64encode(png.getvalue()).decode()}">'
