"""The files of features.py: the features of CUB's photographs and the network that makes them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Required, TypedDict

from common.data import arrays
from common.data.image_caches import Kind, decode, fingerprint
from common.errors import require
from common.io import load_tensors, read_json
from cub.feature_network import N_FEATURES, extractor, features_of
from cub.layouts import BirdFiles

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

SPLITS = ("train", "test")
NETWORK = "cub_resnet101.pth.tar"
NEAREST_AT_ONCE = 256
MAKE_THEM = "run features.py with the same --data-dir to compute the features, or add --demo for the demo's birds"
REMAKE = "delete features_*.* beside it and run features.py again"


class Network(TypedDict, total=False):
    """Description of a network that makes features; one that was trained here has all fields.

    weights: where they come from.
    size: edge of the images that it sees, in pixels.
    md5: fingerprint of its parameters.
    names: md5 of the names of its training images; with the fields of a `Recipe`.
    classes, images: how many it was trained on.
    learnt: the classes.
    accuracy: share of held-out images that it classified correctly.
    """

    weights: Required[str]
    size: Required[Annotated[int, Meta(ge=1, le=10_000)]]
    md5: Required[str]
    names: str
    train_size: int
    epochs: int
    batch_size: int
    lr: float
    seed: int
    classes: int
    images: int
    learnt: list[str]
    accuracy: float


class NetworkFile(Struct):
    """What a network's file holds."""

    about: Network
    state_dict: dict[str, Tensor]


class FeatureNotes(Struct):
    """What lies beside a split's features, in JSON.

    files: fingerprint of the images.
    network: what makes the features.
    done: number of images.
    """

    files: str
    network: Network
    done: int

    @classmethod
    def of(cls, birds: BirdFiles, split: str, network: Network) -> "FeatureNotes":
        """The notes of the features of a split's images."""
        names = birds.names[split]
        return cls(fingerprint(birds.folder, names, "unpack the photographs again"), network, len(names))


class Extractor(NamedTuple):
    """A network: normalised images (N, 3, size, size) -> features (N, 2048)."""

    network: nn.Module
    size: int


def load_features(birds: BirdFiles, split: str, cache_dir: Path) -> Tensor:
    """Features (N, 2048) float32 of the images of a split, memory-mapped.

    Raises:
        InputError: the features are missing, damaged or not finite, belong to other images, or the two splits'
            features were made by different networks.
    """
    notes, path = read_notes(cache_dir, split), cache_dir / file_name(split)
    same = notes.network == read_notes(cache_dir, SPLITS[0]).network
    require(same, f"{path} was made by another network than the features of training images: {REMAKE}")
    features = arrays.mapped(path, ("<f4",), REMAKE)
    same = notes == FeatureNotes.of(birds, split, notes.network) and features.shape == (notes.done, N_FEATURES)
    require(same, f"{path} holds features of other images than {birds.folder}: {REMAKE}")
    features = torch.from_numpy(features)
    n_broken = int((~features.isfinite().all(dim=1)).sum())
    require(n_broken == 0, f"{path} holds values that are not finite, in {n_broken} rows: {REMAKE}")
    return features


def about(cache_dir: Path) -> dict[str, Any]:
    """Description of the network that made the features of a cache-dir.

    Returns:
        {"weights", "size", "md5"}; for a network trained here also "classes", "images", "epochs" and "accuracy".

    Raises:
        InputError: the cache-dir has no features.
    """
    shown = ("weights", "size", "classes", "images", "epochs", "accuracy", "md5")
    notes = read_notes(cache_dir, "train").network
    return {name: notes[name] for name in shown if name in notes}


def network_of(cache_dir: Path) -> Extractor:
    """Load the network that made the features of a cache-dir.

    Raises:
        InputError: the network or the features are missing or damaged, or do not belong together.
    """
    path, notes = cache_dir / NETWORK, read_notes(cache_dir, "train").network
    kept = read_network(path, remedy_for(cache_dir))
    require(kept.about == notes, f"{path} did not make the features beside it: {remedy_for(cache_dir)}")
    return Extractor(extractor(kept.state_dict, str(path)), notes["size"])


def features_of_file(resnet: Extractor, path: Path) -> Tensor:
    """Features (2048,) of an image file.

    Raises:
        InputError: the file is missing or not a readable image.
    """
    image = torch.tensor(decode(path, Kind(size=resnet.size), "give another"))
    return features_of(resnet.network, image[None], resnet.size)[0]


def nearest(query: Tensor, among: Tensor) -> Tensor:
    """Rows (Q,) int64 of `among` (N, 2048) that are nearest to `query` (Q, 2048), by Euclidean distance."""
    mean = among.mean(dim=0)  # subtracted, so that distances are not small differences of large numbers
    return torch.cat([torch.cdist(part - mean, among - mean).argmin(dim=1) for part in query.split(NEAREST_AT_ONCE)])


def file_name(split: str) -> str:
    """Name of the file that holds a split's features."""
    return f"features_{split}.npy"


def read_notes(cache_dir: Path, split: str) -> FeatureNotes:
    """What the .json file beside a split's features says."""
    path = (cache_dir / file_name(split)).with_suffix(".json")
    return read_json(path, FeatureNotes, MAKE_THEM if not path.exists() else REMAKE)


def read_network(path: Path, remedy: str) -> NetworkFile:
    """Read and check a network's file."""
    return load_tensors(path, NetworkFile, remedy, remedy)


def remedy_for(folder: Path) -> str:
    """What to do about features that cannot be used."""
    return f"delete {NETWORK} and features_*.* in {folder} and run features.py again, or give another --cache-dir"


def md5_of_lines(lines: Sequence[str]) -> str:
    """Fingerprint of lines, such as images' names, and their order."""
    return hashlib.md5("\n".join(lines).encode()).hexdigest()
