"""Drawn garments that replace FashionMNIST's photographs in the demo: ten classes of silhouettes that vary.

A garment consists of a few shapes on a black frame of 28 x 28 pixels: x from -14 to 14, y downwards from 0 to 28.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

SIZE, FINE = 28, 4  # pixels of an image; shapes are drawn FINE times larger and then reduced
Points = list[tuple[float, float]]


class Shape(NamedTuple):
    """A polygon, or a line if its width is positive, in pixels.

    shade: its brightness relative to the garment's, in [0, 1]; 0 cuts it out.
    """

    points: Points
    shade: float = 1.0
    width: float = 0.0


def draw(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Draw random garments (N, 1, 28, 28) uint8, bright on black, of FashionMNIST's classes labels (N,) int64."""
    measures, looks = torch.rand(len(labels), 11, generator=generator).split((6, 5), dim=1)
    drawn = [_raster(_garment(*row)) for row in zip(labels.tolist(), measures.tolist(), strict=True)]
    return (torch.from_numpy(np.stack(drawn)) * _fabric(looks)).round().to(torch.uint8).unsqueeze(1)


def _raster(shapes: list[Shape]) -> np.ndarray:
    """Draw shapes over each other: (28, 28) uint8."""
    image = Image.new("L", (FINE * SIZE, FINE * SIZE))
    pen = ImageDraw.Draw(image)
    for points, shade, width in shapes:
        enlarged, fill = [(FINE * (x + SIZE / 2), FINE * y) for x, y in points], round(255 * shade)
        if width:
            pen.line(enlarged, fill, round(FINE * width), joint="curve")
        else:
            pen.polygon(enlarged, fill)
    return np.asarray(image.reduce(FINE))


def _fabric(looks: Tensor) -> Tensor:
    """Return brightness times weave (N, 28, 28) in [0, 1]: plain, striped across, striped down, or checked.

    Args:
        looks: brightness, depth of both stripes, their period and phase, (N, 5) in [0, 1).
    """
    brightness, across, down, period, phase = looks[:, :, None].unbind(1)  # each (N, 1)
    wave = 0.5 + 0.5 * torch.sin(2 * math.pi * (torch.arange(SIZE) / (3 + 4 * period) + phase))  # (N, 28)
    rows, columns = (1 - (1.6 * depth - 1).clamp(min=0) * wave for depth in (across, down))
    return (0.45 + 0.55 * brightness)[:, :, None] * rows[:, :, None] * columns[:, None, :]


def _within(u: list[float], *ranges: tuple[float, float]) -> list[float]:
    """Map numbers in [0, 1) to their ranges (low, high)."""
    return [low + (high - low) * x for x, (low, high) in zip(u, ranges, strict=True)]


def _mirrored(half: Points, shade: float = 1.0, width: float = 0.0) -> Shape:
    """Return the shape whose right half is given."""
    return Shape(half + [(-x, y) for x, y in reversed(half)], shade, width)


def _arc(y: float, reach: float, depth: float) -> Points:
    """Return half an ellipse below y, or above it if the depth is negative."""
    return [(reach * math.cos(t), y + depth * math.sin(t)) for t in np.linspace(0, math.pi, 9).tolist()]


def _upper(arm: float, waist: tuple[float, float], hip: float, hem: float, sleeve: float) -> list[Shape]:
    """Return the body and sleeves of a top or dress, with the sleeves at x = +-arm.

    Args:
        waist: x and y.
        hip, hem: x and y of the lower end.
        sleeve: length; sleeves of 2 pixels or less are left out.
    """
    body = _mirrored([(0.45 * arm, 2), (arm, 3.5), (arm - 0.5, 9), waist, (hip, hem)])
    cuff, end = arm + 2.6 + 0.08 * sleeve, 3.5 + sleeve
    right = [(arm - 1, 3.2), (arm + 1, 4), (cuff, end), (cuff - 2.8, end + 1), (arm - 0.7, 9.5)]
    return [body, *(Shape([(side * x, y) for x, y in right], 0.75) for side in (-1, 1) if sleeve > 2)]


