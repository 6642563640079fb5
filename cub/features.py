"""Compute features of CUB's photographs, for --model features: ResNet-101's last hidden layer, 2048 numbers each.

    python features.py --data-dir data                                  weights of ImageNet, downloaded (authors')
    python features.py --data-dir data --weights FILE                   a state dict of torchvision's resnet101
    python features.py --data-dir data --weights train --cuda           no download: trained on the birds themselves

Writes features_train.npy and features_test.npy, (N, 2048) float32 with one row per image, and the network,
cub_resnet101.pth.tar, into the cache-dir (default: the data-dir). An interrupted run is resumed. A network trained here
learns the classes of all images, also those without captions, except images of test classes; its training images are
cached in the cache-dir too.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Required, TypedDict

import msgspec
import numpy as np
import torch
from joblib import cpu_count
from msgspec import Meta, Struct, structs
from torch import Tensor, nn

from common import distributed
from common.checkpoints import load
from common.data import image_caches, npy_files
from common.data.image_caches import Kind, decode
from common.errors import option, require
from common.io import locked, write_atomically
from common.schemas import check, read_json
from common.tensor_files import save
from common.training import devices, run_from_command_line
from cub.feature_network import N_FEATURES, Recipe, extractor, features_of, fingerprint, imagenet, train
from cub.layouts import BirdFiles, find_birds
from cub.options import BirdOptions

SPLITS = ("train", "test")
TRAINING_OPTIONS = ("train_size", "epochs", "batch_size", "lr", "seed", "precision")
NETWORK, TRAINING = "cub_resnet101.pth.tar", "cub_resnet101_training.pth.tar"
Pixels = Annotated[int, Meta(ge=1, le=10_000)]
SIZE = 224  # pixels, as for ImageNet
DECODED_AT_ONCE = 64
NEAREST_AT_ONCE = 256
MARGIN = 8 / 7  # edge of the cached training images over the size that the network takes
MAKE_THEM = "run features.py with the same --data-dir to compute the features, or add --demo for the demo's birds"


@dataclass
class Config(BirdOptions):
    GROUPS: ClassVar = {"data": ("data_dir",)}

    data_dir: Path = Path("data")
    """folder of CUB in its original format, or in that of the MMVAE authors"""
    weights: Literal["torchvision", "train"] | Path = "torchvision"
    """torchvision: weights for ImageNet, which torchvision downloads; train: learn them here from the birds' classes;
    or a file: a state dict of torchvision's resnet101, or cub_resnet101.pth.tar from another cache-dir"""
    size: int | None = None
    """pixels of an image's shorter side after resizing, and of its central square, which the network sees. Default:
    224, or the validation size of a network that was trained here"""
    train_size: int | None = None
    """with --weights train: side of the random crops, in pixels. Birds look larger in crops, so a little less than
    --size works well. Default: --size"""
    epochs: int = 90
    """with --weights train: passes over the images"""
    batch_size: int = 32
    """with --weights train: images in a batch"""
    lr: float = 0.02
    """with --weights train: highest learning rate of SGD"""
    seed: int = 0
    """with --weights train: seed of all random draws"""
    cuda: bool = False
    """use the GPU"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """with --weights train: precision of the network; features are always extracted in float32"""

    def check(self) -> None:
        """Raise InputError for values outside their range."""
        for name in ("size", "train_size", "epochs", "batch_size", "lr"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        require(self.batch_size > 1, "--batch-size must be at least 2 for batch norm, not 1")
        for field in fields(self):
            trains = self.weights == "train" or field.name not in TRAINING_OPTIONS
            unused = trains or getattr(self, field.name) == field.default
            require(unused, f"{option(field.name)} needs --weights train (got --weights {self.weights})")
        require(0 <= self.seed < 2**32, f"--seed must lie between 0 and 2^32, it is {self.seed}")


class Network(TypedDict, total=False):
    """Description of a network; one that was trained here has all fields.

    weights: where they come from.
    size: edge of the images that it sees, in pixels.
    md5: fingerprint of its parameters.
    names: md5 of the names of its training images; with the fields of a `Recipe`.
    classes, images: how many it was trained on.
    learnt: the classes.
    accuracy: share of held-out images that it classified correctly.
    """

    weights: Required[str]
    size: Pixels
    md5: str
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


class Extracted(Network):
    """Description of a network that makes features."""

    size: Required[Pixels]
    md5: Required[str]


class Kept(Struct):
    """What a network's file holds."""

    about: Network
    state_dict: dict[str, Tensor]


