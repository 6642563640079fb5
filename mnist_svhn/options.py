"""Options of pairing MNIST and SVHN, which all scripts share, and the models that --model names."""

from dataclasses import dataclass
from typing import Literal

from common.errors import require_positive, require_seed
from common.models import choices

MATCHINGS = 30  # as in the authors' code; their README says 20
PAPER_MODELS = {  # MMVAE's paper trains them by DReG, with Laplace experts and a learned prior
    "mmvae": choices.MODELS["mmvae"]._replace(obj="dreg", posterior="laplace"),
    "mnist": choices.MODELS["vae"]._replace(obj="dreg", posterior="laplace"),
    "svhn": choices.MODELS["vae"]._replace(obj="dreg", posterior="laplace"),
}
OTHERS = (
    *("mvae", "mopoe", "mopoe-published", "mvtcae", "crmvae", "mmjsd", "jmvae", "jnf", "telbo", "dmvae"),
    *("mmvae+", "cmvae", "idmvae", "hoelder", "helvae", "wb", "mwb", "code", "mmvm"),
)
MODELS = PAPER_MODELS | {name: choices.MODELS[name] for name in OTHERS}  # of --model
FAMILY_OF = {  # {--prior-and-posterior, as the authors call it: our name}
    "laplace": "laplace",
    "normal": "gaussian",
    "vmf": "vmf",
    "ebm": "ebm",
}


@dataclass(kw_only=True)
class PairOptions:
    """Which images are paired, and how many of a class: options that all scripts share."""

    svhn: Literal["real", "synthetic"] = "real"
    """second modality. real: SVHN's train_32x32.mat and test_32x32.mat;
    synthetic: MNIST digits that are not in the first modality, made to look like house numbers"""
    max_per_class: int = 10_000
    """pair at most this number of images of each class and modality, as in the authors' code"""
    pair_seed: int = 0
    """seed of the pairing and of the synthetic images"""

    def check_options(self) -> None:
        """Raise InputError for values outside their range."""
        require_positive(self, "max_per_class")
        require_seed(self, "pair_seed")


@dataclass(kw_only=True)
class TrainingPairOptions(PairOptions):
    """`PairOptions`, and how often the training images are paired."""

    matchings: int | None = None
    """number of partners of each training image, all of its class.
    None: that of make_idx.py's file in the data-dir, without one 30, as in the authors' code"""

    def check_options(self) -> None:
        """Raise InputError for values outside their range."""
        super().check_options()
        require_positive(self, "matchings")


def about(config: PairOptions) -> dict[str, str]:
    """Facts about the data for tables and JSON."""
    return {} if config.demo else {"svhn": config.svhn}


def dataset_options(config: PairOptions) -> dict[str, str | int]:
    """The options that must be the same in training and scoring; none for the demo."""
    return {} if config.demo else {"svhn": config.svhn, "pair_seed": config.pair_seed}
