"""MVAE on MNIST: images of digits and their labels (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                       the results of README.md, 16 minutes or more on a core
    python train.py --data-dir data --settings paper      the authors' settings, whose label and image share nothing
    python train.py --data-dir data --binary              BinaryMNIST of the paper's Table 2
    python train.py --demo                                on scikit-learn's digits, in half a minute

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from training import run_from_command_line
from training.objective_options import ModelOptions
from training.options import LatentsOption, LrSchedule, RunConfig

if TYPE_CHECKING:
    from common.data import Examples
    from common.multimodal_vae import MultimodalVAE
    from training import Experiment


@dataclass
class DigitsConfig(RunConfig):
    """What the experiments on images and texts share."""

    DEFAULTS_FROM: ClassVar = "as for README.md's results"
    GROUPS: ClassVar = {"objective": ("lambda_image", "lambda_text")}
    ANNEALING: ClassVar = 3 / 8
    PAPER: ClassVar = {"epochs": 500, "annealing_epochs": 200, "lambda_text": 50.0}

    n_latents: LatentsOption = 64
    batch_size: int = 100
    epochs: int = 80
    lr: float = 1e-3
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    lambda_text: float = 1.0
    """weight of the text's log-likelihood"""


@dataclass
class Config(ModelOptions, DigitsConfig):
    """The models on an image and a label."""

    GROUPS: ClassVar = {"data": ("binary",)}
    PAPER: ClassVar = DigitsConfig.PAPER | {"lr_schedule": "constant"}
    DEMO: ClassVar = {"batch_size": 50, "lr_schedule": "constant"}

    lr_schedule: LrSchedule = "cosine"
    binary: bool = False
    """draw each pixel as 0 or 1, with its grey value as the probability of 1: for training anew in each batch, for
    the other scripts once"""


def examples(config: Config, data: "Examples", model: "MultimodalVAE") -> "Examples":
    """The model's modalities; the pixels of --binary are drawn whenever a batch is made."""
    import torch

    from common.data import Examples
    from common.model_data import modelled

    data = modelled(config, data, model)
    return Examples(data.modalities, derived={"image": ("image", torch.bernoulli)}) if config.binary else data


def experiment() -> "Experiment":
    """MNIST's images and labels."""
    from mnist.data import MNIST
    from mnist.model import build
    from mnist.sample import drawn_by
    from training import Experiment, objective_of

    return Experiment(
        MNIST.name,
        MNIST.load,
        build,
        objective_of,
        drawn_by(MNIST),
        examples=examples,
    )


def main(config: Config) -> None:
    """Train a model."""
    from training import run  # imported here, like the others: --help does without torch

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
