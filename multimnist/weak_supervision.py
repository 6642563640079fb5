"""Weakly supervised learning on MultiMNIST: how well is the string read where few images are paired with theirs?

    python weak_supervision.py --data-dir data --precision bf16
    python weak_supervision.py --demo

The accuracy is the share of right characters, four for each string, fillers included. What is trained and
written: `python ../mnist/weak_supervision.py --help`.
"""

from dataclasses import dataclass

from multimnist import train
from multimnist.data import N_CHARACTERS
from training import run_from_command_line
from training.options import share
from training.weak_supervision import Result, Task, WeakSupervisionOptions, train_all


@dataclass
class Config(WeakSupervisionOptions, train.Config):
    """The options of weak supervision, and those of train.py."""

    epochs: int = 15
    batch_size: int = 200
    """batch size: this number of pairs, of images and of strings; also the classifier's batch size"""
    lambda_text: float = 10.0
    """weight of the string's log-likelihood, as in the authors' code"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: a third of --epochs"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(1 / 3, self.epochs))
        super().__post_init__()


DEMO = Config(demo=True, epochs=14, annealing_epochs=10, batch_size=20, fractions=(0.1, 1.0), seeds=(0,))


def main(config: Config) -> list[Result]:
    """Train all models and classifiers, see `training.weak_supervision.train_all`."""
    task = Task(("text",), N_CHARACTERS, score_name="accuracy of characters from the image")
    return train_all(config, train.experiment, task)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
