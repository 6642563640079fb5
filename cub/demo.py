"""Drawn birds with captions, for the demo: their attributes are known, so that captions can be checked."""

import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

from celeba.drawing import BATCH, SIZE
from common.progress import progress_bar
from cub.drawing import ATTRIBUTES, HORNS, PIGMENTS, SCENES, draw, random_attributes

import torch
from torch import Tensor

CAPTIONS = 10  # per image
NAMED = 0.8  # probability that a caption names the value of an attribute
PLAIN = ("plain", "pretty", "fine", "neat")  # words in place of a value
NOUNS = {"crown": ("crown", "crown", "head", "cap"), "wings": ("wings",), "tail": ("tail",), "size": ("bird",)}
NOUNS |= {"belly": ("belly", "belly", "breast", "chest", "underside"), "bill": ("bill", "bill", "beak")}
SYNONYMS = {"red": ("crimson", "scarlet"), "yellow": ("golden",), "blue": ("azure",)}
SYNONYMS |= {"short": ("stubby", "tiny"), "long": ("elongated", "lengthy")}
SYNONYMS |= {"small": ("little", "tiny"), "large": ("big", "huge")}
WORDS = {value: (value, value, value, *SYNONYMS.get(value, ())) for values in ATTRIBUTES.values() for value in values}
VALUES = {key: {word: value for value in values for word in WORDS[value]} for key, values in ATTRIBUTES.items()}
NAMES = {noun.split()[0]: name for name, nouns in NOUNS.items() for noun in nouns} | {"wing": "wings"}
LINKS = {"is", "are", "that"}  # between a noun and its value
JOINTS = {",", "and"}
# they separate nouns: a value before them never belongs to a noun after them, nor the other way round
LIMITS = {"a", "an", "the", "its", "this", "it", "with", "has", "have", "features", "which", "while"}

N_DEMO = {"train": 3000, "test": 200}
DRAWN_AT_ONCE = 100
OFFSETS = (2, 0), (5, 0), (9, 0), (14, 0), (0, 2), (0, 5), (0, 9), (0, 14)  # rows down and columns aside


