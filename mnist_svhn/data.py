"""MNIST-SVHN: images of the same digit from both, paired at random; the real SVHN, a synthetic one, or a demo."""

import os
import zlib
from dataclasses import fields
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from common.data import Examples, files
from common.data import array_caches as caches
from common.data.config import DataConfig
from common.data.files import find
from common.errors import InputError, require
from common.io import DAMAGE
from mnist.data import digits
from mnist_svhn.options import TrainingPairOptions
from mnist_svhn.street import street_digits

N_CLASSES = 10
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
PARTS = ("train", "test", "valid")  # whose pairs have seeds of their own
IDX = "mnist_svhn_idx.npz"


class PairConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `PairOptions`."""


class TrainingPairConfig(PairConfig, Protocol):
    """Also those of `TrainingPairOptions`, and valid: the images of each modality to hold out."""

    valid: int | None


def load(split: str, config: PairConfig) -> Examples:
    """Load all images of a split, paired once, in a random order.

    Args:
        split: "train" or "test".
        config: its data_dir holds MNIST, as `mnist.data.load` reads it, and for --svhn real SVHN's two .mat files. The
            demo has scikit-learn's scanned digits, one half as MNIST, the other made to look like house numbers.

    Returns:
        mnist (N, 1, 28, 28) and svhn (N, 3, 32, 32), uint8, and digit (N,) int64, which both show.

    Raises:
        InputError: a file is missing or damaged; options that exclude each other.
    """
    return _paired(_images(split, config), config, split).take(slice(config.limit))


def load_train(config: TrainingPairConfig) -> tuple[Examples, Examples | None]:
    """Load pairs to train on, and other images, paired once, to validate on; see `load`.

    The last --valid images of each modality are held out, by default the last sixth; --limit applies to each part.
    The pairs are those of the data-dir's mnist_svhn_idx.npz, if it exists (`save_pairs`).
    """
    train, held_out = _hold_out(_images("train", config), config.valid)
    kept = None
    if not config.demo and (config.data_dir / IDX).exists():
        about = _about(config, len(held_out[0][1]))
        (kept,) = caches.load(config.data_dir / IDX, about, ["train"], "make it again with make_idx.py")
    train = _paired(train, config, "train", config.matchings, kept).take(slice(config.limit))
    return train, _paired(held_out, config, "valid").take(slice(config.limit)) if len(held_out[0][1]) else None


def save_pairs(config: TrainingPairConfig) -> Path:
    """Write the training pairs to the data-dir: "train" (2, N), rows of MNIST's and of SVHN's training images.

    Raises:
        InputError: see `load`; the file could not be written.
    """
    path = config.data_dir / IDX
    train, held_out = _hold_out(_images("train", config), config.valid)
    rows = _paired(train, config, "train", config.matchings).rows
    caches.save(path, _about(config, len(held_out[0][1])), {"train": torch.stack([rows["mnist"], rows["svhn"]])})
    return path


Images = tuple[Tensor, Tensor]  # and their labels


def _images(split: str, config: PairConfig) -> tuple[Images, Images]:
    """The images of MNIST and of SVHN."""
    config.check_options()
    examples = digits(split, config.data_dir, config.demo, config.download).modalities
    images, labels = examples["image"], examples["text"]
    if not config.demo and config.svhn == "real":
        return (images, labels), read_svhn(split, config.data_dir, config.download)
    half = len(images) // 2  # so that no digit is in both modalities
    seed = 2 * config.pair_seed + (split == "test")
    cache = None if config.demo else config.data_dir / f"synthetic_svhn_{split}.npz"
    return (images[:half], labels[:half]), (_street(images[half:, 0], labels[half:], seed, cache), labels[half:])


def _street(digits: Tensor, labels: Tensor, seed: int, cache: Path | None) -> Tensor:
    """One image of synthetic SVHN for each digit, made once for a data-dir and a seed."""
    about, again = {"pair_seed": seed // 2}, "delete it, and it will be made again"
    if cache and cache.exists():
        images, of = caches.load(cache, about, ["images", "labels"], again)
        require(of.equal(labels), f"{cache} was made of other digits: {again}")
        return images
    images = street_digits(digits, seed)
    if cache and os.access(cache.parent, os.W_OK):
        caches.save(cache, about, {"images": images, "labels": labels})
    return images


def _hold_out(images: tuple[Images, Images], valid: int | None) -> tuple[tuple[Images, Images], tuple[Images, Images]]:
    """Split off the last images of each modality, the last sixth of the rarer one's number by default."""
    n = min(len(labels) for _, labels in images)
    valid = n // 6 if valid is None else valid
    require(valid < n, f"--valid {valid} leaves no training image: the rarer modality has {n}")
    train = tuple((x[: len(x) - valid], labels[: len(x) - valid]) for x, labels in images)
    return train, tuple((x[len(x) - valid :], labels[len(x) - valid :]) for x, labels in images)


