"""MVAE on CelebA: photographs of faces and their 18 attributes as one modality (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                                  the results of README.md
    python train.py --data-dir data --settings paper                 the authors' settings
    python train.py --demo                                           on drawn faces, in minutes

ELBO terms: ELBO(image), ELBO(attrs) and ELBO(image, attrs), all scored with --lambda-image and --lambda-attrs.
The first use of the data makes a cache of the images at 64 x 64, which training maps into memory.
A batch: image (B, 3, 64, 64) float in [0, 1], attrs (B, 18) float, 0 or 1.
"""

from dataclasses import dataclass

from celeba.data import load, load_train
from celeba.model import build
from celeba.options import FaceOptions
from celeba.sample import draw
from common.models.choices import PAIR_MODELS
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import (
    ObjectiveOptions,
    PairModelOptions,
    PosteriorOption,
    PrivateOptions,
    fusion_option,
    model_option,
    objective_option,
    posterior_option,
)
from training.options import LatentsOption, RunConfig, share

FUSIONS = ("poe", "product", "moe", "mopoe", "mopoe-published", "helvae", "wb")
OTHERS = ("dmvae", "mmvae+", "cmvae", "hoelder", "helvae", "wb", "mwb", "code", "mmvm")  # of --model


@dataclass
class FacesConfig(FaceOptions, RunConfig):
    """What the experiments on CelebA's faces share; the defaults are those of README.md's results."""

    valid: int | None = None
    """select the best model on the last N training images. 0 holds out none, and the last model counts as the best.
    None: select on the dataset's own validation images"""
    n_latents: LatentsOption = 100
    batch_size: int = 100
    epochs: int = 60
    lr: float = 1e-3
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: a third of --epochs"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(1 / 3, self.epochs))
        super().__post_init__()


@dataclass
class FusionConfig(ObjectiveOptions, FacesConfig):
    """What the experiments on more than two modalities of a face share."""

    fusion: fusion_option(FUSIONS) = "poe"
    posterior: PosteriorOption = "gaussian"
    obj: objective_option(FUSIONS) = None


@dataclass
class Config(PrivateOptions, PairModelOptions, FacesConfig):
    """The models on a photograph and its attributes."""

    model: model_option((*PAIR_MODELS, *OTHERS)) = "mvae"
    posterior: posterior_option(
        ("gaussian", "laplace", "vmf", "ebm"),
        "family of the experts and the prior. None: laplace for mixtures with private latents, as in MMVAE+'s paper, "
        "else gaussian",
    ) = None
    n_private: int | None = None
    """number of private latents of the image, for models with them; attributes have none.
    None: 32, as in MMVAE+'s code"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    lambda_attrs: float | None = None
    """weight of the attributes' log-likelihood. None: 1, with --settings paper 10"""

    def __post_init__(self) -> None:
        model = self.record()
        self.fill(
            posterior=model.posterior, n_private=32 if model.private else None, lambda_attrs=self.default_weight(10.0)
        )
        super().__post_init__()


PAPER = Config(settings="paper", epochs=100, annealing_epochs=20, lr=1e-4)
DEMO = Config(demo=True, epochs=10, batch_size=20, limit=2400)


def experiment() -> Experiment:
    """CelebA's faces and their attributes as one modality."""
    return Experiment("celeba", load, build, objective_of, draw, load_train)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
