"""What the drawn faces and birds of the demos share: random measures, shapes, a background, and light, blur and grain.

A shape is the signed distance of each pixel to its edge, negative inside.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

SIZE = 64
BATCH = 32  # pictures drawn at once, which fit into a processor's cache; the pictures do not depend on it
CELLS = 7  # across the background's pattern
Measure = Tensor | float
Range = tuple[float, float]


class Draws:
    """Uniform numbers for n pictures, used column by column: no attribute changes what a column is used for.

    Args:
        n_measures: number of columns.

    Attributes:
        pattern: uniform numbers (n, 3, CELLS, CELLS) for `patterned`.
        grain: uniform numbers (n, 3, SIZE, SIZE) for `photograph`.
    """

    def __init__(self, n: int, n_measures: int, generator: torch.Generator) -> None:
        sizes = n_measures, 3 * CELLS**2, 3 * SIZE**2
        measures, pattern, grain = torch.rand(n, sum(sizes), generator=generator).split(sizes, dim=1)
        self.columns = iter(measures[:, :, None, None].unbind(dim=1))
        self.pattern, self.grain = pattern.view(n, 3, CELLS, CELLS), grain.view(n, 3, SIZE, SIZE)

    def __call__(self, low: Measure, high: Measure) -> Tensor:
        """Uniform in [low, high): (n, 1, 1)."""
        return low + (high - low) * next(self.columns)

    def either(self, flag: Tensor, yes: Range, no: Range) -> Tensor:
        """Uniform in the range `yes` where the flag (n, 1, 1) is set, else in `no`: (n, 1, 1)."""
        number = next(self.columns)
        return torch.where(flag > 0, *(low + (high - low) * number for low, high in (yes, no)))

    def chance(self, probability: float) -> Tensor:
        """1 with a probability, else 0: (n, 1, 1)."""
        return (next(self.columns) < probability).float()


def rgb(red: float, green: float, blue: float) -> Tensor:
    """A colour, (3, 1, 1)."""
    return torch.tensor([red, green, blue], dtype=torch.float).view(3, 1, 1)


def along_ray(x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """The distance from (x, y) to the point on its ray from the origin where the radius is 1."""
    return (1 - 1 / radius.clamp(min=0.05)) * (x.square() + y.square()).sqrt()


def ellipse(x: Tensor, y: Tensor, a: Measure, b: Measure) -> Tensor:
    """The distance to an ellipse around the origin with half axes a and b, along the ray from its middle."""
    return along_ray(x, y, ((x / a).square() + (y / b).square()).sqrt())


def slope(draws: Draws, middle: float, across: float, down: float) -> Tensor:
    """A random slope (n, SIZE, SIZE): `middle`, and up to `across` and `down` more or less at the edges."""
    steps = torch.linspace(-1, 1, SIZE)
    return middle + draws(-across, across) * steps + draws(-down, down) * steps[:, None]


def patterned(draws: Draws, grey: float) -> Tensor:
    """The background's pattern, smooth and around 0: (n, 3, SIZE, SIZE), a share `grey` of the way to grey."""
    pattern = draws.pattern.lerp(draws.pattern[:, :1], grey)
    return interpolate(pattern, size=SIZE, mode="bilinear") - 0.5


def photograph(
    image: Tensor, draws: Draws, light: Range, across: float, warmth: float, blur: float, grain: Range
) -> Tensor:
    """Light an image (n, 3, SIZE, SIZE) from a random side, blur it a little and add grain: uint8.

    Args:
        light: range of the light.
        across: largest change of it from left to right.
        warmth: largest red or blue shift.
        blur: largest share of blur.
        grain: range of the grain.
    """
    lit = draws(*light) * slope(draws, 1, across, 0.1)
    warm = draws(-warmth, warmth)
    image = image.clamp(0, 1) * torch.stack([lit * (1 + warm), lit, lit * (1 - warm)], dim=1)
    blurred = avg_pool2d(pad(image, [1] * 4, mode="replicate"), 3, stride=1)
    image = image.lerp(blurred, draws(0, blur)[:, None])
    image += draws(*grain)[:, None] * (draws.grain - 0.5)
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)
