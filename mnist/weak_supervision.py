"""Weakly supervised learning on MNIST: how well is the label inferred where few images are paired with labels?

    python weak_supervision.py --data-dir data --precision bf16
    python weak_supervision.py --demo

Trains a model for each fraction and seed, as `python train.py --paired-fraction F --seed S` with these options does.
Beside it trains a classifier on the paired images alone: the model's image encoder with one linear layer in place of
its heads. Writes a table and a plot of their accuracies on the test images, mean and standard deviation over the seeds,
into the save-dir, where each run has its folder. Finished runs are not repeated: the same command goes on after Ctrl-C,
or adds fractions and seeds.

The last model is scored, and no example is held out: choosing the best one would need more labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mnist import train
from mnist.model import N_CLASSES
from training import Experiment, run_from_command_line
from training.options import LrSchedule, share
from training.weak_supervision import Result, Task, WeakSupervisionOptions, train_all

import tyro


@dataclass
class Config(WeakSupervisionOptions, train.Config):
    """The options of weak supervision, and those of train.py."""

    epochs: int = 15
    batch_size: int = 200
    """batch size: this number of pairs, of images and of labels; also the classifier's batch size"""
    lr: float = 5e-4
    """learning rate, for the model and the classifier"""
    lr_schedule: LrSchedule = "constant"
    binary: tyro.conf.Suppress[bool] = False
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: a third of --epochs"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(1 / 3, self.epochs))
        super().__post_init__()


DEMO = Config(demo=True, epochs=150, annealing_epochs=20, fractions=(0.05, 0.2, 1.0), seeds=(0,))


def main(config: Config, experiment: Callable[[], Experiment] = train.experiment) -> list[Result]:
    """Train all models and classifiers, see `training.weak_supervision.train_all`."""
    return train_all(config, experiment, Task(("text",), N_CLASSES))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
