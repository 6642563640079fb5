"""MVAE on MNIST: images of digits and their labels (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --lambda-text 1 --annealing-epochs 30 --epochs 80     the results of README.md (--precision bf16)
    python train.py --demo --epochs 30                                    on built-in digits, in seconds

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from common.errors import require
from common.training import run_from_command_line
from common.training.options import ObjectiveOptions, RunConfig

if TYPE_CHECKING:
    from common.training import Experiment


@dataclass
class DigitsConfig(RunConfig):
    """What the experiments on images and texts share."""

    GROUPS: ClassVar = {"objective": ("lambda_image", "lambda_text")}

    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 64
    """dimensions of z. Default: as in the authors' code"""
    batch_size: int = 100
    """examples in a batch. Default: as in the authors' code"""
    epochs: int = 500
    """passes over the training examples. Default: as in the authors' code"""
    annealing_epochs: int = 200
    """epochs over which the KL's weight rises from 0 to --beta. Default: as in the authors' code"""
    lr: float = 1e-3
    """learning rate of Adam. Default: as in the authors' code"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood. Default: as in the authors' code"""
    lambda_text: float = 10.0
    """weight of the text's log-likelihood. Default: as in the authors' code; their README says 50, for MultiMNIST 10"""


@dataclass
class Config(DigitsConfig, ObjectiveOptions):
    GROUPS: ClassVar = {"objective": ("alpha",)}

    model: Literal["mvae", "mvae-q", "jmvae", "vae", "cvae", "bivcca", "mopoe"] = "mvae"
    """mvae: product of experts; mvae-q: quotient of posteriors; jmvae: joint encoder; vae: the image alone; cvae: the
    image given the label; bivcca: mixture of experts; mopoe: mixture of the products of all subsets"""
    posterior: Literal["gaussian", "laplace", "vmf", "ebm"] = "gaussian"
    """family of the experts and the prior"""
    alpha: float = 0.1
    """weight of the KLs that draw JMVAE's unimodal posteriors to the joint one. Default: as in Suzuki et al. 2016"""

    def objectives(self) -> tuple[str, ...]:
        from mnist.model import MODELS

        return MODELS[self.model].objectives

    def check(self) -> None:
        from mnist.model import MODELS

        super().check()
        known = MODELS[self.model]
        self.check_objective(f"--model {self.model}", self.objectives(), known.fusion, self.posterior)
        require(
            self.paired_fraction == 1 or known.unpaired,
            f"--model {self.model} has no use for unpaired examples: leave --paired-fraction at 1",
        )
        require(self.alpha >= 0, f"--alpha must not be negative, it is {self.alpha}")


def experiment() -> "Experiment":
    """MNIST's images and labels."""
    from common.training import Experiment, objective_of
    from mnist.data import MNIST
    from mnist.model import build
    from mnist.sample import drawn_by

    return Experiment(
        MNIST.name,
        MNIST.load,
        build,
        objective_of,
        drawn_by(MNIST),
        examples=lambda config, data, model: data.only(model.modalities),
    )


def main(config: Config) -> None:
    """Train a model."""
    from common.training import run  # imported here, like the others: --help does without torch

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
