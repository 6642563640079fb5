"""Models of PolyMNIST: images of the same digit, each in its own handwriting on its own background.

    python train.py --data-dir data                       MVAE, on digits of MNIST's files in data/
    python train.py --model mmvae+ --n-private 16         shared latents and 16 of each image
    python train.py --model mopoe --images original       on the files of an archive of PolyMNIST
    python train.py --model mmvae+ --quadrant             on larger images, each digit in one of four quadrants
    python train.py --demo                                MoPoE as published on built-in digits, in minutes

The objectives are the models' own: docs/models.md has them. Networks and latents are by default those of MoPoE's
code for all models, so that figures compare models.
A batch: m0, m1, ... (B, 3, 28, 28) float in [0, 1]; (B, 3, 64, 64) with --quadrant.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from common.data import Examples
from common.errors import require
from common.model_data import modelled
from common.multimodal_vae import MultimodalVAE
from polymnist.data import load, with_missing
from polymnist.model import build
from polymnist.options import MODELS, DatasetOptions
from polymnist.sample import draw
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import PrivateOptions, model_option, objective_option, posterior_option
from training.options import LATENT_NAMES, RunConfig

import tyro


@dataclass
class Config(DatasetOptions, PrivateOptions, RunConfig):
    """The defaults are those of MoPoE's code."""

    model: model_option(MODELS) = "mvae"
    obj: objective_option({model.fusion for model in MODELS.values()}) = None
    posterior: posterior_option(
        ("gaussian", "laplace"),
        "family of the experts and the prior; laplace for mixtures only. None: laplace for mixtures with private "
        "latents, as in MMVAE+'s paper, else gaussian",
    ) = None
    networks: Literal["conv", "small", "resnet"] = "conv"
    """conv: three convolutions, as in MoPoE's code, and a fourth for --quadrant; small: the same with half the
    channels; resnet: residual blocks, as in MMVAE+'s code"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z; of its shared part for models with private latents. None: 512, as in MoPoE's code;
    32 beside private latents, as in MMVAE+'s"""
    n_private: int | None = None
    """number of private latents of each image, for models with them. None: 32, as in MMVAE+'s code"""
    missing: float = 0.0
    """share of the images m1, m2, ... that training and validation examples lack, drawn as in the multivae package;
    all have m0"""
    paired_fraction: tyro.conf.Suppress[float] = 1.0
    keep_incomplete: bool = True
    """train on examples that lack images too; --no-keep-incomplete leaves them out"""
    batch_size: int = 256
    epochs: int = 300
    lr: float = 5e-4
    beta: float = 2.5

    def __post_init__(self) -> None:
        model = self.record()
        self.fill(
            posterior=model.posterior,
            n_latents=32 if model.private else 512,
            n_private=32 if model.private else None,
        )
        super().__post_init__()

    def check(self) -> None:
        super().check()
        self.check_options()
        decodes = self.images == "original" or self.cache_dir is None
        require(decodes, "--cache-dir keeps the decoded images of --images original, this set needs none: leave it out")
        fits = self.networks != "resnet" or not self.quadrant
        require(fits, "--networks resnet is for images of 28 x 28 pixels: take conv or small with --quadrant")
        require(0 <= self.missing < 1, f"--missing must lie in [0, 1), it is {self.missing}")
        require(self.keep_incomplete or self.missing > 0, "--no-keep-incomplete needs --missing above 0: add it")
        require(
            self.record().unpaired or not (self.missing and self.keep_incomplete),
            f"--model {self.model} needs complete examples: leave out --missing or add --no-keep-incomplete",
        )


PAPER = Config(settings="paper")
DEMO = Config(
    demo=True, model="mopoe-published", networks="small", n_latents=32, batch_size=16, lr=1e-3, beta=1.0, epochs=60
)


def examples(config: Config, data: Examples, model: MultimodalVAE) -> Examples:
    """The model's modalities, without those that --missing draws."""
    return with_missing(modelled(config, data, model), config.missing, config.keep_incomplete)


def experiment() -> Experiment:
    """Images of the same digit."""
    return Experiment("polymnist", load, build, objective_of, draw, examples=examples)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
