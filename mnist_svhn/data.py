"""Load MNIST-SVHN: images of the same digit, paired at random; SVHN is real, synthetic, or the demo's."""

import io
import itertools
import os
from dataclasses import fields
from pathlib import Path
from typing import Literal, Protocol

from common.data import Examples, arrays, files
from common.data.arrays import Expected
from common.data.files import DataConfig, find
from common.errors import require
from common.io import AGAIN, DOWNLOAD_AGAIN, load_tensors, write_atomically
from common.progress import print_once
from mnist.data import digits
from mnist_svhn import mat_files
from mnist_svhn.options import MATCHINGS, TrainingPairOptions
from mnist_svhn.street import CLEAN, street_digits

import numpy as np
import torch
from torch import Tensor

N_CLASSES = 10
FILES = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
URL = "http://ufldl.stanford.edu/housenumbers/"
KNOWN = {  # md5
    ("SVHN", "train_32x32.mat"): "e26dedcc434d2e4c54c9b2d4a06d8373",
    ("SVHN", "test_32x32.mat"): "eb5a983be6a315427106f1b164d9cef3",
}
MAX_MATCHINGS = 1000  # in a file
MAX_SVHN = 100_000  # images of a split; the training split has 73,257
MODALITIES = ("mnist", "svhn")
PARTS = ("train", "test", "valid")  # each with its own seed for pairing
IDX = "mnist_svhn_idx.npz"
MAKE_AGAIN = "make them again with make_idx.py"
AUTHORS_IDX = "{split}-ms-{name}-idx.pt"  # of the MMVAE authors' bin/make-mnist-svhn-idx.py


class PairConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `PairOptions`; for `load_train` and `save_pairs` those of `TrainingPairOptions`.

    valid: for these two alone, the number of images of each modality to hold out.
    """

    svhn: Literal["real", "synthetic"]
    max_per_class: int
    pair_seed: int
    matchings: int | None
    valid: int | None

    def check_options(self) -> None: ...


def load(split: str, config: PairConfig) -> Examples:
    """Load a split of pairs: one random matching, in a random order.

    Args:
        split: "train" or "test".
        config: data_dir holds MNIST, as `mnist.data.load` reads it, and for --svhn real SVHN's two .mat files. The demo
            has scikit-learn's scanned digits: one half as MNIST, the other half made to look like house numbers.

    Returns:
        mnist (N, 1, 28, 28) and svhn (N, 3, 32, 32), uint8, and their digit (N,) int64.

    Raises:
        InputError: a file is missing or damaged, or an option is out of range.
    """
    return _paired(_images(split, config), config, split).take(slice(config.limit))


def load_train(config: PairConfig) -> tuple[Examples, Examples | None]:
    """Load training pairs, and one matching of held-out images for validation (None for --valid 0); see `load`.

    The last --valid images of each modality are held out, by default a sixth of the rarer one's; --limit applies to
    the pairs of each part. If the data-dir has a mnist_svhn_idx.npz (`save_pairs`), the training pairs come from there;
    else for real SVHN from the authors' files, if it has them.
    """
    train, held_out = _hold_out(_images("train", config), config.valid)
    kept = None if config.demo else _saved_pairs(config, [len(labels) for _, labels in train], len(held_out[0][1]))
    train = _paired(train, config, "train", config.matchings or MATCHINGS, kept).take(slice(config.limit))
    return train, _paired(held_out, config, "valid").take(slice(config.limit)) if len(held_out[0][1]) else None


def save_pairs(config: PairConfig) -> list[Path]:
    """Write the pairs to the data-dir, and return the files.

    The first file, mnist_svhn_idx.npz, holds the training pairs as "train" (2, N): row numbers of MNIST's and SVHN's
    training images. For real SVHN it also writes the authors' files, {train,test}-ms-{mnist,svhn}-idx.pt, for their
    code: the row numbers of one modality, (N,) int64, of the same training pairs and of the test pairs of `load`.

    Raises:
        InputError: see `load`; or a file cannot be written.
    """
    train, held_out = _hold_out(_images("train", config), config.valid)
    rows = {"train": _paired(train, config, "train", config.matchings).rows}
    if config.svhn == "real":
        rows["test"] = _paired(_images("test", config), config, "test").rows
    pairs = {"train": torch.stack([rows["train"]["mnist"], rows["train"]["svhn"]])}
    paths = [config.data_dir / IDX]
    arrays.save(paths[0], _about(config, len(held_out[0][1])), pairs)
    if config.svhn == "real":
        for split, name in itertools.product(rows, MODALITIES):
            paths.append(config.data_dir / AUTHORS_IDX.format(split=split, name=name))
            content = io.BytesIO()
            # their torch 1.3 reads no newer format; without a clone the file would hold both modalities' rows
            torch.save(rows[split][name].clone(), content, _use_new_zipfile_serialization=False)
            write_atomically(paths[-1], content.getbuffer())
    return paths


def _saved_pairs(config: PairConfig, n: list[int], valid: int) -> Tensor | None:
    """The training pairs (2, N) in the data-dir, from `save_pairs`' first file or the authors' two; None without these.

    The authors' pairs of held-out images are left out.

    Args:
        n: the numbers of training images, of MNIST and of SVHN.
        valid: the number of images held out of each.
    """
    path = config.data_dir / IDX
    if path.exists():
        about = {option: value for option, value in _about(config, valid).items() if value is not None}
        expected = {"train": Expected("<i8", (2, range(1, (config.matchings or MAX_MATCHINGS) * min(n) + 1)))}
        (pairs,) = arrays.load(path, about, expected, MAKE_AGAIN)
        return pairs
    paths = [config.data_dir / AUTHORS_IDX.format(split="train", name=name) for name in MODALITIES]
    if config.svhn != "real" or not any(path.exists() for path in paths):
        return None
    files = f"{paths[0]} and {paths[1].name}"
    rows = [load_tensors(path, Tensor, MAKE_AGAIN, MAKE_AGAIN) for path in paths]
    are_rows = all(x.dtype == torch.int64 and x.shape == rows[0].shape == (x.numel(),) for x in rows)
    require(are_rows and bool((rows[0] >= 0).all() & (rows[1] >= 0).all()), f"{files} hold no pairs: {MAKE_AGAIN}")
    pairs = torch.stack(rows)
    pairs = pairs[:, (pairs < torch.tensor(n)[:, None]).all(dim=0)]
    require(pairs.shape[1] > 0, f"{files} pair no training images: {MAKE_AGAIN}, or give a smaller --valid")
    print_once(f"{pairs.shape[1]:,} training pairs from {files}, whatever --matchings is")
    return pairs


Images = tuple[Tensor, Tensor]  # images (N, C, H, W) uint8 and their labels (N,)


def _images(split: str, config: PairConfig) -> tuple[Images, Images]:
    """All images of a split, of MNIST and of SVHN."""
    config.check_options()
    synthetic = config.svhn == "synthetic"
    compatible = not config.demo or not synthetic
    require(compatible, "--svhn synthetic is made of MNIST's files, --demo needs none: leave out one of them")
    examples = digits(split, config.data_dir, config.demo, config.download).modalities
    images, labels = examples["image"], examples["text"]
    if not config.demo and not synthetic:
        return (images, labels), read_svhn(split, config.data_dir, config.download)
    half = len(images) // 2  # separate halves, so that no scanned digit is in both modalities
    seed = 2 * config.pair_seed + (split == "test")
    if config.demo:
        street = street_digits(images[half:, 0], seed, CLEAN)
    else:
        street = _street(images[half:, 0], labels[half:], seed, config.data_dir / f"synthetic_svhn_{split}.npz")
    return (images[:half], labels[:half]), (street, labels[half:])


def _street(digits: Tensor, labels: Tensor, seed: int, cache: Path) -> Tensor:
    """Synthetic SVHN (N, 3, 32, 32) uint8, one image per digit (N, 28, 28); cached for its seed."""
    about = {"pair_seed": seed // 2}
    if cache.exists():
        n = len(labels)
        expected = {"images": Expected("|u1", (n, 3, 32, 32)), "labels": Expected("<i8", (n,))}
        images, cached_labels = arrays.load(cache, about, expected, AGAIN)
        require(cached_labels.equal(labels), f"{cache} was made from other digits: {AGAIN}")
        return images
    images = street_digits(digits, seed)
    if os.access(cache.parent, os.W_OK):
        arrays.save(cache, about, {"images": images, "labels": labels})
    return images


def _hold_out(images: tuple[Images, Images], valid: int | None) -> tuple[tuple[Images, Images], tuple[Images, Images]]:
    """Split into training and held-out images: the last `valid`, by default a sixth of the rarer modality's number."""
    n = min(len(labels) for _, labels in images)
    valid = n // 6 if valid is None else valid
    require(0 <= valid < n, f"--valid must lie between 0 and {n - 1}, so that a training image is left: it is {valid}")
    train = tuple((x[: len(x) - valid], labels[: len(x) - valid]) for x, labels in images)
    return train, tuple((x[len(x) - valid :], labels[len(x) - valid :]) for x, labels in images)


