"""Load CUB-200-2011: photographs of birds with ten captions each (Reed et al. 2016), or drawn birds for the demo."""

import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

from common.data import Examples, arrays, image_caches
from common.data.arrays import Expected
from common.data.files import DataConfig
from common.errors import require
from common.io import AGAIN
from common.progress import progress_bar
from cub import demo as drawn
from cub.captions import Vocabulary, tokenizer, words
from cub.demo import CAPTIONS
from cub.feature_files import load_features, md5_of_lines
from cub.layouts import find_birds, unpack_birds

import torch
from torch import Tensor

IMAGES = image_caches.Kind(squashed=True)  # the authors' Resize([64, 64])


@dataclass
class Birds:
    """N images with their captions and, if asked for, their features.

    examples: 10 N examples of image (N, 3, 64, 64) uint8, feature (N, 2048) float32 and caption (10 N, 32) int64, in
        which caption i goes with image i // 10.
    captions: texts of the 10 N captions.
    words: words of each caption.
    files: the N image files; empty for drawn birds.
    classes: (N,) int64, indices of class_names.
    class_names: species, or crown colours of drawn birds.
    vocabulary: vocabulary of the captions in the examples.
    attributes: (N, A) int64, indices of the values in `cub.demo.ATTRIBUTES`; None for photographs.
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
        """The images of a slice without a step, with their captions."""
        start, stop, _ = images.indices(len(self.classes))
        images, captions = slice(start, stop), slice(CAPTIONS * start, CAPTIONS * stop)
        x = self.examples.modalities
        return replace(
            self,
            examples=_paired({name: x[name][captions if name == "caption" else images] for name in x}),
            captions=self.captions[captions],
            words=self.words[captions],
            files=self.files[images],
            classes=self.classes[images],
            attributes=None if self.attributes is None else self.attributes[images],
        )

    @property
    def image_of_each_caption(self) -> Tensor:
        """The image of each caption, (10 N,): captions of one image are not independent."""
        return torch.arange(len(self.captions)) // CAPTIONS


class BirdConfig(DataConfig, Protocol):
    """`DataConfig` and the fields of `BirdOptions`.

    valid: for `load_train` alone, the number of training images to hold out; None for the last tenth.
    """

    images_dir: Path | None
    cache_dir: Path | None
    valid: int | None


def load(
    split: str, config: BirdConfig, source: Literal["image", "feature"] = "image", vocabulary: Vocabulary | None = None
) -> Birds:
    """Load a split of the birds.

    Args:
        split: "train" or "test"; they have no class in common.
        config: data_dir is in a layout that `find_birds` reads; the demo has 3,000 and 200 drawn birds; limit counts
            images.
        source: "feature" to load the features that features.py computed, in addition to the images.
        vocabulary: default: the vocabulary of all training captions.

    Raises:
        InputError: a file is missing, unreadable or damaged, or files do not match each other.
    """
    if config.demo:
        return _drawn(split, source, config.limit, vocabulary)
    if config.download:
        unpack_birds(config.data_dir)
    birds, cache_dir = find_birds(config.data_dir, config.images_dir), config.cache_dir or config.data_dir
    names, captions = birds.names[split], birds.captions[split]
    path = cache_dir / f"cub_{split}_64_{md5_of_lines(names)[:8]}.npy"
    features = {"feature": load_features(birds, split, cache_dir)} if source == "feature" else {}
    modalities = {"image": image_caches.load(birds.folder, names, path, IMAGES)} | features
    caption_words = _words(captions, cache_dir)
    if vocabulary is None:
        vocabulary = Vocabulary.of(caption_words if split == "train" else _words(birds.captions["train"], cache_dir))
    class_names = sorted({_class_of(name) for key in birds.captions for name in birds.names[key]})
    numbers = {name: i for i, name in enumerate(class_names)}
    return Birds(
        _paired(modalities | {"caption": vocabulary.encode(caption_words)}),
        captions,
        caption_words,
        [birds.folder / name for name in names],
        torch.tensor([numbers[_class_of(name)] for name in names]),
        class_names,
        vocabulary,
    )[: config.limit]


def load_train(
    config: BirdConfig,
    source: Literal["image", "feature"] = "image",
    vocabulary: Vocabulary | None = None,
) -> tuple[Birds, Birds | None]:
    """Load birds to train on, and the last --valid images (default: a tenth) for validation, None for 0; see `load`."""
    train = load("train", config, source, vocabulary)
    n = len(train.classes)
    valid = n // 10 if config.valid is None else config.valid
    require(valid < n, f"--valid {valid} leaves no training image: it must be below {n}")
    return train[: n - valid], train[n - valid :] if valid else None


def _class_of(name: str) -> str:
    """Class of an image file: the name of its folder."""
    return name.split("/")[-2]


def _paired(modalities: dict[str, Tensor]) -> Examples:
    """Examples in which each caption is paired with its image and feature."""
    rows = torch.arange(len(modalities["caption"]))
    return Examples(modalities, {name: rows if name == "caption" else rows // CAPTIONS for name in modalities})


def _words(captions: list[str], cache_dir: Path) -> list[list[str]]:
    """Words of each caption, cached, since splitting takes longer than the rest of loading."""
    about = {"captions": md5_of_lines(captions), "tokenizer": tokenizer()}
    path = cache_dir / f"cub_words_{md5_of_lines(about.values())[:8]}.npz"
    if path.exists():
        most = 4 * sum(len(caption.encode()) + 1 for caption in captions)  # each character may become a word
        (text,) = arrays.load(path, about, {"words": Expected("|u1", (range(most),))}, AGAIN)
        split = [line.split() for line in text.numpy().tobytes().decode(errors="replace").split("\n")]
        require(len(split) == len(captions), f"{path} holds {len(split)} captions instead of {len(captions)}: {AGAIN}")
        return split
    split = _split(captions)
    if os.access(cache_dir, os.W_OK):
        text = "\n".join(map(" ".join, split)).encode()
        arrays.save(path, about, {"words": torch.frombuffer(bytearray(text), dtype=torch.uint8)})
    return split


def _split(captions: list[str]) -> list[list[str]]:
    """Words of each caption."""
    return [words(caption) for caption in progress_bar(captions, desc="words", unit=" captions", delay=1, leave=False)]


@cache
def _vocabulary_of_drawn_birds() -> Vocabulary:
    """Vocabulary of the demo's captions; every word occurs among the first 200 birds."""
    return Vocabulary.of(drawn.demo("train", 200)[1])


def _drawn(split: str, source: str, limit: int | None, vocabulary: Vocabulary | None) -> Birds:
    """A split of the demo's drawn birds."""
    images, captions, attributes = drawn.demo(split, limit)
    vocabulary = _vocabulary_of_drawn_birds() if vocabulary is None else vocabulary
    caption_words = _split(captions)
    modalities = {"image": images, "caption": vocabulary.encode(caption_words)}
    if source == "feature":
        modalities["feature"] = drawn.features(images)
    name, values = next(iter(drawn.ATTRIBUTES.items()))
    class_names = [f"{value} {name}" for value in values]
    classes = attributes[:, 0]
    return Birds(_paired(modalities), captions, caption_words, [], classes, class_names, vocabulary, attributes)
