"""The built-in characters: procedural alphabets of strokes, each alphabet with its own habits and its own pen."""

import math
from typing import NamedTuple

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

N_ALPHABETS = {"train": 24, "test": 6}
N_CHARACTERS = {"train": 12, "test": 10}  # in an alphabet
N_INSTANCES = 20  # images of a character, as in Omniglot
SIZE = 28  # height and width of an image, in pixels
STROKES, POINTS, DOTS = 4, 5, 40  # most strokes in a character; points that a stroke passes through; dots that draw it
DRAWN_AT_ONCE = 20  # images; more of them do not fit the cache


def draw_characters(split: str) -> Tensor:
    """Draw the characters of a split, "train" (24 alphabets of 12) or "test" (6 of 10), 20 times each.

    Returns:
        (A, C, 20, 28, 28) float32, 0 or 1; 1 is ink.
    """
    generator = torch.Generator().manual_seed(list(N_ALPHABETS).index(split))
    points, drawn, pen = _characters(_Random(N_ALPHABETS[split], N_CHARACTERS[split], generator))
    points = _handwritten(points, generator)  # (A, C, I, S, P, 2)
    shape = points.shape[:3]
    pen = pen.expand(shape) * (1 + 0.1 * torch.randn(shape, generator=generator))
    drawn = drawn.unsqueeze(2).expand(*shape, STROKES)
    return draw_strokes(points.flatten(0, 2), drawn.flatten(0, 2), pen.flatten()).reshape(*shape, SIZE, SIZE)


class _Random(NamedTuple):
    """Random numbers for A alphabets of C characters of S strokes."""

    n_alphabets: int
    n_characters: int
    generator: torch.Generator

    def habit(self, low: float, high: float) -> Tensor:
        """Draw a number between low and high for each alphabet: (A, 1, 1)."""
        return low + (high - low) * torch.rand(self.n_alphabets, 1, 1, generator=self.generator)

    def each(self, *shape: int) -> Tensor:
        """Draw numbers between 0 and 1 for each stroke: (A, C, S, *shape)."""
        return torch.rand(self.n_alphabets, self.n_characters, STROKES, *shape, generator=self.generator)


def _characters(random: _Random) -> tuple[Tensor, Tensor, Tensor]:
    """Invent the ideal shapes of characters.

    The characters of an alphabet share habits: the number of strokes, their bend and initial directions, whether they
    meet; slant, proportions, size and pen.

    Returns:
        points (A, C, S, P, 2), x and y in pixels from the centre; which strokes are drawn, (A, C, S) bool; the width of
        the pen in pixels, (A, 1, 1).
    """
    count = random.habit(1, STROKES - 1).round() + (random.each()[..., :1] < 0.5)
    drawn = torch.arange(STROKES) < count
    points = _placed(_strokes(random), random)
    points = points * torch.stack([random.habit(0.6, 1), random.habit(0.6, 1)], dim=-1)[..., None, :]
    slant = random.habit(-0.5, 0.5)[..., None]
    points = torch.stack([points[..., 0] + slant * points[..., 1], points[..., 1]], dim=-1)
    return _fitted(points, drawn) * random.habit(13, 21)[..., None, None], drawn, random.habit(1.6, 2.6)


def _strokes(random: _Random) -> Tensor:
    """Invent strokes that begin at the origin: points (A, C, S, P, 2)."""
    # the directions in which strokes begin are multiples of an angle
    angle = math.pi / torch.tensor([2.0, 4.0, 100.0])[(3 * random.habit(0, 1)).long()]
    heading = (2 * math.pi * random.each() / angle).round() * angle
    bend = random.habit(0, 1) * (random.each() - 0.5).sign() + random.habit(0, 0.5) * (2 * random.each() - 1)
    headings = heading[..., None] + bend[..., None] * torch.arange(POINTS - 1)
    length = 0.3 + 0.5 * random.each()
    steps = length[..., None, None] * torch.stack([headings.cos(), headings.sin()], dim=-1)  # (A, C, S, P - 1, 2)
    return torch.cat([torch.zeros_like(steps[..., :1, :]), steps.cumsum(dim=-2)], dim=-2)


def _placed(strokes: Tensor, random: _Random) -> Tensor:
    """Move strokes (A, C, S, P, 2) anywhere, or to a point of the stroke before, if they meet."""
    origin, meets = 2 * random.each(2) - 1, random.each() < random.habit(0, 1)
    meeting_point = (POINTS * random.each()).long()  # its number among the points of the stroke before
    points = strokes + origin[..., None, :]
    for s in range(1, STROKES):
        index = meeting_point[:, :, s, None, None].expand(-1, -1, 1, 2)
        joint = points[:, :, s - 1].gather(2, index)  # (A, C, 1, 2)
        points[:, :, s] = torch.where(meets[:, :, s, None, None], strokes[:, :, s] + joint, points[:, :, s])
    return points


def _fitted(points: Tensor, drawn: Tensor) -> Tensor:
    """Centre the characters' points (A, C, S, P, 2) and scale the longer side of what is drawn to 1."""
    undrawn = ~drawn[..., None, None]
    low, high = points.masked_fill(undrawn, math.inf), points.masked_fill(undrawn, -math.inf)
    low, high = low.amin(dim=(2, 3), keepdim=True), high.amax(dim=(2, 3), keepdim=True)  # (A, C, 1, 1, 2)
    return (points - (low + high) / 2) / (high - low).amax(dim=-1, keepdim=True)


def _handwritten(points: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the ideal points (A, C, S, P, 2) for each image, each point and all together: (A, C, I, S, P, 2)."""
    points = points.unsqueeze(2).expand(-1, -1, N_INSTANCES, -1, -1, -1)
    points = points + 0.6 * torch.randn(points.shape, generator=generator)
    shape = points.shape[:3]
    matrix = torch.eye(2) + 0.08 * torch.randn(*shape, 1, 2, 2, generator=generator)
    return points @ matrix + torch.randn(*shape, 1, 1, 2, generator=generator)


def draw_strokes(points: Tensor, drawn: Tensor, pen: Tensor) -> Tensor:
    """Draw strokes as images.

    Args:
        points: (N, S, P, 2), x and y in pixels from the centre; strokes are cubic splines through them.
        drawn: which strokes are drawn, (N, S) bool.
        pen: the width of the pen in pixels, (N,).

    Returns:
        (N, 28, 28) float32, 0 or 1; a pixel is 1 if the pen passed over its centre.
    """
    # (DOTS, POINTS): the dots of a cubic spline are linear in the points that it passes through
    spline = CubicSpline(range(POINTS), torch.eye(POINTS))(torch.linspace(0, POINTS - 1, DOTS))
    spline = torch.from_numpy(spline).float()
    images = []
    pixels = torch.arange(SIZE) - (SIZE - 1) / 2
    batches = zip(points.split(DRAWN_AT_ONCE), drawn.split(DRAWN_AT_ONCE), pen.split(DRAWN_AT_ONCE), strict=True)
    for batch_points, batch_drawn, width in batches:
        dots = (spline @ batch_points).masked_fill(~batch_drawn[..., None, None], math.inf).flatten(1, 2)
        x, y = ((dots[..., i, None] - pixels).square() for i in (0, 1))  # (n, S * DOTS, 28)
        nearest = (y[..., :, None] + x[..., None, :]).amin(dim=1)  # squared distance to the nearest dot, (n, 28, 28)
        images.append(nearest <= (width[:, None, None] / 2).square())
    return torch.cat(images).float()
