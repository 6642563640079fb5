"""Weakly supervised learning on CelebA with each attribute as a modality: how well is each inferred from the image?

    python weak_supervision.py --data-dir data --precision bf16
    python weak_supervision.py --demo

The score is celeba's, the mean of F1 over the attributes. What is trained and written:
`python ../mnist/weak_supervision.py --help`.
"""

from dataclasses import dataclass

from celeba.attributes import ATTRIBUTES
from celeba.weak_supervision import mean_f1
from celeba19 import train
from training import run_from_command_line
from training.weak_supervision import Result, Task, WeakSupervisionOptions, train_all

import tyro


@dataclass
class Config(WeakSupervisionOptions, train.Config):
    """The options of weak supervision, and those of train.py but for its fusions."""

    model: tyro.conf.Suppress[str] = "mvae"
    fusion: tyro.conf.Suppress[str] = "poe"
    epochs: int = 10
    batch_size: int = 100
    """batch size: this number of pairs, and of values of each modality alone; also the classifier's batch size"""


DEMO = Config(demo=True, epochs=8, batch_size=20, limit=2400, fractions=(0.1, 1.0), seeds=(0,))


def main(config: Config) -> list[Result]:
    """Train all models and classifiers, see `training.weak_supervision.train_all`."""
    task = Task((*ATTRIBUTES,), 2, mean_f1, "mean F1 of attributes from the image")
    return train_all(config, train.experiment, task)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
