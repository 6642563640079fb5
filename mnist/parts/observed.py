"""The part of an image that --observed names."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data.image_caches import open_picture
from common.errors import brief, require
from mnist.parts.model import N_PIXELS, SIZE

HALVES = {"top": "bottom", "bottom": "top", "left": "right", "right": "left"}


class Observed:
    """The part of an image that a user names, see `Sample`. Call with n: the given pixels of n images, (n, 784) bool.

    Args:
        seed: of a fraction's random pixels.

    Raises:
        InputError: neither the name of a half, nor a fraction, nor a readable image.
    """

    def __init__(self, value: str, seed: int = 0) -> None:
        self.names = (value, HALVES[value]) if value in HALVES else ("the observed", "the rest")
        self.generator = torch.Generator().manual_seed(seed)
        self.fraction, self.pixels = None, None
        try:
            self.fraction = float(value)
        except ValueError:
            self.pixels = _half(value) if value in HALVES else torch.from_numpy(_mask_of(value)).flatten()
        known = self.fraction is None or 0 <= self.fraction <= 1
        require(known, f"--observed {value}: a fraction of the pixels lies in [0, 1]")

    def __call__(self, n: int) -> Tensor:
        if self.pixels is not None:
            return self.pixels.expand(n, -1)
        order = torch.rand(n, N_PIXELS, generator=self.generator).argsort(dim=1)
        return order < round(self.fraction * N_PIXELS)


def _half(name: str) -> Tensor:
    first = torch.arange(SIZE) < SIZE // 2
    half = first if name in ("top", "left") else ~first
    return (half[:, None] if name in ("top", "bottom") else half).expand(SIZE, SIZE).flatten()


def _mask_of(path: str) -> np.ndarray:
    meant = f"{', '.join(HALVES)}, a fraction, or an image of what is given"
    # False too where a text is too long for a file's name
    require(os.path.isfile(path), f"--observed {brief(path)} is none of {meant}")
    with open_picture(Path(path), f"give {meant}", f"--observed {path}") as file:
        return np.asarray(file.convert("L").resize((SIZE, SIZE))) > 127
