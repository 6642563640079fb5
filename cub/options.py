"""Options that all scripts share, and the models that --model names."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(kw_only=True)
class BirdOptions:
    """Where the images, captions and caches lie: options that all scripts share."""

    images_dir: Path | None = None
    """folder of the classes' folders of images, below the data-dir, of the original layout; default:
    CUB_200_2011/images"""
    cache_dir: Path | None = None
    """where made things are kept: images at 64 x 64, words, features; default: the data-dir"""


@dataclass(kw_only=True)
class WordOptions(BirdOptions):
    """`BirdOptions`, and the vocabulary file of a model that was trained by the MMVAE authors' code."""

    vocab: Path | None = None
    """words of a model of the MMVAE authors' own (their cub.vocab), whose folder lacks them; ours know theirs"""


class Model(NamedTuple):
    """A model that --model names.

    modalities: names of its modalities.
    wide: whether the caption networks are the wide ones with biases, which the authors use with features.
    posterior: its posterior family by default: the authors' for two modalities, ours for one.
    """

    modalities: tuple[str, ...]
    wide: bool
    posterior: str


MODELS = {
    "images": Model(("image", "caption"), False, "laplace-normal"),
    "features": Model(("feature", "caption"), True, "softplus-normal"),
    "image": Model(("image",), False, "softplus-laplace"),
    "feature": Model(("feature",), True, "softplus-normal"),
    "caption": Model(("caption",), False, "softplus-normal"),
}
