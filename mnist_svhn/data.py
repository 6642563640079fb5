"""MNIST-SVHN: images of the same digit from both, paired at random; the real SVHN, a synthetic one, or a demo."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from common.checkpoints import DAMAGE
from common.data import Examples, download, find
from common.errors import InputError, require
from common.runs import option
from mnist.data import load as load_mnist
from mnist_svhn.street import street_digits

N_CLASSES = 10
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}


@dataclass(kw_only=True)
class PairOptions:
    """Which pairs: the options that all scripts share."""

    svhn: Literal["real", "synthetic"] = "real"
    """the second modality: SVHN's train_32x32.mat and test_32x32.mat, or digits of MNIST, other ones than the first
    modality's, made to look like house numbers"""
    matchings: int = 30
    """times that each image is paired, each time with another of its class (authors' code: 30, their README: 20)"""
    max_per_class: int = 10_000
    """images of a class that are paired at most, of either modality (authors' code: 10,000)"""
    pair_seed: int = 0
    """of the pairing, and of the synthetic images"""

    def check_options(self) -> None:
        """Raise InputError for values that no pairing can have."""
        for name in ("matchings", "max_per_class"):
            value = getattr(self, name)
            require(value > 0, f"{option(name)} must be positive, not {value}")
        require(0 <= self.pair_seed < 2**32, f"--pair-seed must lie between 0 and 2^32, it is {self.pair_seed}")


def load(
    split: str, data_dir: Path, options: PairOptions, demo: bool = False, fetch: bool = False, limit: int | None = None
) -> Examples:
    """Pairs of a split, in an order of their own.

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
    return _paired(*_images(split, data_dir, options, demo, fetch), options, int(split == "test")).take(slice(limit))


def load_train(
    data_dir: Path,
    options: PairOptions,
    demo: bool = False,
    fetch: bool = False,
    limit: int | None = None,
    valid: int | None = None,
) -> tuple[Examples, Examples | None]:
    """Pairs to train on, and one matching of images of their own to validate on; as `load` for the rest.

    Args:
        valid: images of each modality to hold out, the last ones; the last sixth by default, none for 0.
        limit: only the first so many pairs of each.
    """
    images = _images("train", data_dir, options, demo, fetch)
    n = min(len(labels) for _, labels in images)
    valid = n // 6 if valid is None else valid
    require(valid < n, f"--valid {valid} leaves no training image: the rarer modality has {n}")
    train = [(x[: len(x) - valid], labels[: len(x) - valid]) for x, labels in images]
    held_out = [(x[len(x) - valid :], labels[len(x) - valid :]) for x, labels in images]
    train = _paired(*train, options, 0).take(slice(limit))
    return train, _paired(*held_out, replace(options, matchings=1), 2).take(slice(limit)) if valid else None


Images = tuple[Tensor, Tensor]  # and their labels


def _images(split: str, data_dir: Path, options: PairOptions, demo: bool, fetch: bool) -> tuple[Images, Images]:
    """What there is of MNIST and of SVHN."""
    options.check_options()
    digits = load_mnist(split, data_dir, demo, fetch).modalities
    images, labels = digits["image"], digits["text"]
    if not demo and options.svhn == "real":
        return (images, labels), read_svhn(split, data_dir, fetch)
    half = len(images) // 2  # so that no digit is in both modalities
    street = street_digits(images[half:, 0], 2 * options.pair_seed + (split == "test"))
    return (images[:half], labels[:half]), (street, labels[half:])


def _paired(mnist: Images, svhn: Images, options: PairOptions, part: int) -> Examples:
    generator = torch.Generator().manual_seed(3 * options.pair_seed + part)
    i, j = pair(mnist[1], svhn[1], options, generator)
    return Examples({"mnist": mnist[0], "svhn": svhn[0], "digit": mnist[1]}, {"mnist": i, "svhn": j, "digit": i})


def pair(a: Tensor, b: Tensor, options: PairOptions, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random matchings of the images of each class, in a random order.

    A class has as many images as its rarer modality, or --max-per-class: the first of each, each in every matching once
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
        of_class = [(labels == c).nonzero().squeeze(1)[: options.max_per_class] for labels in (a, b)]
        n = min(map(len, of_class))
        shuffled = [torch.rand(options.matchings, n, generator=generator).argsort(dim=1) for _ in of_class]
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
        from common.torchvision_import import datasets

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
