"""Drawings as MNIST's digits are: strokes of the same thickness, whatever the brush and the size of the drawing."""

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

THICKNESS = 2.4  # pixels: the ink for each pixel of the skeleton is then 2.8, the mean of MNIST's test digits
BOX, DIGIT = 20, 28  # MNIST's longer side of a digit, and of its image, pixels
DOT = 6  # longer side of a drawing's skeleton, pixels; a smaller drawing is a dot, and is not enlarged
FINE = 4  # parts of a pixel's side, over which ink is averaged


def digit(ink: Image.Image) -> np.ndarray:
    """Return a drawing as a digit of MNIST: the longer side 20 pixels, the centre of mass in the middle.

    Args:
        ink: how much ink is where, mode L, with some ink; of any size.

    Returns:
        (28, 28) uint8, bright on black.
    """
    points = _skeleton(ink)
    points = points * (BOX - THICKNESS) / max(*np.ptp(points, axis=0), DOT)
    within = (THICKNESS + 1) / 2  # from the centre of a stroke to the border
    middle = DIGIT / 2 - points.mean(axis=0)
    return _inked(points + np.clip(middle, within - points.min(axis=0), DIGIT - within - points.max(axis=0)), DIGIT, 1)


def in_place(ink: Image.Image, size: int, shrink: float) -> np.ndarray:
    """Return a drawing (size, size) uint8, bright on black, whose strokes stay where they were drawn.

    Args:
        ink: as for `digit`, square.
        shrink: how many times thinner than MNIST's the strokes are.
    """
    return _inked(_skeleton(ink) * size / ink.width, size, shrink)


def _skeleton(ink: Image.Image) -> np.ndarray:
    """Return the points (N, 2), row and column, of lines one pixel wide in the middle of the strokes."""
    left, top, *_ = box = ink.getbbox()
    pixels = np.pad(np.asarray(ink.crop(box)), 1)
    corner = np.array([top - 0.5, left - 0.5])
    return np.argwhere(skeletonize(pixels > pixels.max() / 2)) + corner


def _inked(points: np.ndarray, size: int, shrink: float) -> np.ndarray:
    """Return strokes (size, size) uint8 along points (N, 2), in pixels."""
    blank = np.ones((FINE * size, FINE * size), bool)
    blank[tuple((FINE * points).astype(int).clip(0, FINE * size - 1).T)] = False
    outside = distance_transform_edt(blank) - FINE * THICKNESS / shrink / 2  # in parts of a pixel
    ink = (0.5 - outside / 2).clip(0, 1)  # the edge is soft over half a pixel
    return (255 * ink.reshape(size, FINE, size, FINE).mean(axis=(1, 3))).round().astype(np.uint8)
