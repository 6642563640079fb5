"""MVAE on MultiMNIST: images of up to four digits and their strings (Wu & Goodman 2018, arXiv 1802.05335).

    python generate.py --mnist-dir ../mnist/data --data-dir data          the dataset, in seconds
    python train.py --data-dir data                                       the default settings
    python train.py --data-dir data --settings paper                      the authors' settings
    python train.py --demo                                                on scikit-learn's digits, in minutes

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 50, 50) float in [0, 1], text (B, 4) int64: digits, 11 where the string is over.
"""

from dataclasses import dataclass

from common.errors import require
from common.model_data import modelled
from mnist import train
from mnist.sample import drawn_by
from multimnist.data import MULTIMNIST
from multimnist.model import build
from multimnist.options import DatasetOptions
from training import Experiment, run, run_from_command_line
from training.model_options import PairModelOptions
from training.options import share


@dataclass
class Config(DatasetOptions, PairModelOptions, train.DigitsConfig):
    epochs: int = 220
    """passes over the training examples; README.md's results stopped earlier"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: 15/220 of --epochs"""
    lambda_text: float | None = None
    """weight of the text's log-likelihood. None: 1, with --settings paper 10"""
    teacher_forcing: bool = False
    """give the text decoder the true preceding characters, which makes p(text|z) autoregressive;
    it then runs in float32, whatever --precision.
    Without it the decoder sees the characters that it finds most likely, as in the authors' code"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(15 / 220, self.epochs), lambda_text=self.default_weight(10.0))
        super().__post_init__()

    def check(self) -> None:
        super().check()
        self.check_options()
        text = not self.record().first_alone
        require(text or not self.teacher_forcing, f"--model {self.model} models no text: leave out --teacher-forcing")


PAPER = Config(settings="paper", epochs=500, annealing_epochs=200)
DEMO = Config(demo=True, epochs=14, annealing_epochs=10, batch_size=20)


def experiment() -> Experiment:
    """MultiMNIST's images and strings."""
    return train.experiment()._replace(
        name=MULTIMNIST.name, load=MULTIMNIST.load, build=build, draw=drawn_by(MULTIMNIST), examples=modelled
    )


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