def _about(options: TrainingPairConfig, valid: int) -> dict[str, str | int]:
    return {field.name: getattr(options, field.name) for field in fields(TrainingPairOptions)} | {"valid": valid}


def _paired(
    images: tuple[Images, Images], options: PairConfig, part: str, matchings: int = 1, kept: Tensor | None = None
) -> Examples:
    """Pairs of images: those kept (2, N), or of random matchings."""
    (mnist, digits), (svhn, others) = images
    if kept is None:
        generator = torch.Generator().manual_seed(3 * options.pair_seed + PARTS.index(part))
        i, j = pair(digits, others, matchings, options.max_per_class, generator)
    else:
        i, j = kept.long()
        fits = all(rows.max() < len(labels) for rows, labels in ((i, digits), (j, others)))
        require(
            fits and digits[i].equal(others[j]), f"{IDX} pairs images of other files: make it again with make_idx.py"
        )
    return Examples({"mnist": mnist, "svhn": svhn, "digit": digits}, {"mnist": i, "svhn": j, "digit": i})


def pair(a: Tensor, b: Tensor, matchings: int, max_per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random matchings of the images of each class, in a random order.

    A class has as many images as its rarer modality, or max_per_class: the first of each, each in every matching once
    (authors' bin/make-mnist-svhn-idx.py).

    Args:
        a, b: labels (N,) and (N',).

    Returns:
        the indices of a's and of b's images, each (pairs,).

    Raises:
        InputError: the two have no class in common.
    """
    pairs = []
    for c in range(N_CLASSES):
        of_class = [(labels == c).nonzero().squeeze(1)[:max_per_class] for labels in (a, b)]
        n = min(map(len, of_class))
        shuffled = [torch.rand(matchings, n, generator=generator).argsort(dim=1) for _ in of_class]
        pairs.append(torch.stack([i[order].flatten() for i, order in zip(of_class, shuffled, strict=True)]))
    pairs = torch.cat(pairs, dim=1)  # (2, pairs)
    require(pairs.shape[1] > 0, "MNIST and SVHN have no digit in common: a larger --limit, or other files")
    return tuple(pairs[:, torch.randperm(pairs.shape[1], generator=generator)])


def read_svhn(split: str, data_dir: Path, download: bool = False) -> tuple[Tensor, Tensor]:
    """A split of SVHN in its original format: images (N, 3, 32, 32) uint8 and labels (N,) int64, 0 to 9.

    Raises:
        InputError: the file is missing, damaged, or no SVHN.
    """
    from scipy.io import loadmat, matlab  # slow to import, and only the real data needs it

    path = data_dir / FILES[split]
    if download and not path.is_file():
        from common.data.torchvision_import import datasets

        url, _, md5 = datasets.SVHN.split_list[split]
        files.download([url], path, md5)
    again = "delete it and get it again (--download)"
    path = find(data_dir, [FILES[split]], "--download fetches it, --svhn synthetic and --demo need none")
    try:
        content = loadmat(path)
        images, labels = content["X"], content["y"]
    except (*DAMAGE, zlib.error, matlab.MatReadError) as error:
        raise InputError(f"{path} is damaged or not SVHN's: {again}") from error
    n = images.shape[-1]
    fits = images.dtype == labels.dtype == np.uint8 and images.shape == (32, 32, 3, n) and labels.shape == (n, 1)
    require(fits and n > 0 and labels.min() >= 1 and labels.max() <= N_CLASSES, f"{path} is not SVHN's: {again}")
    # in the file the digit 0 has the label 10
    return torch.from_numpy(images).permute(3, 2, 0, 1).contiguous(), torch.from_numpy(labels[:, 0]).long() % N_CLASSES