def demo(split: str, limit: int | None = None) -> tuple[Tensor, list[str], Tensor]:
    """The first `limit` drawn birds of a split, "train" (3,000) or "test" (200).

    Returns:
        images (N, 3, 64, 64) uint8, 10 N captions, ten in a row for each image, and attributes (N, A)
        int64.
    """
    n = min(N_DEMO[split], limit or N_DEMO[split])
    batches = progress_bar(range(-(-n // DRAWN_AT_ONCE)), desc="drawn birds", unit=" hundred", delay=1, leave=False)
    images, captions, attributes = zip(*(_drawn(split, i) for i in batches), strict=True)
    return torch.cat(images)[:n], [*chain(*captions)][: CAPTIONS * n], torch.cat(attributes)[:n]


@cache  # the vocabulary and the birds take the same ones
def _drawn(split: str, i: int) -> tuple[Tensor, list[str], Tensor]:
    """The ith batch of a split, which has its seed: a limit gives the first birds."""
    generator = torch.Generator().manual_seed(1000 * list(N_DEMO).index(split) + i)
    attributes = random_attributes(DRAWN_AT_ONCE, generator)
    images = draw(attributes, generator)
    return images, describe(attributes, generator), attributes


def describe(attributes: Tensor, generator: torch.Generator) -> list[str]:
    """10 N captions of attributes (N, A), ten in a row for each bird; a caption names about four attributes."""
    numbers = torch.rand(CAPTIONS * len(attributes), 40, generator=generator).tolist()
    rows = [dict(zip(ATTRIBUTES, row, strict=True)) for row in attributes.tolist()]
    looks = [{name: ATTRIBUTES[name][i] for name, i in row.items()} for row in rows]
    return [_sentence(looks[i // CAPTIONS], iter(row)) for i, row in enumerate(numbers)]


def named(caption: str) -> dict[str, str]:
    """The attributes that a caption names, with their values: {attribute: value}.

    A value belongs to the noun after it, or to the noun before it if "is", "are" or "that" stands between. If a caption
    gives an attribute several values, the first counts. A caption of `describe` names no wrong value, not even if
    a word is removed.
    """
    attributes, noun, linked, before = {}, None, False, []
    for word in re.findall(r"[a-z]+|,", caption.lower()):
        if word in NAMES:
            noun, linked = NAMES[word], False
            values = [VALUES[noun][word] for word in before if word in VALUES[noun]]
            if values:
                attributes.setdefault(noun, values[-1])
            before = []
        elif word in LINKS:
            linked, before = noun is not None, []
        elif word in LIMITS:
            noun, linked, before = None, False, []
        elif word in JOINTS:
            linked, before = False, []
        elif linked and word in VALUES[noun]:
            attributes.setdefault(noun, VALUES[noun][word])
            linked = False
        else:
            before.append(word)
    return attributes


def agreement(captions: Sequence[str], attributes: Tensor) -> tuple[float, float]:
    """How well captions fit attributes (N, A): how many of the attributes that they name are right.

    Args:
        captions: the same number for each row of attributes, one row after the other.

    Returns:
        the share of the named attributes that are right (NaN if none is named), and the mean number of attributes that
        a caption names.
    """
    names, rows = list(ATTRIBUTES), attributes.repeat_interleave(len(captions) // len(attributes), dim=0).tolist()
    right = [
        ATTRIBUTES[name][row[names.index(name)]] == value
        for caption, row in zip(captions, rows, strict=True)
        for name, value in named(caption).items()
    ]
    return sum(right) / len(right) if right else math.nan, len(right) / len(captions)


def features(images: Tensor) -> Tensor:
    """Colour correlograms (N, 2048) float of images (N, 3, 64, 64), uint8 or in [0, 1] (Huang et al. 1997).

    They hold the frequency of each pair of 16 colours at each of 8 distances, down or aside; a pixel is assigned softly
    to the colours. A mirrored image has the same features. Their square roots are scaled to the mean of a ResNet's
    features, about 0.4.
    """
    return torch.cat([_correlograms(batch) for batch in images.split(BATCH)])


def _correlograms(images: Tensor) -> Tensor:
    """The features of one batch; see `features`."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    colours = torch.tensor([*PIGMENTS.values(), *SCENES, *HORNS]).to(images)  # (16, 3)
    near = 2 * torch.einsum("nchw,kc->nkhw", images, colours) - colours.square().sum(dim=1)[:, None, None]
    shares = (near / 0.005).softmax(dim=1)  # (N, 16, 64, 64)
    views = torch.stack([shares, shares.flip(-1)])  # (2, N, 16, 64, 64)
    pairs = [
        (views[..., : SIZE - down, : SIZE - aside].flatten(3) @ views[..., down:, aside:].flatten(3).mT).mean(dim=0)
        / ((SIZE - down) * (SIZE - aside))
        for down, aside in OFFSETS
    ]
    return 19 * torch.stack(pairs, dim=1).flatten(1).sqrt()


def _sentence(looks: dict[str, str], numbers: Iterator[float]) -> str:
    """A caption in which each word has a fixed position, so that models which draw words independently can learn it."""

    def pick(*options: str) -> str:
        return options[int(next(numbers) * len(options))]

    def part(name: str) -> str:
        value = pick(*WORDS[looks[name]]) if next(numbers) < NAMED else pick(*PLAIN)
        return f"{value} {pick(*NOUNS[name])}"

    bird = f"{pick('this', 'the', 'one')} {part('size')} {pick('has', 'has', 'shows')}"
    crown, wings, belly, last = (part(name) for name in ("crown", "wings", "belly", pick("bill", "tail")))
    return f"{bird} {_with_article(crown)}, {wings}, {_with_article(belly)} and {_with_article(last)}."


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