def _garment(label: int, u: list[float]) -> list[Shape]:
    """Return the shapes of a garment of a class; six numbers u in [0, 1) set its measures (pixels) and shades."""
    match label:
        case 0:  # T-shirt/top
            arm, hem, sleeve, neck, hip, mark = _within(u, (6, 8), (22, 26.5), (-1, 7), (1, 4), (-1, 1), (-3, 4))
            badge = [_mirrored([(mark, 14)], 0.35, 4)] if mark > 1 else []
            return [*_upper(arm, (arm - 0.5, 15), arm + hip, hem, sleeve), *badge, Shape(_arc(2, 0.45 * arm, neck), 0)]
        case 1:  # Trouser
            waist, hip, hem, leg, gap, fork = _within(u, (3.5, 5), (0.3, 1.2), (22, 26), (2, 3.5), (1, 3.5), (8, 12))
            cut = _mirrored([(waist, 2), (waist + hip, 8), (gap + leg, hem), (gap, hem), (0.2, fork)])
            return [cut, _mirrored([(waist, 3)], 0.6, 0.5), Shape([(0, 3), (0, fork)], 0.6, 0.5)]
        case 2:  # Pullover
            arm, hem, neck, hip, cuff, rib = _within(u, (6, 8), (21, 24.5), (0.5, 2), (-0.5, 1), (-4, 0), (0.4, 0.9))
            ribs = [_mirrored([(arm + hip, hem - 1)], rib, 2), Shape(_arc(2, 0.45 * arm, neck + 1.5), rib)]
            body = _upper(arm, (arm + hip + 0.5, 16), arm + hip, hem, hem + cuff - 3.5)
            return [*body, *ribs, Shape(_arc(2, 0.4 * arm, neck), 0)]
        case 3:  # Dress
            arm, waist, y, hip, hem, sleeve = _within(u, (3.5, 5.5), (2.5, 4), (11, 14), (4, 9), (23, 26.5), (-5, 11))
            details = [_mirrored([(waist, y)], 0.5, 1), Shape(_arc(2, 0.45 * arm, 2 + hip / 4), 0)]
            return [*_upper(arm, (waist, y), hip, hem, sleeve), *details]
        case 4:  # Coat
            arm, hip, hem, lapel, gap, sleeve = _within(u, (6, 8), (0, 2.5), (25, 26.8), (6, 13), (0.8, 2), (18, 21))
            lapels = _mirrored([(3.6, 1.5), (4, 4), (0.5, lapel)], 0.55)
            opening = [_mirrored([(2, 1.5), (0, lapel)], 0), Shape([(0, lapel), (0, hem)], 0, gap)]
            return [*_upper(arm, (arm - 0.3, 14), arm + hip, hem, sleeve), lapels, *opening]
        case 5:  # Sandal
            heel, sole, toe, strap, ankle, block = _within(u, (0, 9), (1.2, 2.4), (2, 4), (1, 2), (3, 6), (1.5, 6))
            floor, back = 18 + heel / 2, 18 - heel / 2
            foot = [(-12.5, floor - sole), (-4, floor - sole), (6, back - sole), (12, back - sole), (12, floor)]
            foot += [(12 - block, floor), (11 - block, back), (6, back), (-4, floor), (-12, floor)]
            sling = [(-2, floor - sole), (6, back - sole - ankle), (11, back - sole - ankle), (11.5, back - sole)]
            toes = [(x - 8, y) for x, y in _arc(floor - sole, 3.5, -toe)]
            return [Shape(foot, 0.8), Shape(toes), Shape(sling, 1, strap)]
        case 6:  # Shirt
            arm, waist, hem, sleeve, wing, button = _within(u, (5, 7), (-1, 0), (23, 26), (4, 20), (4, 6.5), (0, 0.4))
            front = [_mirrored([(3.4, 1.2), (2.8, wing), (0.3, 3.5)], 0.5), Shape([(0, 4), (0, hem)], 0.7, 1)]
            buttons = [_mirrored([(0.4, y)], button, 0.8) for y in range(7, int(hem), 3)]
            return [*_upper(arm, (arm + waist, 15), arm + 0.5, hem, sleeve), *front, *buttons]
        case 7:  # Sneaker
            toe, top, lace, sole, shade, rubber = _within(u, (14, 17), (9, 13), (-2, 2), (1, 2.5), (0.2, 0.7), (0.5, 1))
            foot = [(-13, 19), (-11.5, toe), (-5, toe - 1.5), (lace, top), (5, top + 1.5), (11.5, top), (12.7, 19)]
            laces = [Shape([(x, top + 2.5), (x + 3, 18)], shade, 1) for x in (lace - 2, lace + 1)]
            return [Shape(foot), *laces, _mirrored([(12.6, 19 + sole / 2)], rubber, sole)]
        case 8:  # Bag
            wide, slant, high, handle, grip, flap = _within(u, (8, 11.5), (-2, 1), (9, 16), (2, 9), (4, 8), (1, 7))
            top, bottom, edge = 14 + (handle - high) / 2, 14 + (handle + high) / 2, wide + slant
            bag = [Shape(_arc(top + 0.5, grip, -handle), 0.9, 1.2), _mirrored([(edge, top), (wide, bottom)])]
            front = _mirrored([(edge - 1, top + 0.5), (edge - 2, top + flap)], 0.7)
            return [*bag, front, _mirrored([(0.8, top + flap + 0.5)], 0.3, 1.5)]
        case _:  # Ankle boot
            heel, high, shaft, toe, block, sole = _within(u, (1, 7), (16, 23), (8, 11), (3, 5), (2.5, 7), (0.4, 0.9))
            floor, top, back = 14 + high / 2, 14 - high / 2, 14 + high / 2 - heel
            leg = [(11 - shaft, back - 8), (12 - shaft, top), (12, top), (11.2, back - 5), (12.3, back), (3, back)]
            foot = [(-3, floor), (-12.5, floor), (-12.3, floor - toe), (-6, floor - toe - 2)]
            return [Shape(leg + foot), Shape([(12, back), (12, floor), (12 - block, floor), (11 - block, back)], sole)]
