"""MVAE on CelebA: photographs of faces and their 18 attributes as one modality (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                                  the results of README.md
    python train.py --data-dir data --settings paper                 the authors' settings
    python train.py --demo                                           on drawn faces, in minutes

ELBO terms: ELBO(image), ELBO(attrs) and ELBO(image, attrs), all scored with --lambda-image and --lambda-attrs.
The first use of the data makes a cache of the images at 64 x 64, which training maps into memory.
A batch: image (B, 3, 64, 64) float in [0, 1], attrs (B, 18) float, 0 or 1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from celeba.options import FaceOptions
from common.models.choices import MODELS, PAIR_MODELS
from training import run_from_command_line
from training.objective_options import ModelOptions, ObjectiveOptions, PrivateOptions
from training.options import LatentsOption, RunConfig

if TYPE_CHECKING:
    from training import Experiment

NAMES = (*PAIR_MODELS, "dmvae", "mmvae+", "cmvae")  # of --model


@dataclass
class FacesConfig(FaceOptions, RunConfig):
    """What the experiments on CelebA's faces share."""

    DEFAULTS_FROM: ClassVar = "as for README.md's results"
    ANNEALING: ClassVar = 1 / 3
    PAPER: ClassVar = {"epochs": 100, "annealing_epochs": 20, "lr": 1e-4}

    valid: int | None = None
    """select the best model on the last N training images. 0 holds out none, and the last model counts as the best.
    Default: select on the dataset's own validation images"""
    n_latents: LatentsOption = 100
    batch_size: int = 100
    epochs: int = 60
    lr: float = 1e-3


@dataclass
class FusionConfig(ObjectiveOptions, FacesConfig):
    """What the experiments on more than two modalities of a face share."""

    GROUP: ClassVar = "model"
    DEPEND_ON: ClassVar = ObjectiveOptions.DEPEND_ON | {"fusion": ("obj",)}

    fusion: Literal["poe", "product", "moe", "mopoe", "mopoe-published"] = "poe"
    """how the experts are fused"""
    posterior: Literal["gaussian", "laplace", "vmf", "ebm"] = "gaussian"
    """family of the experts and the prior"""


@dataclass
class Config(PrivateOptions, ModelOptions, FacesConfig):
    """The models on a photograph and its attributes."""

    GROUPS: ClassVar = {"objective": ("lambda_image", "lambda_attrs")}
    DEMO: ClassVar = {"epochs": 10, "batch_size": 20, "limit": 2400}
    PAPER: ClassVar = FacesConfig.PAPER | {"lambda_attrs": 10.0}
    DEPEND_ON: ClassVar = PrivateOptions.DEPEND_ON | {"model": ("obj", "posterior", "n_private", "n_clusters")}
    MODELS: ClassVar = {name: MODELS[name] for name in NAMES}

    model: Literal[NAMES] = "mvae"
    """the model"""
    posterior: Literal["gaussian", "laplace", "vmf", "ebm"] | None = None
    """family of the experts and the prior. Default: laplace for --model mmvae+ and cmvae, as in their papers, else
    gaussian"""
    n_private: int | None = None
    """number of private latents of the image, for --model dmvae, mmvae+ and cmvae; attributes have none. Default: 32,
    as in MMVAE+'s code"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    lambda_attrs: float = 1.0
    """weight of the attributes' log-likelihood"""

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.record()
        if self.posterior is None:
            self.posterior = model.posterior
        if self.n_private is None and model.private:
            self.n_private = 32


def experiment() -> "Experiment":
    """CelebA's faces and their attributes as one modality."""
    from celeba.data import load, load_train
    from celeba.model import build
    from celeba.sample import draw
    from training import Experiment, objective_of

    return Experiment("celeba", load, build, objective_of, draw, load_train)


def main(config: Config) -> None:
    """Train a model."""
    from training import run  # imported here, like the others: --help does without torch

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