def _about(options: PairConfig, valid: int) -> dict[str, str | int]:
    """The options that the saved pairs depend on."""
    return {field.name: getattr(options, field.name) for field in fields(TrainingPairOptions)} | {"valid": valid}


def _paired(
    images: tuple[Images, Images], options: PairConfig, part: str, matchings: int = 1, kept: Tensor | None = None
) -> Examples:
    """Pair the images of a part of PARTS: by the saved rows `kept` (2, N), else by random matchings."""
    (mnist, digits), (svhn, svhn_digits) = images
    if kept is None:
        generator = torch.Generator().manual_seed(3 * options.pair_seed + PARTS.index(part))
        i, j = pair(digits, svhn_digits, matchings, options.max_per_class, generator)
    else:
        i, j = kept.long()
        fits = all(rows.max() < len(labels) for rows, labels in ((i, digits), (j, svhn_digits)))
        require(
            fits and digits[i].equal(svhn_digits[j]),
            f"the pairs in {options.data_dir} are of images of other files: {MAKE_AGAIN}",
        )
    return Examples({"mnist": mnist, "svhn": svhn, "digit": digits}, {"mnist": i, "svhn": j, "digit": i})


def pair(a: Tensor, b: Tensor, matchings: int, max_per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random matchings between two sets of images with the same classes, in a random order.

    Each class contributes its first n images of either set, where n is the smaller of its two counts, at most
    max_per_class. Each of these images is in every matching once (authors' bin/make-mnist-svhn-idx.py).

    Args:
        a, b: labels (N,) and (N',) of the two sets.
        matchings: matchings of each class.
        max_per_class: most images of a class.

    Returns:
        row numbers of the first set's and of the second set's images, each (pairs,).

    Raises:
        InputError: the sets have no class in common.
    """
    pairs = []
    for c in range(N_CLASSES):
        rows = [(labels == c).nonzero().squeeze(1)[:max_per_class] for labels in (a, b)]
        n = min(map(len, rows))
        shuffled = [torch.rand(matchings, n, generator=generator).argsort(dim=1) for _ in rows]
        pairs.append(torch.stack([i[order].flatten() for i, order in zip(rows, shuffled, strict=True)]))
    pairs = torch.cat(pairs, dim=1)  # (2, pairs)
    require(pairs.shape[1] > 0, "MNIST and SVHN have no digit in common: give a smaller --valid, or other files")
    return tuple(pairs[:, torch.randperm(pairs.shape[1], generator=generator)])


def read_svhn(split: str, data_dir: Path, download: bool = False) -> tuple[Tensor, Tensor]:
    """Read a split of SVHN from its .mat file: images (N, 3, 32, 32) uint8 and labels (N,) int64, 0 to 9.

    Raises:
        InputError: the file is missing, damaged, not SVHN's, or that of the other split.
    """
    path = data_dir / FILES[split]
    if download and not path.is_file():
        files.download([URL + FILES[split]], path, KNOWN["SVHN", FILES[split]])
    path = find(
        data_dir, [FILES[split]], "fetch it with --download, or use --svhn synthetic or --demo, which do without"
    )
    n = range(1, MAX_SVHN + 1)
    expected = {"X": Expected("|u1", (32, 32, 3, n)), "y": Expected("|u1", (n, 1))}
    values = mat_files.read(path, expected, DOWNLOAD_AGAIN)
    images = torch.from_numpy(values["X"].transpose(3, 2, 0, 1).copy())
    labels = torch.from_numpy(values["y"][:, 0].astype(np.int64))
    fits = len(images) == len(labels) and labels.min() >= 1 and labels.max() <= N_CLASSES
    problem = f"{path} does not hold a label from 1 to 10 for each image, and is not SVHN's"
    require(bool(fits), f"{problem}: {DOWNLOAD_AGAIN}")
    files.check_published(path, files.md5_of(path), "SVHN", FILES[split], KNOWN)
    return images, labels % N_CLASSES  # in the file the digit 0 has the label 10
