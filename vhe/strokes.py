"""Procedural characters in alphabets, for the demo: written by hand, as it were, with a pen of the alphabet's."""

import math

import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

N_ALPHABETS = {"train": 24, "test": 6}
N_CHARACTERS = {"train": 12, "test": 10}  # of an alphabet
N_INSTANCES = 20  # of a character, as Omniglot's drawers
SIZE = 28
STROKES, POINTS, DOTS = 4, 5, 40  # strokes of a character at most, points each goes through, dots it is drawn with
DRAWN_AT_ONCE = 20  # more of them leave the cache
# the dots (DOTS,) of a stroke are linear in its points (POINTS,)
SPLINE = torch.from_numpy(CubicSpline(range(POINTS), torch.eye(POINTS))(torch.linspace(0, POINTS - 1, DOTS))).float()


def demo(split: str) -> Tensor:
    """The characters of a split, "train" (24 alphabets of 12) or "test" (6 of 10), each 20 times.

    Returns:
        (A, C, 20, 28, 28) float32, 0 or 1; 1 is ink.
    """
    generator = torch.Generator().manual_seed(list(N_ALPHABETS).index(split))
    points, drawn, pen = _characters(N_ALPHABETS[split], N_CHARACTERS[split], generator)
    points = _written(points, generator)  # (A, C, I, S, P, 2)
    shape = points.shape[:3]
    pen = pen.expand(shape) * (1 + 0.1 * torch.randn(shape, generator=generator))
    drawn = drawn.unsqueeze(2).expand(*shape, STROKES)
    return draw(points.flatten(0, 2), drawn.flatten(0, 2), pen.flatten()).reshape(*shape, SIZE, SIZE)


def _characters(n_alphabets: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What the characters ought to look like.

    An alphabet has habits: how many strokes, how they bend, which directions they set out in, whether they meet; slant,
    proportions, size and pen.

    Returns:
        points (A, C, S, P, 2), x and y in pixels from the centre; the strokes that are drawn (A, C, S) bool; the width
        of the pen (A, 1, 1) in pixels.
    """

    def habit(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n_alphabets, 1, 1, generator=generator)

    def each(*shape: int) -> Tensor:
        return torch.rand(n_alphabets, n, STROKES, *shape, generator=generator)

    count = habit(1, STROKES - 1).round() + (each()[..., :1] < 0.5)
    drawn = torch.arange(STROKES) < count
    angle = math.pi / torch.tensor([2.0, 4.0, 100.0])[(3 * habit(0, 1)).long()]  # of which directions are multiples
    heading = (2 * math.pi * each() / angle).round() * angle
    bend = habit(0, 1) * (each() - 0.5).sign() + habit(0, 0.5) * (2 * each() - 1)
    headings = heading[..., None] + bend[..., None] * torch.arange(POINTS - 1)
    length = 0.3 + 0.5 * each()
    steps = length[..., None, None] * torch.stack([headings.cos(), headings.sin()], dim=-1)  # (A, C, S, P - 1, 2)
    strokes = torch.cat([torch.zeros_like(steps[..., :1, :]), steps.cumsum(dim=-2)], dim=-2)

    free, meets, where = 2 * each(2) - 1, each() < habit(0, 1), (POINTS * each()).long()
    points = strokes + free[..., None, :]
    for s in range(1, STROKES):
        before = points[:, :, s - 1].gather(2, where[:, :, s, None, None].expand(-1, -1, 1, 2))  # (A, C, 1, 2)
        points[:, :, s] = torch.where(meets[:, :, s, None, None], strokes[:, :, s] + before, points[:, :, s])

    points = points * torch.stack([habit(0.6, 1), habit(0.6, 1)], dim=-1)[..., None, :]
    points = torch.stack([points[..., 0] + habit(-0.5, 0.5)[..., None] * points[..., 1], points[..., 1]], dim=-1)
    undrawn = ~drawn[..., None, None]
    low, high = points.masked_fill(undrawn, math.inf), points.masked_fill(undrawn, -math.inf)
    low, high = low.amin(dim=(2, 3), keepdim=True), high.amax(dim=(2, 3), keepdim=True)  # (A, C, 1, 1, 2)
    points = (points - (low + high) / 2) / (high - low).amax(dim=-1, keepdim=True)
    return points * habit(13, 21)[..., None, None], drawn, habit(1.6, 2.6)


def _written(points: Tensor, generator: torch.Generator) -> Tensor:
    """The points (A, C, S, P, 2) as they come out each time, (A, C, I, S, P, 2): moved one by one and all together."""
    points = points.unsqueeze(2).expand(-1, -1, N_INSTANCES, -1, -1, -1)
    points = points + 0.6 * torch.randn(points.shape, generator=generator)
    shape = points.shape[:3]
    matrix = torch.eye(2) + 0.08 * torch.randn(*shape, 1, 2, 2, generator=generator)
    return points @ matrix + torch.randn(*shape, 1, 1, 2, generator=generator)


def draw(points: Tensor, drawn: Tensor, pen: Tensor) -> Tensor:
    """Strokes as images.

    Args:
        points: (N, S, P, 2), x and y in pixels from the centre; strokes are cubic splines through them.
        drawn: (N, S) bool, the strokes that there are.
        pen: (N,), its width in pixels.

    Returns:
        (N, 28, 28) float32, 0 or 1: whether the pen came over a pixel's centre.
    """
    images = []
    pixels = torch.arange(SIZE) - (SIZE - 1) / 2
    for some, there, width in zip(*(x.split(DRAWN_AT_ONCE) for x in (points, drawn, pen)), strict=True):
        dots = (SPLINE @ some).masked_fill(~there[..., None, None], math.inf).flatten(1, 2)  # (n, S * DOTS, 2)
        x, y = ((dots[..., i, None] - pixels).square() for i in (0, 1))  # (n, S * DOTS, 28)
        nearest = (y[..., :, None] + x[..., None, :]).amin(dim=1)
        images.append(nearest <= (width[:, None, None] / 2).square())
    return torch.cat(images).float()
