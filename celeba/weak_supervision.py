"""Weakly supervised learning on CelebA: how well are attributes inferred where few faces are paired with theirs?

    python weak_supervision.py --data-dir data --precision bf16
    python weak_supervision.py --demo

The score is the mean over the 18 attributes of F1, since accuracy says little where few faces have an attribute. What
is trained and written: `python ../mnist/weak_supervision.py --help`.
"""

from dataclasses import dataclass

from celeba import train
from celeba.loglike import scores
from common.errors import require
from training import run_from_command_line
from training.weak_supervision import Result, Task, WeakSupervisionOptions, train_all

from torch import Tensor


@dataclass
class Config(WeakSupervisionOptions, train.Config):
    """The options of weak supervision, and those of train.py."""

    epochs: int = 10
    batch_size: int = 100
    """batch size: this number of pairs, of faces and of attributes; also the classifier's batch size"""


DEMO = Config(demo=True, epochs=10, batch_size=20, limit=2400, fractions=(0.1, 1.0), seeds=(0,))


def mean_f1(predicted: Tensor, labels: Tensor) -> float:
    """The mean of F1 over the attributes that some face has or is said to have; both (N, 18), 0 or 1.

    Raises:
        InputError: there is no such attribute.
    """
    by_attribute = [row["F1"] for row in scores(predicted.bool(), labels.bool()).values() if row["F1"] is not None]
    require(len(by_attribute) > 0, "no test face has an attribute, or is said to have one: raise --limit")
    return sum(by_attribute) / len(by_attribute)


def main(config: Config) -> list[Result]:
    """Train all models and classifiers, see `training.weak_supervision.train_all`."""
    return train_all(config, train.experiment, Task(("attrs",), 2, mean_f1, "mean F1 of attributes from the image"))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
