"""Synthetic SVHN: digits of MNIST made to look like house numbers in street photographs, 32 x 32 in colour."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, interpolate, pad

SIZE = 32
BATCH = 2000  # images drawn at once


class Street(NamedTuple):
    """How hard the images are.

    contrast: difference in luminance between digit and background, of either sign.
    texture: greatest standard deviation of the background's coarse and fine patterns.
    light: standard deviation of the slope of the light, from the middle to the border.
    blur: standard deviation of the blur, in pixels.
    noise: greatest standard deviation of the pixels' noise.
    neighbour: probability of a neighbour on the left, and on the right, cut off by the border.
    size: of the digit, as a ratio.
    turn, slant: standard deviations of the digit's angle, in radians, and of its shear.
    shift: greatest distance of the digit from the middle, in pixels.
    """

    contrast: tuple[float, float]
    texture: float
    light: float
    blur: tuple[float, float]
    noise: float
    neighbour: float
    size: tuple[float, float]
    turn: float
    slant: float
    shift: float


# classifiers find these as hard as SVHN (README.md)
AS_SVHN = Street((0.15, 0.65), 0.1, 0.08, (0.4, 1.6), 0.05, 0.6, (0.8, 1.15), 0.12, 0.15, 2)
CLEAN = Street((0.5, 0.8), 0.03, 0.02, (0.4, 0.8), 0.02, 0.0, (0.95, 1.05), 0.03, 0.03, 0.5)  # learnt in minutes


def street_digits(digits: Tensor, seed: int, street: Street = AS_SVHN) -> Tensor:
    """Draw one synthetic SVHN image for each digit.

    Args:
        digits: (N, 28, 28) uint8; the neighbours are drawn from them too.
        seed: seed of all random draws.
        street: how hard the images are.

    Returns:
        (N, 3, 32, 32) uint8, in the digits' order.
    """
    generator = torch.Generator().manual_seed(seed)
    batches = torch.arange(len(digits)).split(BATCH)
    return torch.cat([_batch(digits, rows, generator, street) for rows in batches])


def _batch(digits: Tensor, rows: Tensor, generator: torch.Generator, street: Street) -> Tensor:
    """Images (n, 3, 32, 32) uint8 of the digits in these rows (n,)."""
    n, uniform = len(rows), partial(_uniform, generator, len(rows))
    ink = _ink(digits, rows, generator, street)
    paper = uniform(0, 1, 1, 1, 1)
    contrast = uniform(*street.contrast, 1, 1, 1)
    darker = (paper > 1 - contrast) | ((paper > contrast) & (uniform(0, 1, 1, 1, 1) < 0.5))
    pigment = paper + torch.where(darker, -contrast, contrast)
    tint = uniform(0, 0.3, 1, 1, 1)
    paper, pigment = (c + tint * (uniform(0, 1, 3, 1, 1) - 0.5) for c in (paper, pigment))  # (n, 3, 1, 1)
    for cells in (4, 11):
        pattern = interpolate(_normal(generator, n, 1, cells, cells), size=SIZE, mode="bicubic")
        paper = paper + uniform(0, street.texture, 1, 1, 1) * pattern
    slope = _normal(generator, n, 1, 1, 2)
    ramp = torch.linspace(-1, 1, SIZE)
    light = street.light * (slope[..., :1] * ramp + slope[..., 1:] * ramp.view(-1, 1))
    image = _blurred(paper + ink * (pigment - paper) + light, uniform(*street.blur))
    image = image + uniform(0, street.noise, 1, 1, 1) * _normal(generator, n, 3, SIZE, SIZE)
    return (255 * image.clamp(0, 1)).round().to(torch.uint8)


def _ink(digits: Tensor, rows: Tensor, generator: torch.Generator, street: Street) -> Tensor:
    """Amount of ink (n, 1, 32, 32) in [0, 1]: the digits in the middle, and neighbours that the border cuts off."""
    n, uniform = len(rows), partial(_uniform, generator, len(rows))
    size, angle = uniform(*street.size), street.turn * _normal(generator, n)
    shear, shift = street.slant * _normal(generator, n), uniform(-street.shift, street.shift, 2)
    ink = _placed(digits[rows], size, angle, shear, shift)
    for side in (-1, 1):
        neighbours = digits[torch.randint(len(digits), (n,), generator=generator)]
        beside = shift + torch.stack([side * uniform(16, 22) * size, uniform(-1.5, 1.5)], dim=1)
        present = (torch.rand(n, generator=generator) < street.neighbour).float().view(-1, 1, 1, 1)
        ink = torch.maximum(ink, present * _placed(neighbours, size, angle, shear, beside))
    return ink.sqrt()  # house numbers have broad strokes


def _uniform(generator: torch.Generator, n: int, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers (n, *shape) in [low, high)."""
    return low + (high - low) * torch.rand(n, *shape, generator=generator)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal numbers of a shape."""
    return torch.randn(shape, generator=generator)


def _placed(digits: Tensor, size: Tensor, angle: Tensor, shear: Tensor, shift: Tensor) -> Tensor:
    """Amount of ink (N, 1, 32, 32) of digits (N, 28, 28), scaled, rotated, sheared and shifted by (N, 2) pixels."""
    cos, sin = angle.cos() / size, angle.sin() / size
    x, y = (-2 * s / SIZE for s in shift.unbind(dim=1))
    rows = [torch.stack([cos, sin + shear * cos, x * cos + y * sin], dim=1)]
    rows += [torch.stack([-sin, cos - shear * sin, -x * sin + y * cos], dim=1)]
    grid = affine_grid(torch.stack(rows, dim=1), [len(digits), 1, SIZE, SIZE], align_corners=False)
    padded = pad(digits[:, None].float() / 255, [(SIZE - digits.shape[-1]) // 2] * 4)
    return grid_sample(padded, grid, align_corners=False)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (N, C, H, W), each blurred by a Gaussian of standard deviation sigma (N,) in pixels."""
    n, channels, *_ = images.shape
    radius = math.ceil(2 * AS_SVHN.blur[1])
    steps = torch.arange(-radius, radius + 1.0)
    kernel = (-0.5 * (steps / sigma[:, None]).square()).softmax(dim=1)  # (N, 2 radius + 1)
    kernel = kernel.repeat_interleave(channels, dim=0)[:, None]
    images = pad(images, [radius] * 4, mode="replicate").flatten(0, 1)[None]  # (1, N C, ...)
    for line in (kernel[..., None], kernel[:, :, None]):
        images = conv2d(images, line, groups=n * channels)
    return images.view(n, channels, SIZE, SIZE)
