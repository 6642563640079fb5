"""Draw birds with known attributes, for the demo.

A shape is a signed distance to its edge at each pixel, negative inside. Coordinates: x points forwards and y downwards
from the middle of the body, which is 28 long. The body leans back: the axis `along` runs from tail to head, `across`
from back to belly.
"""

from collections.abc import Sequence

from celeba.drawing import BATCH, SIZE, Draws, Measure, ellipse, patterned, photograph, rgb, slope

import torch
from torch import Tensor

PIGMENTS = {"black": (0.07, 0.07, 0.09), "white": (0.96, 0.96, 0.94), "gray": (0.53, 0.54, 0.57)}
PIGMENTS |= {"brown": (0.46, 0.27, 0.12), "red": (0.86, 0.1, 0.1), "yellow": (0.97, 0.83, 0.1)}
PIGMENTS |= {"blue": (0.13, 0.33, 0.86), "green": (0.17, 0.58, 0.18)}
COLOURS = ("black", "white", "red", "yellow", "blue")
ATTRIBUTES: dict[str, tuple[str, ...]] = {"crown": COLOURS, "wings": COLOURS, "belly": COLOURS}
ATTRIBUTES |= {"bill": ("short", "long"), "tail": ("short", "long"), "size": ("small", "large")}

SCENES = (0.62, 0.76, 0.88), (0.8, 0.84, 0.86), (0.45, 0.58, 0.35), (0.3, 0.42, 0.28), (0.75, 0.7, 0.58)
SCENES += ((0.5, 0.45, 0.38),)  # skies, leaves, sand and earth
HORNS = (0.16, 0.15, 0.16), (0.85, 0.52, 0.15)  # colours of bills

MEASURES = 63  # random numbers for a bird's measures and colours
Place = tuple[Measure, Measure]


def random_attributes(n: int, generator: torch.Generator) -> Tensor:
    """Random attributes (n, A) int64: indices of their values in ATTRIBUTES, uniform and independent."""
    return torch.stack([torch.randint(len(x), (n,), generator=generator) for x in ATTRIBUTES.values()], dim=1)


def draw(attributes: Tensor, generator: torch.Generator) -> Tensor:
    """Images (N, 3, 64, 64) uint8 of random birds with the given attributes (N, A)."""
    return torch.cat([_Picture(rows, generator).finished() for rows in attributes.split(BATCH)])


