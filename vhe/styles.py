"""Styles of drawing for the factorial model: what makes another image of the same character."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

STYLES = ("plain", "bold", "outlined", "striped", "inverted")


def drawn(images: Tensor, style: str) -> Tensor:
    """Images (N, 1, 28, 28), 0 or 1, in one of the STYLES."""
    if style == "plain":
        return images
    if style == "inverted":
        return 1 - images
    bold = max_pool2d(images, 3, stride=1, padding=1)
    if style == "striped":
        return bold * (torch.arange(images.shape[-1], device=images.device) % 2)
    return bold if style == "bold" else bold - images
