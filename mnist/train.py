"""MVAE on MNIST: images of digits and their labels (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                       the results of README.md, 16 minutes or more on a core
    python train.py --data-dir data --settings paper      the authors' settings, whose label and image share nothing
    python train.py --data-dir data --binary              BinaryMNIST of the paper's Table 2
    python train.py --demo                                on scikit-learn's digits, in half a minute

reference/mvae.py has the paper's model in one file, loop included.

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

from dataclasses import dataclass

from common.data import Examples
from common.model_data import modelled
from common.multimodal_vae import MultimodalVAE
from mnist.data import MNIST, binarised_anew
from mnist.model import build
from mnist.sample import drawn_by
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import PairModelOptions
from training.options import LatentsOption, LrSchedule, RunConfig, share


@dataclass
class DigitsConfig(RunConfig):
    """What the experiments on images and texts share; the defaults are those of README.md's results."""

    n_latents: LatentsOption = 64
    batch_size: int = 100
    epochs: int = 80
    lr: float = 1e-3
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: 3/8 of --epochs"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(3 / 8, self.epochs))
        super().__post_init__()


@dataclass
class Config(PairModelOptions, DigitsConfig):
    """The models on an image and a label."""

    lr_schedule: LrSchedule = "cosine"
    lambda_text: float | None = None
    """weight of the text's log-likelihood. None: 1, with --settings paper 50"""
    binary: bool = False
    """draw each pixel as 0 or 1, with its grey value as the probability of 1.
    Training draws the pixels anew in each batch. The other scripts draw them once"""

    def __post_init__(self) -> None:
        self.fill(lambda_text=self.default_weight(50.0))
        super().__post_init__()


PAPER = Config(settings="paper", epochs=500, annealing_epochs=200, lr_schedule="constant")
DEMO = Config(demo=True, batch_size=50, lr_schedule="constant")


def examples(config: Config, data: Examples, model: MultimodalVAE) -> Examples:
    """The model's modalities; the pixels of --binary are drawn whenever a batch is made."""
    data = modelled(config, data, model)
    return binarised_anew(data) if config.binary else data


def experiment() -> Experiment:
    """MNIST's images and labels."""
    return Experiment(MNIST.name, MNIST.load, build, objective_of, drawn_by(MNIST), examples=examples)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
