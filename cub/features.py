"""Compute features of CUB's photographs, for --model features: ResNet-101's last hidden layer, 2048 numbers each.

    python features.py --data-dir data                                  weights of ImageNet, downloaded (authors')
    python features.py --data-dir data --weights FILE                   a state dict of torchvision's resnet101
    python features.py --data-dir data --weights train --cuda           no download: trained on the birds themselves

Writes features_train.npy and features_test.npy, (N, 2048) float32 with one row per image, and the network,
cub_resnet101.pth.tar, into the cache-dir (default: the data-dir). The same command resumes an interrupted training, and
leaves finished features as they are. A network trained here learns the classes of all images, also those without
captions, except images of test classes; its training images are cached in the cache-dir too.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Literal

from common.data import image_caches
from common.data.image_caches import Kind, decode
from common.errors import option, require, require_positive, require_seed
from common.execution import devices
from common.io import as_type, load_tensors, locked, save_tensors, write_atomically
from common.progress import progress_bar
from cub.feature_files import (
    NETWORK,
    REMAKE,
    SPLITS,
    Extractor,
    FeatureNotes,
    Network,
    NetworkFile,
    about,
    file_name,
    md5_of_lines,
    read_network,
    read_notes,
    remedy_for,
)
from cub.feature_network import Recipe, extractor, features_of, fingerprint, imagenet, train
from cub.layouts import BirdFiles, find_birds
from cub.options import BirdOptions
from training import run_from_command_line

import msgspec
import numpy as np
import torch
from joblib import cpu_count
from torch import Tensor, nn

TRAINING_OPTIONS = ("train_size", "epochs", "batch_size", "lr", "seed", "precision")
TRAINING = "cub_resnet101_training.pth.tar"
SIZE = 224  # pixels, as for ImageNet
DECODED_AT_ONCE = 64
MARGIN = 8 / 7  # edge of the cached training images over the size that the network takes


@dataclass
class Config(BirdOptions):
    data_dir: Path = Path("data")
    """folder of CUB in its original format, or in that of the MMVAE authors"""
    weights: Literal["torchvision", "train"] | Path = "torchvision"
    """torchvision: weights for ImageNet, which torchvision downloads; train: learn them here from the birds' classes;
    or a file: a state dict of torchvision's resnet101, or cub_resnet101.pth.tar from another cache-dir"""
    size: int | None = None
    """pixels of an image's shorter side after resizing, and of its central square, which the network sees.
    None: 224, or the validation size of a network that was trained here"""
    train_size: int | None = None
    """with --weights train: side of the random crops, in pixels.
    Birds look larger in crops, so a little less than --size works well. None: --size"""
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
        require_positive(self, "size", "train_size", "epochs", "batch_size", "lr")
        require(self.batch_size > 1, "--batch-size must be at least 2 for batch norm, not 1")
        for field in fields(self):
            trains = self.weights == "train" or field.name not in TRAINING_OPTIONS
            unused = trains or getattr(self, field.name) == field.default
            require(unused, f"{option(field.name)} needs --weights train (got --weights {self.weights})")
        require_seed(self)


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
    print(*(folder / file_name(split) for split in SPLITS), sep="\n")


def _network(config: Config, birds: BirdFiles, folder: Path, device: torch.device) -> tuple[nn.Module, Network]:
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
        same = read_network(path, remedy_for(folder)).about == notes
        require(same, f"{path} holds another network, or was made with another --size: {remedy_for(folder)}")
    else:
        save_tensors(path, {"about": notes, "state_dict": network.state_dict()})
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
    require(
        config.weights.is_file(), f"--weights {config.weights}: there is no such file; give one, torchvision or train"
    )
    name, remedy = f"--weights {config.weights}", "give another file"
    content = load_tensors(config.weights, dict, remedy, remedy)
    if "about" in content:
        kept = as_type(content, NetworkFile, name, remedy)
        return kept.about, kept.state_dict
    return {"weights": config.weights.name}, as_type(content, dict[str, Tensor], name, remedy)


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
    made_with = {**recipe._asdict(), "names": md5_of_lines(names)}
    if (folder / NETWORK).exists():
        kept = read_network(folder / NETWORK, remedy_for(folder))
        same = all(kept.about.get(name) == value for name, value in made_with.items())
        require(same, f"{folder / NETWORK} was trained with other options or on other images: {remedy_for(folder)}")
        return kept.about, kept.state_dict
    kind = Kind(size=round(MARGIN * max(size, recipe.train_size)))
    images = image_caches.load(birds.folder, names, folder / f"cub_training_{kind.size}.npy", kind)
    print(f"training ResNet-101 on {len(names)} images of {len(classes)} classes")
    numbers = torch.tensor([classes.index(label) for label in labels])
    bf16 = config.precision == "bf16"
    state_dict, accuracy = train(images, numbers, recipe, device, bf16, made_with, folder / TRAINING)
    notes = {"weights": "trained on the birds", "classes": len(classes), "images": len(names), "learnt": classes}
    return made_with | notes | {"accuracy": round(accuracy, 4)}, state_dict


def _extract(birds: BirdFiles, split: str, folder: Path, resnet: Extractor, network: Network) -> None:
    """Write the features of a split's images, unless they are there.

    Args:
        network: description of the network.
    """
    path, names = folder / file_name(split), birds.names[split]
    notes = FeatureNotes.of(birds, split, network)
    if path.with_suffix(".json").exists():
        same = read_notes(folder, split) == notes
        require(same, f"{path} holds features of other images or of another network: {REMAKE}")
        return
    files, image = [birds.folder / name for name in names], partial(decode, kind=Kind(size=resnet.size))
    features, content = [], io.BytesIO()
    progress = progress_bar(total=len(names), unit=" images", desc=path.stem)
    with ThreadPoolExecutor(cpu_count()) as pool, progress:  # PIL releases the GIL while it decodes
        for start in range(0, len(names), DECODED_AT_ONCE):
            images = np.stack([*pool.map(image, files[start : start + DECODED_AT_ONCE])])
            features.append(features_of(resnet.network, torch.from_numpy(images), resnet.size).cpu().numpy())
            progress.update(len(images))
    np.save(content, np.concatenate(features))
    write_atomically(path, content.getbuffer())
    write_atomically(path.with_suffix(".json"), msgspec.json.encode(notes))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
