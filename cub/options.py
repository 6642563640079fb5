"""Options that all scripts share, and the models that --model names."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple


@dataclass(kw_only=True)
class BirdOptions:
    """Where the images, captions and caches lie: options that all scripts share."""

    GROUP: ClassVar = "data"

    images_dir: Path | None = None
    """in the original layout, the folder of the classes' folders of images, below the data-dir. Default:
    CUB_200_2011/images"""
    cache_dir: Path | None = None
    """folder of the caches: images at 64 x 64, words, features. Default: the data-dir"""


@dataclass(kw_only=True)
class WordOptions(BirdOptions):
    """`BirdOptions`, and the vocabulary file of a model that was trained by the MMVAE authors' code."""

    vocab: Path | None = None
    """the authors' cub.vocab: the words of an original MMVAE model, whose folder lacks them. Models trained here hold
    their words"""


class Model(NamedTuple):
    """A model that --model names.

    modalities: names of its modalities.
    wide: whether the caption networks are the wide ones with biases, which the authors use with features.
    posterior: its posterior family by default: the authors' for two modalities, ours for one.
    n_latents, epochs, llik_scaling: the defaults of these options, as in the authors' runs.
    """

    modalities: tuple[str, ...]
    wide: bool
    posterior: str
    n_latents: int
    epochs: int
    llik_scaling: float = 0.0


MODELS = {
    "images": Model(("image", "caption"), False, "laplace-normal", 128, 200),
    "features": Model(("feature", "caption"), True, "softplus-normal", 64, 50, llik_scaling=0.002),
    "image": Model(("image",), False, "softplus-laplace", 128, 200),
    "feature": Model(("feature",), True, "softplus-normal", 64, 50),
    "caption": Model(("caption",), False, "softplus-normal", 128, 200),
}
AUTHORS = {"cubIS": "images", "cubISft": "features"}  # {the authors' --model: ours}
