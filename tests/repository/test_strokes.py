"""Drawings are read as the digits of MNIST are, whatever the brush, the size and the place."""

from tools.exploration import strokes

import numpy as np
import pytest
from PIL import Image, ImageDraw
from skimage.morphology import skeletonize

FOUR = np.array([(0.6, 0.0), (0.0, 0.6), (1.0, 0.6)]), np.array([(0.75, 0.2), (0.7, 1.0)])
TWO = (np.array([(0.0, 0.2), (0.4, 0.0), (0.9, 0.2), (0.6, 0.6), (0.0, 1.0), (1.0, 0.95)]),)


def drawn(lines, height, corner, width):
    """The ink of lines through points (x, y) of the unit square, on a canvas of 280 x 280 pixels."""
    ink = Image.new("L", (280, 280))
    pen = ImageDraw.Draw(ink)
    for line in lines:
        points = line * (0.7 * height, height) + corner
        pen.line([tuple(point) for point in points], fill=255, width=width, joint="curve")
        for x, y in points:
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
    return ink


def thickness(pixels):
    """Ink for each pixel of the skeleton; MNIST's test digits have 2.8 on average."""
    return (pixels / 255).sum() / skeletonize(pixels > 127).sum()


@pytest.mark.parametrize("lines", [FOUR, TWO])
def test_brush_size_and_place_do_not_matter(lines):
    kinds = [(100, (20, 20), 10), (100, (160, 150), 10), (220, (50, 30), 10), (220, (50, 30), 24)]
    digits = [strokes.digit(drawn(lines, *kind)) for kind in kinds]
    for pixels in digits:
        assert pixels.shape == (28, 28) and pixels.dtype == np.uint8 and 2.2 < thickness(pixels) < 3.5
        rows, columns = np.nonzero(pixels > 127)
        assert 19 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
        mass = pixels / pixels.sum()
        centre = [(mass.sum(1 - axis) * np.arange(28)).sum() for axis in (0, 1)]
        assert centre == pytest.approx([13.5, 13.5], abs=0.6)
        assert abs(pixels / 255 - digits[0] / 255).mean() < 0.03, "a fifth of the ink"


def test_a_dot_is_read():
    rows, columns = np.nonzero(strokes.digit(drawn([np.zeros((2, 2))], 1, (30, 40), 24)) > 127)
    assert 2 <= np.ptp(rows) + 1 <= 4 and (rows.mean(), columns.mean()) == pytest.approx((13.5, 13.5), abs=0.6)


def test_digits_that_keep_their_place_have_the_thickness_of_their_size():
    ink = Image.new("L", (280, 280))
    ink.paste(255, (56, 28, 84, 252))  # a line of 28 pixels, 5 of 50
    pixels = strokes.in_place(ink, 50, 1.3)
    columns = np.nonzero(pixels.max(axis=0) > 127)[0]
    assert columns.mean() == pytest.approx(12, abs=0.6) and len(columns) <= 3
    assert pixels.shape == (50, 50) and thickness(pixels) == pytest.approx(2.4 / 1.3, abs=0.35)
