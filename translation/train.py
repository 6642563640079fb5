"""MVAE on the numbers from 0 to 9999 in English and French: translation between them (Wu & Goodman 2018).

    python train.py                                      the results of README.md, in nine minutes on one core
    python train.py --demo                               fewer epochs, in two minutes

ELBO terms: ELBO(english), ELBO(french) and ELBO(english, french).
A batch: english (B, 8) and french (B, 8) int64, words.
"""

from dataclasses import dataclass

from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import ObjectiveOptions, fusion_option, objective_option
from training.options import LatentsOption, RunConfig, share
from translation.data import load
from translation.model import build
from translation.options import NoFiles
from translation.sample import draw

import tyro

FUSIONS = ("poe", "product", "moe", "mopoe", "mopoe-published")


@dataclass
class Config(NoFiles, ObjectiveOptions, RunConfig):
    fusion: fusion_option(FUSIONS) = "poe"
    obj: objective_option(FUSIONS) = None
    settings: tyro.conf.Suppress[str] = "recommended"  # no paper has any
    n_latents: LatentsOption = 32
    batch_size: int = 50
    epochs: int = 20
    lr: float = 2e-3
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: a quarter of --epochs"""
    lambda_english: float = 5.0
    """weight of the English text's log-likelihood; 1 gives a bound in nats; 5 translates more texts right"""
    lambda_french: float = 5.0
    """weight of the French text's log-likelihood, like the English one's"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(1 / 4, self.epochs))
        super().__post_init__()

    @property
    def posterior(self) -> str:
        """The family of the experts."""
        return "gaussian"


DEMO = Config(demo=True, epochs=6)


def experiment() -> Experiment:
    """Numbers in English and French."""
    return Experiment("translation", load, build, objective_of, draw)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