class Notes(Struct):
    """What lies beside a split's features, in JSON.

    names: md5 of the names of the images.
    network: what makes the features.
    done: number of finished rows.
    """

    names: str
    network: Extracted
    done: Annotated[int, Meta(ge=0)] = 0


class Extractor(NamedTuple):
    """A network: normalised images (N, 3, size, size) -> features (N, 2048)."""

    network: nn.Module
    size: int


def main(config: Config) -> None:
    """Compute the features of both splits, and write them and their network."""
    config.check()
    birds, folder = find_birds(config.data_dir, config.images_dir), config.cache_dir or config.data_dir
    device = devices.select(config.cuda)
    with locked(folder):
        network, notes = _network(config, birds, folder, device)
        for split in SPLITS:
            _extract(birds, split, folder, Extractor(network.to(device), notes["size"]), notes)
    print(", ".join(f"{name} {value}" for name, value in about(folder).items()))
    print(*(folder / _name(split) for split in SPLITS), sep="\n")


def load_features(birds: BirdFiles, split: str, cache_dir: Path) -> Tensor:
    """Features (N, 2048) float32 of the images of a split, memory-mapped.

    Raises:
        InputError: the features are missing, incomplete or not finite, belong to other images, or the two splits'
            features were made by different networks.
    """
    notes, names = _notes(cache_dir, split), birds.names[split]
    path = cache_dir / _name(split)
    same = notes.network == _notes(cache_dir, SPLITS[0]).network
    require(same, f"{path} was made by another network than the features of training images: {_again(cache_dir)}")
    same = notes.names == _md5(names)
    require(same, f"{path} holds features of other images than {birds.folder}: {_again(cache_dir)}")
    require(notes.done == len(names), f"{path} holds {notes.done} of {len(names)} images: {MAKE_THEM}")
    features = torch.from_numpy(_mapped(path, len(names)))
    finite = features.isfinite().all(dim=1)
    n_broken = len(finite) - int(finite.sum())
    require(n_broken == 0, f"{path} holds values that are not finite, in {n_broken} rows: {_again(cache_dir)}")
    return features


def about(cache_dir: Path) -> dict[str, Any]:
    """Description of the network that made the features of a cache-dir.

    Returns:
        {"weights", "size", "md5"}; for a network trained here also "classes", "images", "epochs" and "accuracy".

    Raises:
        InputError: the cache-dir has no features.
    """
    shown = ("weights", "size", "classes", "images", "epochs", "accuracy", "md5")
    notes = _notes(cache_dir, "train").network
    return {name: notes[name] for name in shown if name in notes}


def network_of(cache_dir: Path) -> Extractor:
    """Load the network that made the features of a cache-dir.

    Raises:
        InputError: the network or the features are missing or damaged, or do not belong together.
    """
    path, notes = cache_dir / NETWORK, _notes(cache_dir, "train").network
    kept = _kept(path, _again(cache_dir))
    require(kept.about == notes, f"{path} did not make the features beside it: {_again(cache_dir)}")
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


def _network(config: Config, birds: BirdFiles, folder: Path, device: torch.device) -> tuple[nn.Module, Extracted]:
    """The network that --weights names, and its description; saved in the cache-dir, which may hold no other one."""
    path = folder / NETWORK
    notes, state_dict = _parameters(config, birds, folder, device)
    learnt = {Path(name).parent.name for name in birds.names["test"]} & set(notes.get("learnt", ()))
    require(
        not learnt, f"{config.weights} was trained on the test class {min(learnt, default='')}: use another network"
    )
    network = extractor(state_dict, f"--weights {config.weights}")
    notes = notes | {"size": config.size or notes.get("size", SIZE), "md5": fingerprint(network)}
    if path.exists():
        same = _kept(path, _again(folder)).about == notes
        require(same, f"{path} holds another network, or was made with another --size: {_again(folder)}")
    else:
        save(path, {"about": notes, "state_dict": network.state_dict()})
        (folder / TRAINING).unlink(missing_ok=True)
    return network, notes


def _parameters(
    config: Config, birds: BirdFiles, folder: Path, device: torch.device
) -> tuple[Network, dict[str, Tensor]]:
    """Description and parameters of the network that --weights names."""
    if config.weights == "train":
        return _trained(config, birds, folder, device)
    if config.weights == "torchvision":
        return {"weights": "ImageNet (torchvision)"}, imagenet()
    require(config.weights.is_file(), f"--weights {config.weights} is neither a file nor torchvision or train")
    content, name, remedy = load(config.weights), f"--weights {config.weights}", "give another file"
    if "about" in content:
        kept = check(content, Kept, name, remedy)
        return kept.about, kept.state_dict
    return {"weights": str(config.weights)}, check(content, dict[str, Tensor], name, remedy)


