"""Six views of CelebA's faces: in colour, gray, edges, the parts of the face, half obscured, under a watermark."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from celeba import data as celeba
from common.data import Examples, image_caches
from common.errors import InputError, require
from vision.transforms import obscure, watermark

MADE = {"gray": ("grayscale", False), "edge": ("edge", False), "mask": ("mask", True)}  # setup.py's; if inverted
DERIVED = {"obscured": ("image", obscure), "watermark": ("image", watermark)}
SIGMA = 1.0  # of the edges of drawn faces, which are a third of CelebA's size


def load(split: str, config: celeba.FaceConfig) -> Examples:
    """Load a split of CelebA (`celeba.data.load`) and what setup.py made of it, in DATA_DIR/{grayscale,edge,mask}.

    Returns:
        image (N, 3, 64, 64), gray, edge and mask (N, 1, 64, 64), uint8, bright lines on black; obscured and watermark
        are made from the image, batch by batch. The mask is absent where no face was found.

    Raises:
        InputError: something is missing, unreadable, damaged, or does not fit together.
    """
    if config.demo:
        return _drawn(split, config.limit)
    data_dir, cache_dir = config.data_dir, config.cache_dir or config.data_dir
    photographs = celeba.load(split, config)
    folder, names, parts = celeba.source(data_dir)
    rows = celeba.rows_of(split, parts, config.limit)
    images = {"image": photographs.modalities["image"]}
    for name, (command, inverted) in MADE.items():
        made, cache = data_dir / command, cache_dir / f"{command}_64.npy"
        how = f"`python setup.py {command} {folder} {made}` makes it, --demo needs no files"
        require(made.is_dir(), f"{made} is missing: {how}")
        images[name] = image_caches.load(made, names, cache, image_caches.Kind("L", inverted=inverted), again=how)[rows]
    return _with_absent_masks(images)


load_train = partial(celeba.load_train, load=load)


def _with_absent_masks(images: dict[str, Tensor]) -> Examples:
    there = torch.ones(len(images["image"]), len(images) + len(DERIVED), dtype=torch.bool)
    there[:, list(images).index("mask")] = images["mask"].flatten(1).any(dim=1)
    return Examples(images, None, None if there.all() else there, None, DERIVED)


def gray_of(images: Tensor) -> Tensor:
    """Luminance (N, 1, H, W) uint8 of colours (N, 3, H, W) uint8, as PIL has it."""
    weights = torch.tensor([19595, 38470, 7471]).view(3, 1, 1)
    return ((images * weights).sum(dim=1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)


def edges_of(gray: Tensor, sigma: float) -> Tensor:
    """Canny's edges (N, 1, H, W) uint8, white on black, of gray images (N, 1, H, W) uint8."""
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise InputError("edges need scikit-image: pip install scikit-image") from error
    return torch.from_numpy(np.stack([canny(image, sigma) for (image,) in gray.numpy()])[:, None]).to(torch.uint8) * 255


def _drawn(split: str, limit: int | None) -> Examples:
    faces = celeba.drawn(split, limit)
    gray = gray_of(faces["image"])
    images = {"image": faces["image"], "gray": gray, "edge": edges_of(gray, SIGMA), "mask": faces["mask"]}
    return _with_absent_masks(images)
