"""CUB-200-2011: photographs of birds, ten captions of each (Reed et al. 2016), and drawn birds for the demo."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from common.data import Examples, image_caches
from common.data import array_caches as caches
from common.data.config import DataConfig
from common.errors import require
from cub import demo as drawn
from cub.captions import Vocabulary, tokenizer, words
from cub.demo import CAPTIONS
from cub.features import load_features
from cub.layouts import fetch_birds, find_birds

IMAGES = image_caches.Kind(squashed=True)  # the authors' Resize([64, 64])


@dataclass
class Birds:
    """N images, their features where those are wanted, and their captions.

    examples: image (N, 3, 64, 64) uint8, feature (N, 2048) float32, and caption (10 N, 32) int64: 10 N of them,
        caption i with image i // 10.
    captions: the 10 N, as they were written; words: of each.
    files: of the N images; none of drawn ones.
    classes: (N,) int64, one of the class_names: species, or crowns of drawn birds.
    vocabulary: of the captions.
    attributes: (N, A) int64, values of `cub.demo.ATTRIBUTES`, of drawn birds.
    """

    examples: Examples
    captions: list[str]
    words: list[list[str]]
    files: list[Path]
    classes: Tensor
    class_names: list[str]
    vocabulary: Vocabulary
    attributes: Tensor | None = None

    def __getitem__(self, images: slice) -> "Birds":
        """Some of the images, with their captions."""
        start, stop, _ = images.indices(len(self.classes))
        images, of_them = slice(start, stop), slice(CAPTIONS * start, CAPTIONS * stop)
        x = self.examples.modalities
        return replace(
            self,
            examples=_paired({name: x[name][of_them if name == "caption" else images] for name in x}),
            captions=self.captions[of_them],
            words=self.words[of_them],
            files=self.files[images],
            classes=self.classes[images],
            attributes=None if self.attributes is None else self.attributes[images],
        )

    def take(self, n: int | None) -> "Birds":
        """The first n images, with their captions."""
        return self[:n]


class BirdConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `BirdOptions`."""

    images_dir: Path | None
    cache_dir: Path | None


class TrainingBirdConfig(BirdConfig, Protocol):
    """Also valid: the number of training images to hold out; None for the last tenth."""

    valid: int | None


def load(
    split: str, config: BirdConfig, source: Literal["image", "feature"] = "image", vocabulary: Vocabulary | None = None
) -> Birds:
    """Load a split of the birds.

    Args:
        split: "train" or "test", which have no class in common.
        config: its data_dir holds what `find_birds` reads. The demo has 3,000 and 200 drawn birds. limit counts images.
        source: "feature" for what features.py has made of the images, beside them.
        vocabulary: by default that of all training captions.

    Raises:
        InputError: something is missing, unreadable, damaged, or does not fit together.
    """
    if config.demo:
        return _drawn(split, source, config.limit, vocabulary)
    if config.download:
        fetch_birds(config.data_dir)
    birds, cache_dir = find_birds(config.data_dir, config.images_dir), config.cache_dir or config.data_dir
    names, captions = birds.names[split], birds.captions[split]
    path = cache_dir / f"cub_{split}_64_{_md5(names)[:8]}.npy"
    x = {"image": image_caches.load(birds.folder, names, path, IMAGES)}
    if source == "feature":
        x["feature"] = load_features(birds, split, cache_dir)
    split_up = _words(captions, cache_dir)
    if vocabulary is None:
        vocabulary = Vocabulary.of(split_up if split == "train" else _words(birds.captions["train"], cache_dir))
    class_names = sorted({_class_of(name) for part in birds.captions for name in birds.names[part]})
    numbers = {name: i for i, name in enumerate(class_names)}
    return Birds(
        _paired(x | {"caption": vocabulary.encode(split_up)}),
        captions,
        split_up,
        [birds.folder / name for name in names],
        torch.tensor([numbers[_class_of(name)] for name in names]),
        class_names,
        vocabulary,
    ).take(config.limit)


def load_train(
    config: TrainingBirdConfig,
    source: Literal["image", "feature"] = "image",
    vocabulary: Vocabulary | None = None,
) -> tuple[Birds, Birds | None]:
    """Load birds to train on, and the last images, --valid or a tenth, to select the best model by; see `load`."""
    train = load("train", config, source, vocabulary)
    n = len(train.classes)
    valid = n // 10 if config.valid is None else config.valid
    require(valid < n, f"--valid {valid} leaves no training image: there are {n}")
    return train[: n - valid], train[n - valid :] if valid else None


def _class_of(name: str) -> str:
    return name.split("/")[-2]


def _paired(modalities: dict[str, Tensor]) -> Examples:
    rows = torch.arange(len(modalities["caption"]))
    return Examples(modalities, {name: rows if name == "caption" else rows // CAPTIONS for name in modalities})


def _md5(lines: list[str]) -> str:
    return hashlib.md5("\n".join(lines).encode()).hexdigest()


def _words(captions: list[str], cache_dir: Path) -> list[list[str]]:
    """The words of each caption, found once and kept: no other part of loading takes as long."""
    about = {"captions": _md5(captions), "tokenizer": tokenizer()}
    again = "delete it, and it will be made again"
    path = cache_dir / f"cub_words_{about['captions'][:8]}.npz"
    if path.exists():
        (text,) = caches.load(path, about, ["words"], again)
        return [line.split() for line in text.numpy().tobytes().decode().split("\n")]
    found = [words(caption) for caption in captions]
    if os.access(cache_dir, os.W_OK):
        text = "\n".join(map(" ".join, found)).encode()
        caches.save(path, about, {"words": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return found


@cache
def _words_of_drawn_birds() -> Vocabulary:
    return Vocabulary.of(drawn.demo("train", 200)[1])  # in which every word occurs


def _drawn(split: str, source: str, limit: int | None, vocabulary: Vocabulary | None) -> Birds:
    images, captions, attributes = drawn.demo(split, limit)
    vocabulary = _words_of_drawn_birds() if vocabulary is None else vocabulary
    split_up = [words(caption) for caption in captions]
    modalities = {"image": images, "caption": vocabulary.encode(split_up)}
    if source == "feature":
        modalities["feature"] = drawn.features(images)
    name, values = next(iter(drawn.ATTRIBUTES.items()))
    class_names = [f"{value} {name}" for value in values]
    classes = attributes[:, 0]
    return Birds(_paired(modalities), captions, split_up, [], classes, class_names, vocabulary, attributes)
