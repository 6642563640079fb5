"""MNIST-SVHN: images of the same digit from both, paired at random; the real SVHN, a synthetic one, or a demo."""

import os
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from common.data import Examples
from common.data import array_caches as caches
from common.data.files import download, find
from common.errors import InputError, require
from common.io import DAMAGE
from mnist.data import load as load_mnist
from mnist_svhn.street import street_digits

N_CLASSES = 10
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
PARTS = ("train", "test", "valid")  # whose pairs have seeds of their own
IDX = "mnist_svhn_idx.npz"


@dataclass(kw_only=True)
class PairOptions:
    """Which images, and how many of a class are paired: the options that all scripts share."""

    GROUP: ClassVar = "data"

    svhn: Literal["real", "synthetic"] = "real"
    """second modality. real: SVHN's train_32x32.mat and test_32x32.mat; synthetic: MNIST digits that are not in the
    first modality, made to look like house numbers"""
    max_per_class: int = 10_000
    """pair at most this number of images of each class and modality. Default: as in the authors' code"""
    pair_seed: int = 0
    """seed of the pairing and of the synthetic images"""

    def check_options(self) -> None:
        """Raise InputError for values that no pairing can have."""
        require(self.max_per_class > 0, f"--max-per-class must be positive, not {self.max_per_class}")
        require(0 <= self.pair_seed < 2**32, f"--pair-seed must lie between 0 and 2^32, it is {self.pair_seed}")


@dataclass(kw_only=True)
class TrainingPairOptions(PairOptions):
    """Which pairs to train on."""

    GROUP: ClassVar = "data"

    matchings: int = 30
    """number of partners of each training image, all of its class. Default: as in the authors' code; their README says
    20"""

    def check_options(self) -> None:
        super().check_options()
        require(self.matchings > 0, f"--matchings must be positive, not {self.matchings}")


def chosen(config: PairOptions) -> dict[str, str | int]:
    """What training and scoring must agree on: nothing of the demo's data."""
    return {} if config.demo else {"svhn": config.svhn, "pair_seed": config.pair_seed}


def load(
    split: str, data_dir: Path, options: PairOptions, demo: bool = False, fetch: bool = False, limit: int | None = None
) -> Examples:
    """All images of a split, paired once, in an order of their own.

    Args:
        split: "train" or "test".
        data_dir: holds MNIST, as `mnist.data.load` reads it, and for --svhn real SVHN's two .mat files.
        demo: scikit-learn's scanned digits, a half of them as MNIST, the others made to look like house numbers.
        fetch: download missing files.
        limit: only the first so many pairs.

    Returns:
        mnist (N, 1, 28, 28) and svhn (N, 3, 32, 32), uint8, and digit (N,) int64, what both show.

    Raises:
        InputError: a file is missing or damaged; options that exclude each other.
    """
    return _paired(_images(split, data_dir, options, demo, fetch), options, split).take(slice(limit))


def load_train(
    data_dir: Path,
    options: TrainingPairOptions,
    demo: bool = False,
    fetch: bool = False,
    limit: int | None = None,
    valid: int | None = None,
) -> tuple[Examples, Examples | None]:
    """Pairs to train on, and images of their own, paired once, to validate on; as `load` for the rest.

    The pairs are those of the data-dir's mnist_svhn_idx.npz, if there is one (`save_pairs`).

    Args:
        valid: images of each modality to hold out, the last ones; the last sixth by default, none for 0.
        limit: only the first so many pairs of each.
    """
    train, held_out = _hold_out(_images("train", data_dir, options, demo, fetch), valid)
    kept = None
    if not demo and (data_dir / IDX).exists():
        about = _about(options, len(held_out[0][1]))
        (kept,) = caches.load(data_dir / IDX, about, ["train"], "make it again with make_idx.py")
    train = _paired(train, options, "train", options.matchings, kept).take(slice(limit))
    return train, _paired(held_out, options, "valid").take(slice(limit)) if len(held_out[0][1]) else None


def save_pairs(data_dir: Path, options: TrainingPairOptions, valid: int | None = None, fetch: bool = False) -> Path:
    """Write the training pairs to the data-dir: "train" (2, N), rows of MNIST's and of SVHN's training images.

    Raises:
        InputError: as `load`; the file could not be written.
    """
    path = data_dir / IDX
    train, held_out = _hold_out(_images("train", data_dir, options, False, fetch), valid)
    rows = _paired(train, options, "train", options.matchings).rows
    caches.save(path, _about(options, len(held_out[0][1])), {"train": torch.stack([rows["mnist"], rows["svhn"]])})
    return path


Images = tuple[Tensor, Tensor]  # and their labels


def _images(split: str, data_dir: Path, options: PairOptions, demo: bool, fetch: bool) -> tuple[Images, Images]:
    """What there is of MNIST and of SVHN."""
    options.check_options()
    digits = load_mnist(split, data_dir, demo, fetch).modalities
    images, labels = digits["image"], digits["text"]
    if not demo and options.svhn == "real":
        return (images, labels), read_svhn(split, data_dir, fetch)
    half = len(images) // 2  # so that no digit is in both modalities
    seed = 2 * options.pair_seed + (split == "test")
    cache = None if demo else data_dir / f"synthetic_svhn_{split}.npz"
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


def _about(options: TrainingPairOptions, valid: int) -> dict[str, str | int]:
    return {field.name: getattr(options, field.name) for field in fields(TrainingPairOptions)} | {"valid": valid}


def _paired(
    images: tuple[Images, Images], options: PairOptions, part: str, matchings: int = 1, kept: Tensor | None = None
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


def read_svhn(split: str, data_dir: Path, fetch: bool = False) -> tuple[Tensor, Tensor]:
    """A split of SVHN in its original format: images (N, 3, 32, 32) uint8 and labels (N,) int64, 0 to 9.

    Raises:
        InputError: the file is missing, damaged, or no SVHN.
    """
    from scipy.io import loadmat, matlab  # slow to import, and only the real data needs it

    path = data_dir / FILES[split]
    if fetch and not path.is_file():
        from common.data.torchvision_import import datasets

        url, _, md5 = datasets.SVHN.split_list[split]
        download([url], path, md5)
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
