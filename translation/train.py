"""MVAE on the numbers from 0 to 9999 in English and French: translation between them (Wu & Goodman 2018).

    python train.py                                      the results of README.md, in nine minutes on one core
    python train.py --demo                               fewer epochs, in two minutes

ELBO terms: ELBO(english), ELBO(french) and ELBO(english, french).
A batch: english (B, 8) and french (B, 8) int64, words.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from common.models.choices import Assembly
from training import run_from_command_line
from training.objective_options import ObjectiveOptions
from training.options import LatentsOption, RunConfig
from translation.options import NoFiles

if TYPE_CHECKING:
    from training import Experiment


@dataclass
class Config(NoFiles, ObjectiveOptions, RunConfig):
    GROUPS: ClassVar = {"objective": ("lambda_english", "lambda_french")}
    ANNEALING: ClassVar = 1 / 4
    DEMO: ClassVar = {"epochs": 6}

    fusion: Literal["poe", "product", "moe", "mopoe", "mopoe-published"] = "poe"
    """how the experts are fused"""
    n_latents: LatentsOption = 32
    batch_size: int = 50
    epochs: int = 20
    lr: float = 2e-3
    lambda_english: float = 5.0
    """weight of the English text's log-likelihood; 1 gives a bound in nats; 5 translates more texts right"""
    lambda_french: float = 5.0
    """weight of the French text's log-likelihood, like the English one's"""

    def assembly(self) -> Assembly:
        return Assembly(f"--fusion {self.fusion}", self.fusion, "gaussian")


def experiment() -> "Experiment":
    """Numbers in English and French."""
    from training import Experiment, objective_of
    from translation.data import load
    from translation.model import build
    from translation.sample import draw

    return Experiment("translation", load, build, objective_of, draw)


def main(config: Config) -> None:
    """Train a model."""
    from training import run  # imported here, like the others: --help does without torch

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