class _Picture:
    """Images of n birds, painted from the background to the eye. Flags and measures are (n, 1, 1)."""

    def __init__(self, attributes: Tensor, generator: torch.Generator) -> None:
        self.draws = Draws(len(attributes), MEASURES, generator)
        values = dict(zip(ATTRIBUTES, attributes.T, strict=True))
        self.is_long = {name: (values[name] > 0).float()[:, None, None] for name in ("bill", "tail")}
        self.is_large = (values["size"] > 0).float()[:, None, None]
        palette = torch.tensor([PIGMENTS[name] for name in COLOURS])[:, :, None, None]
        self.crown, self.back, self.belly = (
            palette[values[name]] + 0.08 * (self._colour(1) - 0.5) for name in ("crown", "wings", "belly")
        )
        self._background()
        self._pose()
        for step in (self._perch, self._tail, self._body, self._head, self._wing):
            step()

    def finished(self) -> Tensor:
        """The images (n, 3, 64, 64) uint8, with light, a little blur and grain added."""
        return photograph(self.image, self.draws, (0.85, 1.08), 0.1, 0.05, 0.5, (0, 0.03))

    def _colour(self, vivid: float) -> Tensor:
        """Random colours (n, 3, 1, 1): greys for vivid = 0, any colour for 1."""
        colour = torch.stack([self.draws(0, 1) for _ in range(3)], dim=1)
        return colour.mean(dim=1, keepdim=True).lerp(colour, vivid)

    def _one_of(self, colours: Sequence[tuple[float, float, float]]) -> Tensor:
        """One of the colours at random for each bird: (n, 3, 1, 1)."""
        return torch.tensor(colours)[self.draws(0, len(colours)).long().flatten(), :, None, None]

    def _paint(self, distance: Tensor, colour: Tensor, strength: Measure = 1) -> None:
        """Paint a shape over the images, with an edge one pixel wide."""
        cover = (0.5 - distance * self.scale).clamp(0, 1) * strength
        self.image.lerp_(colour, cover[:, None])

    def _background(self) -> None:
        """Paint sky, leaves, sand or earth, out of focus, and set the scale to 1."""
        self.scale = 1
        ramp = slope(self.draws, 0.5, 0.4, 0.6).clamp(0, 1)
        scenes = [self._one_of(SCENES) + 0.1 * (self._colour(0.5) - 0.5) for _ in range(2)]
        self.image = scenes[0].lerp(scenes[1], ramp[:, None] * self.draws(0, 0.3)[:, None])
        self.image += self.draws(0, 0.1)[:, None] * patterned(self.draws, 0.7)

    def _pose(self) -> None:
        """Choose size, slope, head and position of each bird, and set the coordinates of its pixels."""
        steps = torch.arange(SIZE) - (SIZE - 1) / 2
        self.scale = self.draws.either(self.is_large, (0.9, 1), (0.62, 0.7))
        self.slope = self.draws(0.3, 0.35)  # of the body in radians, head up
        self.bill = self.draws.either(self.is_long["bill"], (11, 13), (3.2, 4.2))
        self.tail = self.draws.either(self.is_long["tail"], (16, 19), (4, 6))
        self.head = self._upright(self.draws(12, 13), self.draws(-9, -8))
        front, rear = self.head[0] + 6 + self.bill, (13 + self.tail) * self.slope.cos()
        free = (SIZE / 2 - 1 - self.scale * (front + rear) / 2).clamp(min=0.5)
        self.x = (steps - self.draws(-0.1, 0.1) * free) / self.scale + (front - rear) / 2
        self.y = (steps[:, None] - self.draws(-1, 1) * (1.4 - self.scale)) / self.scale
        self.along = self.slope.cos() * self.x - self.slope.sin() * self.y
        self.across = self.slope.sin() * self.x + self.slope.cos() * self.y

    def _upright(self, along: Measure, across: Measure) -> Place:
        """Position (x, y) of a point that is given on the body's axes, which lean back by the slope."""
        cos, sin = self.slope.cos(), self.slope.sin()
        return cos * along + sin * across, cos * across - sin * along

    def _perch(self) -> None:
        """Paint a branch or the ground, and the legs on it."""
        bark = rgb(0.33, 0.25, 0.18) + 0.2 * (self._colour(0.3) - 0.5)
        self.level, thick, tilt = self.draws(14, 16.5), self.draws(1.2, 2.6), self.draws(-0.12, 0.12)
        below = self.y - self.level - tilt * self.x
        ground = (self.draws(0, 1) < 0.3).float()
        self._paint(torch.where(ground > 0, -below, (below - thick).abs() - thick), bark + 0.25 * ground[:, None])
        legs = 0.5 * bark + 0.15 * self._colour(1)
        for foot in (self.draws(-3.5, -1.5), self.draws(1, 3)):
            leg = _taper(self.x, self.y, (foot, 6.0), (foot + 1, self.level + tilt * foot), 0.7, 0.6)
            self._paint(leg, legs)

    def _tail(self) -> None:
        """Paint the tail, with a dark edge."""
        droop = self.draws(-0.2, 0.3)
        end = -12 - self.tail * droop.cos(), 1 + self.tail * droop.sin()
        tail = _taper(self.along, self.across, (-9.0, 0.0), end, 3, self.draws(2, 3))
        self._paint(tail - 0.6, 0.35 * self.back)
        self._paint(tail, 0.85 * self.back)

    def _body(self) -> None:
        """Paint body and throat, with a dark edge, and the belly on them."""
        body = ellipse(self.along, self.across, 14, self.draws(8.5, 10))
        throat = _taper(self.x, self.y, self._upright(6.0, -1.0), self.head, 8, 6)
        outline = torch.minimum(body, throat)
        self._paint(outline - 0.6, 0.35 * self.back)
        shade = (1.05 - 0.02 * self.across)[:, None]
        self._paint(outline, self.back * shade)
        edge = self.draws(-1, 1.5) - self.across - self.draws(0.3, 0.5) * self.along.clamp(min=0)
        self._paint(torch.maximum(outline, edge), self.belly * shade)

    def _head(self) -> None:
        """Paint the bill, the head with its crown, and the eye."""
        x, y = self.x - self.head[0], self.y - self.head[1]
        aim, size = self.draws(-0.1, 0.1), self.draws(6.2, 7)
        x, y = aim.cos() * x + aim.sin() * y, aim.cos() * y - aim.sin() * x
        tip = size + self.bill, self.draws(0.3, 1.5)
        self._paint(_taper(x, y, (size - 2, 0.5), tip, 2.6, 0.8), self._one_of(HORNS))
        skull = (x.square() + y.square()).sqrt() - size
        self._paint(skull, self.belly)
        cap = torch.maximum(skull - 0.5, y + self.draws(0, 1) + 0.25 * x)
        self._paint(torch.maximum(skull - 1, y + 0.25 * x), 0.5 * self.crown)
        self._paint(cap, self.crown)
        eye = ((x - 2.5).square() + (y - 0.3).square()).sqrt()
        self._paint(eye - 1.9, rgb(0.92, 0.9, 0.85), 0.7)
        self._paint(eye - 1.2, rgb(0.03, 0.03, 0.03))

    def _wing(self) -> None:
        """Paint the wing and its feathers."""
        drop = self.draws(0, 3)
        start, end = (self.draws(3, 6), self.draws(-2.5, -1)), (self.draws(-16, -13), drop)
        wing = _taper(self.along, self.across, start, end, self.draws(4.5, 5.5), 1)
        self._paint(wing - 0.7, 0.4 * self.back)
        self._paint(wing, self.back)
        feathers = torch.sin(self.draws(1.5, 2.2) * (self.across + 0.35 * self.along)) - 0.2
        back = (0.5 - 0.3 * (self.along + 2)).clamp(0, 1)
        self._paint(torch.maximum(wing + 0.5, -feathers), 0.6 * self.back + 0.06, 0.7 * back)


def _taper(x: Tensor, y: Tensor, start: Place, end: Place, first: Measure, last: Measure) -> Tensor:
    """Signed distance to the edge of a line from start to end, whose half width goes from `first` to `last`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = (((x - start[0]) * dx + (y - start[1]) * dy) / (dx**2 + dy**2)).clamp(0, 1)
    distance = ((x - start[0] - share * dx).square() + (y - start[1] - share * dy).square()).sqrt()
    return distance - first - share * (last - first)