def _trained(config: Config, birds: BirdFiles, folder: Path, device: torch.device) -> tuple[Network, dict[str, Tensor]]:
    """Train a network on all images but those of test classes, or load it from the cache-dir.

    Returns:
        the network's description, and its parameters.
    """
    names = sorted(birds.names["train"] + birds.names["uncaptioned"])
    labels = [Path(name).parent.name for name in names]
    classes = sorted(set(labels))
    require(
        len(classes) > 1 and len(names) > 3,
        f"{birds.folder} has {len(names)} images of {len(classes)} classes to train on, which are too few: "
        "give --weights PATH or torchvision",
    )
    size = config.size or SIZE
    recipe = Recipe(size, config.train_size or size, config.epochs, config.batch_size, config.lr, config.seed)
    made_with = {**recipe._asdict(), "names": _md5(names)}
    if (folder / NETWORK).exists():
        kept = _kept(folder / NETWORK, _again(folder))
        same = all(kept.about.get(name) == value for name, value in made_with.items())
        require(same, f"{folder / NETWORK} was trained with other options or on other images: {_again(folder)}")
        return kept.about, kept.state_dict
    kind = Kind(size=round(MARGIN * max(size, recipe.train_size)))
    images = image_caches.load(birds.folder, names, folder / f"cub_training_{kind.size}.npy", kind)
    print(f"training ResNet-101 on {len(names)} images of {len(classes)} classes")
    numbers = torch.tensor([classes.index(label) for label in labels])
    bf16 = config.precision == "bf16"
    state_dict, accuracy = train(images, numbers, recipe, device, bf16, made_with, folder / TRAINING)
    notes = {"weights": "trained on the birds", "classes": len(classes), "images": len(names), "learnt": classes}
    return made_with | notes | {"accuracy": round(accuracy, 4)}, state_dict


def _extract(birds: BirdFiles, split: str, folder: Path, resnet: Extractor, network: Extracted) -> None:
    """Write the features of a split's images; an interrupted run is resumed.

    Args:
        network: description of the network.
    """
    path, names = folder / _name(split), birds.names[split]
    notes = Notes(_md5(names), network)
    if path.with_suffix(".json").exists():
        kept = _notes(folder, split)
        same = structs.replace(kept, done=0) == notes
        require(same, f"{path} holds features of other images or of another network: {_again(folder)}")
        notes = kept
    else:
        content = io.BytesIO()
        np.save(content, np.zeros((len(names), N_FEATURES), np.float32))
        write_atomically(path, content.getbuffer())  # written in full, so that the disk cannot run out of space later
    features = _mapped(path, len(names), "r+")
    image = partial(decode, kind=Kind(size=resnet.size))
    files = [birds.folder / name for name in names]
    progress = distributed.progress(total=len(names), initial=notes.done, unit=" images", desc=path.stem)
    with ThreadPoolExecutor(cpu_count()) as pool, progress:  # PIL releases the GIL while it decodes
        for start in range(notes.done, len(names), DECODED_AT_ONCE):
            stop = min(start + DECODED_AT_ONCE, len(names))
            images = torch.from_numpy(np.stack([*pool.map(image, files[start:stop])]))
            features[start:stop] = features_of(resnet.network, images, resnet.size).cpu().numpy()
            features.flush()
            notes.done = stop
            write_atomically(path.with_suffix(".json"), msgspec.json.encode(notes))
            progress.update(stop - start)


def _name(split: str) -> str:
    return f"features_{split}.npy"


def _notes(cache_dir: Path, split: str) -> Notes:
    """What the .json file beside a split's features says."""
    path = (cache_dir / _name(split)).with_suffix(".json")
    return read_json(path, Notes, MAKE_THEM if not path.exists() else _again(cache_dir))


def _kept(path: Path, remedy: str) -> Kept:
    return check(load(path), Kept, str(path), remedy)


def _mapped(path: Path, n: int, mode: str = "c") -> np.ndarray:
    """Features (n, 2048) of a file, memory-mapped."""
    features, expected = npy_files.mapped(path, ["<f4"], _again(path.parent), mode), (n, N_FEATURES)
    same = features.shape == expected
    require(same, f"{path} has the shape {features.shape} instead of {expected}: {_again(path.parent)}")
    return features


def _again(folder: Path) -> str:
    """What to do about features that cannot be used."""
    return f"delete {NETWORK} and features_*.* in {folder} and run features.py again, or give another --cache-dir"


def _md5(names: Sequence[str]) -> str:
    return hashlib.md5("\n".join(names).encode()).hexdigest()


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
