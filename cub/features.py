"""Features of CUB's photographs: ResNet-101's last hidden layer, 2048 numbers an image, for --model features.

    python features.py --data-dir data                                  weights of ImageNet, downloaded (authors')
    python features.py --data-dir data --weights FILE                   a state dict of torchvision's resnet101
    python features.py --data-dir data --weights train --cuda           no download: trained on the birds themselves

Writes features_train.npy and features_test.npy, (N, 2048) float32, one row an image, and cub_resnet101.pth.tar, the
network, into the cache-dir (default: the data-dir); goes on where it was broken off. A network that is trained here
learns the classes of all images but those of test classes, also of images without captions; the images it is trained on
are kept there too.
"""

import hashlib
import io
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.checkpoints import load, save
from common.data import image_caches
from common.data.image_caches import Kind, decode
from common.errors import InputError, option, require
from common.io import write_atomically
from common.training import devices, run_from_command_line
from cub.feature_network import N_FEATURES, Recipe, extractor, features_of, fingerprint, imagenet, train
from cub.layouts import BirdFiles, find_birds
from cub.options import BirdOptions

SPLITS = ("train", "test")
NETWORK, TRAINING = "cub_resnet101.pth.tar", "cub_resnet101_training.pth.tar"
SIZE = 224  # ImageNet's
DECODED_AT_ONCE = 64
NEAREST_AT_ONCE = 256
MARGIN = 8 / 7  # of the images kept for training, over the size
MAKE_THEM = "python features.py makes the features of images"


