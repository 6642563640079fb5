"""The views that are computed from the colour images when they are needed: obscured and watermark."""

from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

FINE = 4  # the watermark is drawn FINE times larger and then reduced, for smooth lines
# M V A E as strokes (x, y), each letter in a unit square
LETTERS = (
    [[(0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)]],
    [[(0, 0), (0.5, 1), (1, 0)]],
    [[(0, 1), (0.5, 0), (1, 1)], [(0.22, 0.6), (0.78, 0.6)]],
    [[(1, 0), (0, 0), (0, 1), (1, 1)], [(0, 0.5), (0.8, 0.5)]],
)


def obscure(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) with a black right half."""
    images = images.clone()
    images[..., images.shape[-1] // 2 :] = 0
    return images


def watermark(images: Tensor) -> Tensor:
    """Return images (B, 3, H, H) blended with the watermark: alpha * colour + (1 - alpha) * image.

    Args:
        images: float in [0, 1], or uint8.
    """
    colour, alpha = colour_and_alpha(images.shape[-1], images.device)
    if images.dtype == torch.uint8:
        return (alpha * 255 * colour + (1 - alpha) * images).round().to(torch.uint8)
    return (alpha * colour + (1 - alpha) * images).to(images.dtype)


@cache
def colour_and_alpha(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the watermark in [0, 1]: colour (3, size, size) and alpha (1, size, size)."""
    rgba = torch.from_numpy(np.array(picture(size))).permute(2, 0, 1).to(device) / 255
    return rgba[:3], rgba[3:]


def picture(size: int) -> Image.Image:
    """Draw the watermark (RGBA, size x size): stripes, a ring and the letters MVAE, without a font."""
    unit = size * FINE
    image = Image.new("RGBA", (unit, unit), (255, 255, 255, 0))
    pen = ImageDraw.Draw(image)
    for start in np.arange(-1, 1, 0.25) * unit:
        pen.line([(start, unit), (start + unit, 0)], (255, 255, 255, 90), unit // 40)
    pen.ellipse([0.06 * unit, 0.06 * unit, 0.94 * unit, 0.94 * unit], outline=(200, 30, 30, 140), width=unit // 24)
    for i, strokes in enumerate(LETTERS):
        for stroke in strokes:
            points = [((0.17 + 0.18 * i + 0.12 * x) * unit, (0.4 + 0.2 * y) * unit) for x, y in stroke]
            pen.line(points, (255, 255, 255, 190), unit // 26, joint="curve")
    return image.reduce(FINE)
