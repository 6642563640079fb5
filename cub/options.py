"""Options that all scripts share, and the models that --model names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common.models import choices
from training.options import DataOptions

import tyro

# correlations of the paper's MMVAE with features (Shi et al. 2019, section 4.2)
PAPER = {"ground truth": 0.273, "image -> caption": 0.104, "caption -> image": 0.135, "joint": 0.263}


@dataclass(kw_only=True)
class BirdOptions:
    """Where the images, captions and caches lie: options that all scripts share."""

    images_dir: Path | None = None
    """in the original layout, the folder of the classes' folders of images, below the data-dir.
    None: CUB_200_2011/images"""
    cache_dir: Path | None = None
    """folder of the caches: images at 64 x 64, words, features, networks. None: the data-dir"""


@dataclass(kw_only=True)
class WordOptions(BirdOptions):
    """`BirdOptions`, the number of birds, and the vocabulary file of a model that the MMVAE authors' code trained."""

    limit: int | None = None
    """use only the first N images of each split, with their captions"""
    download: bool = False
    """unpack the authors' cub.zip in the data-dir; it is gone from its host"""
    vocab: Path | None = None
    """the authors' cub.vocab: the words of an original MMVAE model, whose folder lacks them.
    Models trained here hold their words"""


@dataclass(kw_only=True)
class TrainingBirdOptions(WordOptions):
    """`WordOptions`, and which birds a training takes."""

    valid: int | None = None
    """hold out the last N training images, with their captions, and select the best model on them.
    0 holds out none, and the last model counts as the best, as in the authors' code. None: the last tenth"""
    # what the model is kept with: the words, and the network of the features
    vocabulary: tyro.conf.Suppress[list[str] | None] = None
    feature_network: tyro.conf.Suppress[dict[str, Any] | None] = None


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
FUSIONS = {  # of --fusion: a model that has it, with the objective that is its default here
    "moe": choices.MODELS["mmvae"]._replace(obj="dreg"),
    "poe": choices.MODELS["mvae"],
    "product": choices.MODELS["mvtcae"],
    "mopoe": choices.MODELS["mopoe"]._replace(obj="dreg"),
    "mopoe-published": choices.MODELS["mopoe-published"],
    "mmvae+": choices.MODELS["mmvae+"],
    **{name: choices.MODELS[name] for name in ("hoelder", "helvae", "wb", "mwb", "code")},
    "joint": choices.MODELS["jmvae"],
    "jnf": choices.MODELS["jnf"],
}
POSTERIORS = ("laplace-normal", "softplus-normal", "softplus-laplace", "gaussian", "laplace", "vmf", "ebm")
AUTHORS = {"cubIS": "images", "cubISft": "features"}  # {the authors' --model: ours}


def about(config: DataOptions) -> dict[str, str]:
    """Facts about the data for tables and JSON."""
    return {} if config.demo else {"birds": "photographed"}


def model_of(fusion: str, obj: str | None, n_private: int | None, n_clusters: int | None) -> choices.Model:
    """The model with a fusion, or with the objective, private latents or clusters that make it another."""
    if fusion == "mmvae+" and n_clusters is not None:
        return choices.MODELS["cmvae"]
    if obj == "dmvae" or (fusion == "poe" and n_private is not None):
        return choices.MODELS["dmvae"]
    return choices.MODELS[obj] if obj in ("mmjsd", "mmvm", "telbo") else FUSIONS[fusion]