@dataclass
class Config(BirdOptions):
    data_dir: Path = Path("data")
    """CUB in its original format, or the MMVAE authors'"""
    weights: Literal["torchvision", "train"] | Path = "torchvision"
    """torchvision: of ImageNet, which torchvision downloads; train: learnt here from the birds' classes; or a file: a
    state dict of torchvision's resnet101, or the cub_resnet101.pth.tar of another cache-dir"""
    size: int | None = None
    """pixels that an image's shorter side is brought to, and the square in its middle is wide; default: those that a
    network trained here was judged by, 224 of any other"""
    train_size: int | None = None
    """train: pixels that a random crop is wide; default: the size. Crops show birds larger: a bit less serves"""
    epochs: int = 90
    """train: passes over the images"""
    batch_size: int = 32
    """train: images a step"""
    lr: float = 0.02
    """train: highest learning rate of SGD"""
    seed: int = 0
    """train: of every draw"""
    cuda: bool = False
    """use the GPU"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """train: of the network; features are extracted in float32"""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        for name in ("size", "train_size", "epochs", "batch_size", "lr"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        require(self.batch_size > 1, "--batch-size 1 is too small for batch norm")
        require(0 <= self.seed < 2**32, f"--seed must lie between 0 and 2^32, it is {self.seed}")


class Extractor(NamedTuple):
    """A network of 2048 features, and the size of the images it takes."""

    network: nn.Module
    size: int


def main(config: Config) -> None:
    config.check()
    found, folder = find_birds(config.data_dir, config.images_dir), config.cache_dir or config.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    device = devices.select(config.cuda)
    network, notes = _network(config, found, folder, device)
    for split in SPLITS:
        _extract(found, split, folder, Extractor(network.to(device), notes["size"]), notes)
    print(", ".join(f"{name} {value}" for name, value in about(folder).items()))
    print(*(folder / _name(split) for split in SPLITS), sep="\n")


def load_features(found: BirdFiles, split: str, cache_dir: Path) -> Tensor:
    """The features of a split's images (N, 2048) float32, mapped into memory.

    Raises:
        InputError: there are none, not all, or of other images.
    """
    notes, names = _notes(cache_dir, split), found.names[split]
    path = cache_dir / _name(split)
    same = notes["network"] == _notes(cache_dir, SPLITS[0])["network"]
    require(same, f"{path} is of another network than the features of training images: {_again(cache_dir)}")
    require(notes["names"] == _md5(names), f"{path} is of other images than {found.folder}: {_again(cache_dir)}")
    require(notes["done"] == len(names), f"{path} holds {notes['done']} of {len(names)} images: {MAKE_THEM}")
    return torch.from_numpy(_mapped(path, len(names)))


def about(cache_dir: Path) -> dict[str, Any]:
    """What made the features of a cache-dir: weights, their md5, size and, of a network trained here, its accuracy.

    Raises:
        InputError: there are none.
    """
    shown = ("weights", "size", "classes", "images", "epochs", "accuracy", "md5")
    notes = _notes(cache_dir, "train")["network"]
    return {name: notes[name] for name in shown if name in notes}


def network_of(cache_dir: Path) -> Extractor:
    """What the features of a cache-dir were made with.

    Raises:
        InputError: it is missing or damaged.
    """
    path, notes = cache_dir / NETWORK, _notes(cache_dir, "train")["network"]
    kept = load(path)
    require(kept.get("about") == notes, f"{path} did not make the features beside it: {_again(cache_dir)}")
    return Extractor(extractor(kept["state_dict"], str(path)), notes["size"])


def features_of_file(of: Extractor, path: Path) -> Tensor:
    """The features (2048,) of an image file.

    Raises:
        InputError: it is missing or unreadable.
    """
    image = torch.tensor(decode(path, Kind(size=of.size), "give another"))
    return features_of(of.network, image[None], of.size)[0]


def nearest(query: Tensor, among: Tensor) -> Tensor:
    """Which of some features (N, 2048) are nearest to others (Q, 2048), by Euclidean distance: (Q,) int64."""
    mean = among.mean(dim=0)  # without it distances would be small differences of large numbers
    return torch.cat([torch.cdist(some - mean, among - mean).argmin(dim=1) for some in query.split(NEAREST_AT_ONCE)])


def _network(config: Config, found: BirdFiles, folder: Path, device: torch.device) -> tuple[nn.Module, dict[str, Any]]:
    """The network asked for, and what it is; kept in the cache-dir, where no other may be."""
    path = folder / NETWORK
    if config.weights == "train":
        notes, state_dict = _trained(config, found, folder, device)
    elif config.weights == "torchvision":
        notes, state_dict = {"weights": "ImageNet (torchvision)"}, imagenet()
    else:
        require(config.weights.is_file(), f"--weights {config.weights} is no file, nor torchvision or train")
        given = load(config.weights)
        notes, state_dict = given.get("about", {"weights": str(config.weights)}), given.get("state_dict", given)
        require(isinstance(notes, dict), f"--weights {config.weights} is no network of features.py, nor a state dict")
    learnt = {Path(name).parent.name for name in found.names["test"]} & set(notes.get("learnt", ()))
    require(not learnt, f"{config.weights} has learnt the test class {min(learnt, default='')}: use another network")
    network = extractor(state_dict, f"--weights {config.weights}")
    notes = notes | {"size": config.size or notes.get("size", SIZE), "md5": fingerprint(network)}
    if path.exists():
        same = load(path).get("about") == notes
        require(same, f"{path} is another network, or of another --size: {_again(folder)}")
    else:
        save(path, {"about": notes, "state_dict": network.state_dict()})
        (folder / TRAINING).unlink(missing_ok=True)
    return network, notes


def _trained(
    config: Config, found: BirdFiles, folder: Path, device: torch.device
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A network trained on the classes of all images but the test classes', or the one that the cache-dir has."""
    names = sorted(found.names["train"] + found.names["uncaptioned"])
    of = [Path(name).parent.name for name in names]
    classes = sorted(set(of))
    few = f"{found.folder} has {len(names)} images of {len(classes)} classes to train on"
    require(len(classes) > 1 and len(names) > 3, f"{few}, which are too few: give --weights PATH or torchvision")
    size = config.size or SIZE
    recipe = Recipe(size, config.train_size or size, config.epochs, config.batch_size, config.lr, config.seed)
    made_with = {**recipe._asdict(), "names": _md5(names)}
    if (folder / NETWORK).exists():
        kept = load(folder / NETWORK)
        notes = kept.get("about", {})
        same = all(notes.get(name) == value for name, value in made_with.items())
        require(same, f"{folder / NETWORK} was made otherwise: {_again(folder)}")
        return notes, kept["state_dict"]
    kind = Kind(size=round(MARGIN * max(size, recipe.train_size)))
    images = image_caches.load(found.folder, names, folder / f"cub_training_{kind.size}.npy", kind)
    print(f"training ResNet-101 on {len(names)} images of {len(classes)} classes")
    labels = torch.tensor([classes.index(name) for name in of])
    bf16 = config.precision == "bf16"
    state_dict, accuracy = train(images, labels, recipe, device, bf16, made_with, folder / TRAINING)
    notes = {"weights": "trained on the birds", "classes": len(classes), "images": len(names), "learnt": classes}
    return made_with | notes | {"accuracy": round(accuracy, 4)}, state_dict


