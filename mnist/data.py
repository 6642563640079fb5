"""MNIST in its original idx files, and built-in scanned digits for the demo."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from common.checkpoints import load_config
from common.data import Examples, files
from common.data.files import DataConfig, find
from common.errors import brief, require
from common.io import DOWNLOAD_AGAIN
from mnist import idx_files
from mnist.demo import scanned_digits
from mnist.idx_files import read_idx
from reports.options import ModelConfig

import torch
from torch import Tensor

CLASSES = tuple("0123456789")
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
MIRRORS = {
    "MNIST": ("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    "FashionMNIST": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
}
PACKED = {  # md5 of the gzipped files
    ("MNIST", "train-images-idx3-ubyte"): "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ("MNIST", "train-labels-idx1-ubyte"): "d53e105ee54ea40749a09fcbcd1e9432",
    ("MNIST", "t10k-images-idx3-ubyte"): "9fb629c4189551a2d022fa330f9573f3",
    ("MNIST", "t10k-labels-idx1-ubyte"): "ec29112dd5afa0611ce80d1b7f02629c",
    ("FashionMNIST", "train-images-idx3-ubyte"): "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ("FashionMNIST", "train-labels-idx1-ubyte"): "25c81989df183df01b3e8a0aad5dffbe",
    ("FashionMNIST", "t10k-images-idx3-ubyte"): "bef4ecab320f06d8554ea6380940ec79",
    ("FashionMNIST", "t10k-labels-idx1-ubyte"): "bb300cfdad3c16e7a12a480ee83cd310",
}
KNOWN = {  # md5 of the unpacked files
    ("MNIST", "train-images-idx3-ubyte"): "6bbc9ace898e44ae57da46a324031adb",
    ("MNIST", "train-labels-idx1-ubyte"): "a25bea736e30d166cdddb491f175f624",
    ("MNIST", "t10k-images-idx3-ubyte"): "2646ac647ad5339dbf082846283269ea",
    ("MNIST", "t10k-labels-idx1-ubyte"): "27ae3e4e09519cfbb04c329615203637",
    ("FashionMNIST", "train-images-idx3-ubyte"): "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    ("FashionMNIST", "train-labels-idx1-ubyte"): "9018921c3c673c538a1fc5bad174d6f9",
    ("FashionMNIST", "t10k-images-idx3-ubyte"): "8181f5470baa50b63fa0f6fddb340f0a",
    ("FashionMNIST", "t10k-labels-idx1-ubyte"): "15d484375f8d13e6eb1aabb0c3f46965",
}


class Dataset(NamedTuple):
    """A dataset of images and texts: how to load it, and how to read and show its texts.

    name: the experiment's folder.
    size: height and width of an image in pixels.
    load: loads a split, see `load`.
    parse: turns a string that a user writes into a text (1, ...); raises InputError if it is not a text.
    names: turns texts (N, ...) into the strings that pictures and tables show.
    shown: texts, as a user writes them, for which pictures show samples.
    sampler: what z is drawn from, given a text alone. aggregate: the aggregate posterior of its training images;
        posterior: q(z|text), where most texts have no training image.
    """

    name: str
    size: int
    load: Callable[..., Examples]
    parse: Callable[[str], Tensor]
    names: Callable[[Tensor], list[str]]
    shown: Sequence[str]
    sampler: Literal["posterior", "aggregate"] = "aggregate"


def load(split: str, config: DataConfig) -> Examples:
    """Load a split of MNIST, or of scikit-learn's scanned digits for the demo.

    Args:
        split: "train" (60,000 examples, the demo's 1,500) or "test" (10,000, the demo's 297).
        config: its data_dir holds the four idx files, gzipped or not, in MNIST/raw, as torchvision leaves them, or
            directly.

    Returns:
        image (N, 1, 28, 28) uint8 and text (N,) int64, the digit.

    Raises:
        InputError: a file is missing or damaged, or the images and labels do not match.
    """
    return digits(split, config.data_dir, config.demo, config.download).take(slice(config.limit))


def digits(split: str, data_dir: Path, demo: bool = False, download: bool = False) -> Examples:
    """Return all digits of a split, see `load`: image (N, 1, 28, 28) uint8 and text (N,) int64."""
    return scanned_digits(split) if demo else read("MNIST", split, data_dir, download)


def binarised(examples: Examples) -> Examples:
    """BinaryMNIST: each pixel is 0 or 1, drawn once, always alike, with its grey value as the probability of 1."""
    pixels = examples.modalities["image"].float() / 255
    drawn = torch.bernoulli(pixels, generator=torch.Generator().manual_seed(0))
    return Examples(examples.modalities | {"image": drawn})


def binarised_anew(examples: Examples) -> Examples:
    """BinaryMNIST whose pixels are drawn whenever a batch is made."""
    return replace(examples, derived={"image": ("image", torch.bernoulli)})


def load_as_trained(split: str, config: ModelConfig, dataset: Dataset) -> Examples:
    """Load a split as the model knows its images: `binarised` if it was trained with --binary."""
    examples = dataset.load(split, config)
    return binarised(examples) if load_config(config.model, dataset.name).get("binary") else examples


def class_index(label: str, classes: Sequence[str]) -> Tensor:
    """Return the class (1,) int64 that a user names by its number, or by its name in upper or lower case.

    Raises:
        InputError: there is no such class.
    """
    numbers = {str(index): index for index in range(len(classes))}
    index = numbers.get(label, {name.lower(): index for index, name in enumerate(classes)}.get(label.lower()))
    or_name = "" if classes == CLASSES else f" or a name among {', '.join(classes)}"
    require(index is not None, f"a class is a number from 0 to {len(classes) - 1}{or_name}, not {brief(label)!r}")
    return torch.tensor([index])


def class_names(labels: Tensor, classes: Sequence[str]) -> list[str]:
    """Return the names of classes (N,) int64."""
    return [classes[label] for label in labels.tolist()]


def read(dataset: str, split: str, data_dir: Path, download: bool) -> Examples:
    """Read a split of a dataset in MNIST's file format.

    Args:
        dataset: its name in torchvision, such as "FashionMNIST".

    Returns:
        image (N, 1, 28, 28) uint8 and text (N,) int64, 0 to 9.

    Raises:
        InputError: a file is missing, damaged or known to be another one, or the images and labels do not match.
    """
    paths = [_path(name, dataset, data_dir, download) for name in FILES[split]]
    images, labels = read_idx(paths[0], (28, 28)), read_idx(paths[1], ())
    for path, name, items in zip(paths, FILES[split], (images, labels), strict=True):
        files.check_published(path, idx_files.md5_of_items(items), dataset, name, KNOWN)
    require(
        len(images) == len(labels),
        f"{paths[0]} has {len(images)} images, {paths[1]} {len(labels)} labels: "
        "delete both and download them again (--download)",
    )
    require(
        int(labels.max()) < len(CLASSES),
        f"{paths[1]} does not hold the labels 0 to 9: {DOWNLOAD_AGAIN}",
    )
    return Examples({"image": images.unsqueeze(1), "text": labels.long()})


def _path(name: str, dataset: str, data_dir: Path, download: bool) -> Path:
    """Return the path of a file, downloaded first if asked."""
    # MNIST and FashionMNIST have the same file names: only the folder tells them apart
    candidates = [f"{folder}{name}{suffix}" for folder in (f"{dataset}/raw/", "") for suffix in (".gz", "")]
    if download and not any((data_dir / candidate).is_file() for candidate in candidates):
        urls = [f"{mirror}{name}.gz" for mirror in MIRRORS[dataset]]
        files.download(urls, data_dir / candidates[0], PACKED[dataset, name])
    return find(data_dir, candidates, "--data-dir DIR says where it is, --download fetches it, --demo needs no files")


def class_dataset(name: str, load: Callable[..., Examples], classes: Sequence[str]) -> Dataset:
    """Return a `Dataset` of images of 28 x 28 pixels whose texts are classes."""
    return Dataset(
        name, 28, load, partial(class_index, classes=classes), partial(class_names, classes=classes), classes
    )


MNIST = class_dataset("mnist", load, CLASSES)
