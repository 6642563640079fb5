"""PolyMNIST-Quadrant: each digit lies in one of four quadrants of a larger crop (Zhang, Shen & Wang, IDMVAE, 2026)."""

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

SIZE = 64  # height and width of an image in pixels
SIDE = SIZE // 2  # of a quadrant, and of a digit
THRESHOLD = 16  # brighter pixels belong to the digit
COLOURS = {0: 0, 4: 2}  # {modality: channel}: m0's digits are red, m4's blue, those of the others invert the crop


def random_crops(background: Tensor, size: int, n: int, random: Generator, limit: int | None = None) -> Tensor:
    """The first of n random crops of a background (3, H, W) uint8: (limit or n, 3, size, size)."""
    windows = background.unfold(1, size, 1).unfold(2, size, 1)  # (3, H - size + 1, W - size + 1, size, size), a view
    # as in the original code, the last place is never drawn
    y, x = (torch.randint(windows.shape[i] - 1, (n,), generator=random)[:limit] for i in (1, 2))
    crops = torch.empty(len(y), 3, size, size, dtype=torch.uint8)
    for c in range(3):
        crops[:, c] = windows[c, y, x]
    return crops


def in_quadrants(
    digits: Tensor, m: int, background: Tensor, random: Generator, limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw enlarged digits in random quadrants of random crops.

    A coloured digit has its grey values in one channel, and 0 in the others.

    Args:
        digits: (N, 28, 28) uint8.
        m: number of the modality.
        background: (3, H, W) uint8.
        limit: make only the first images, which are the same without a limit.

    Returns:
        images (limit or N, 3, 64, 64) uint8, and quadrants (limit or N,) int64: 0 upper left, 1 upper right, 2 lower
        left, 3 lower right.
    """
    quadrants = torch.randint(4, (len(digits),), generator=random)[:limit]
    images = random_crops(background, SIZE, len(digits), random, limit)
    values = interpolate(digits[:limit].unsqueeze(1).float(), size=(SIDE, SIDE), mode="bilinear")  # (N, 1, 32, 32)
    cells = images.view(-1, 3, 2, SIDE, 2, SIDE)
    place = torch.arange(len(cells)), slice(None), quadrants // 2, slice(None), quadrants % 2
    crops = cells[place]  # (N, 3, 32, 32)
    if m in COLOURS:
        drawn = torch.zeros_like(crops)
        drawn[:, COLOURS[m]] = values[:, 0].round()
    else:
        drawn = 255 - crops
    cells[place] = torch.where(values.round() > THRESHOLD, drawn, crops)
    return images, quadrants