def _extract(found: BirdFiles, split: str, folder: Path, of: Extractor, network: dict[str, Any]) -> None:
    """Write a split's features; goes on where it was broken off."""
    path, names = folder / _name(split), found.names[split]
    notes = {"names": _md5(names), "network": network, "done": 0}
    if path.with_suffix(".json").exists():
        kept = _notes(folder, split)
        require(kept | {"done": 0} == notes, f"{path} is of other images or of another network: {_again(folder)}")
        features, notes = _mapped(path, len(names), "r+"), kept
    else:
        whole = io.BytesIO()
        np.save(whole, np.zeros((len(names), N_FEATURES), np.float32))
        write_atomically(path, whole.getbuffer())  # so that no page is without its place on the disk
        features = _mapped(path, len(names), "r+")
    image = partial(decode, kind=Kind(size=of.size))
    files = [found.folder / name for name in names]
    progress = tqdm(total=len(names), initial=notes["done"], unit=" images", desc=path.stem, disable=None)
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress:  # PIL lets go of the interpreter while it decodes
        for start in range(notes["done"], len(names), DECODED_AT_ONCE):
            stop = min(start + DECODED_AT_ONCE, len(names))
            images = torch.from_numpy(np.stack([*pool.map(image, files[start:stop])]))
            features[start:stop] = features_of(of.network, images, of.size).cpu().numpy()
            features.flush()
            notes["done"] = stop
            write_atomically(path.with_suffix(".json"), json.dumps(notes).encode())
            progress.update(stop - start)


def _name(split: str) -> str:
    return f"features_{split}.npy"


def _notes(cache_dir: Path, split: str) -> dict[str, Any]:
    """What is said of a split's features."""
    path = (cache_dir / _name(split)).with_suffix(".json")
    require(path.is_file(), f"{path} is missing: {MAKE_THEM}")
    try:
        notes = json.loads(path.read_text())
        whole = notes.keys() == {"names", "network", "done"} and isinstance(notes["network"], dict)
        require(whole, f"{path} says other things: {_again(cache_dir)}")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {_again(cache_dir)}") from error
    return notes


def _mapped(path: Path, n: int, mode: str = "c") -> np.ndarray:
    """The features of a file (n, 2048), in memory only where they are looked at."""
    try:
        features = np.lib.format.open_memmap(path, mode)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is missing, truncated or damaged: {_again(path.parent)}") from error
    fits = features.shape == (n, N_FEATURES) and features.dtype == np.float32
    require(fits, f"{path} holds {features.shape} numbers in place of {(n, N_FEATURES)}: {_again(path.parent)}")
    return features


def _again(folder: Path) -> str:
    return f"delete {NETWORK} and features_*.* in {folder} and run features.py again, or give another --cache-dir"


def _md5(names: Sequence[str]) -> str:
    return hashlib.md5("\n".join(names).encode()).hexdigest()


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
