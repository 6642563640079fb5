"""Six views of CelebA's faces: colour, gray, edges, mask of the facial features, half obscured, watermarked."""

from functools import partial

from celeba import data as celeba
from common.data import Examples, image_caches
from common.errors import require
from vision.transforms import obscure, watermark

import numpy as np
import torch
from torch import Tensor

# by view: the command of setup.py that makes it, and whether its images are inverted
MADE = {"gray": ("grayscale", False), "edge": ("edge", False), "mask": ("mask", True)}
DERIVED = {"obscured": ("image", obscure), "watermark": ("image", watermark)}
SIGMA = 1.0  # Canny's sigma in pixels for drawn faces, which are a third of CelebA's size


def load(split: str, config: celeba.FaceConfig) -> Examples:
    """Load a split of CelebA (`celeba.data.load`) and the views in DATA_DIR/{grayscale,edge,mask}, made by setup.py.

    Returns:
        image (N, 3, 64, 64), gray, edge and mask (N, 1, 64, 64), uint8, bright lines on black; obscured and watermark
        are made from the image, batch by batch. The mask is absent where no face was found.

    Raises:
        InputError: a file is missing, unreadable or damaged, or the files do not match.
    """
    if config.demo:
        return _drawn(split, config.limit)
    data_dir, cache_dir = config.data_dir, config.cache_dir or config.data_dir
    if config.download:
        celeba.fetch(data_dir)
    folder, names, splits = celeba.source(data_dir)
    how = "`python setup.py {0} " + f"{folder} {data_dir}/" + "{0}` makes it, --demo needs no files"
    for command, _ in MADE.values():  # before the photographs are decoded
        require((data_dir / command).is_dir(), f"{data_dir / command} is missing: {how.format(command)}")
    rows = celeba.rows_of(split, splits, config.limit)
    images = {"image": celeba.load(split, config).modalities["image"]}
    for name, (command, inverted) in MADE.items():
        kind, cache = image_caches.Kind("L", inverted=inverted), cache_dir / f"{command}_64.npy"
        images[name] = image_caches.load(data_dir / command, names, cache, kind, remedy=how.format(command))[rows]
    return _with_absent_masks(images)


load_train = partial(celeba.load_train, load=load)


def _with_absent_masks(images: dict[str, Tensor]) -> Examples:
    """Return examples of the images and the derived views, in which blank masks are absent."""
    present = torch.ones(len(images["image"]), len(images) + len(DERIVED), dtype=torch.bool)  # (N, 6)
    present[:, list(images).index("mask")] = images["mask"].flatten(1).any(dim=1)
    return Examples(images, None, None if present.all() else present, None, DERIVED)


def gray_of(images: Tensor) -> Tensor:
    """Return the luminance (N, 1, H, W) uint8 of images (N, 3, H, W) uint8, rounded as by PIL."""
    weights = torch.tensor([19595, 38470, 7471]).view(3, 1, 1)
    return ((images * weights).sum(dim=1, keepdim=True) + 0x8000 >> 16).to(torch.uint8)


def edges_of(gray: Tensor, sigma: float) -> Tensor:
    """Return Canny's edges (N, 1, H, W) uint8, white on black, of gray images (N, 1, H, W) uint8; sigma in pixels."""
    from skimage.feature import canny

    return torch.from_numpy(np.stack([canny(image, sigma) for (image,) in gray.numpy()])[:, None]).to(torch.uint8) * 255


def _drawn(split: str, limit: int | None) -> Examples:
    """Return the views of the demo's drawn faces, as `load` does."""
    faces = celeba.drawn(split, limit)
    gray = gray_of(faces["image"])
    images = {"image": faces["image"], "gray": gray, "edge": edges_of(gray, SIGMA), "mask": faces["mask"]}
    return _with_absent_masks(images)
