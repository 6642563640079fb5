"""Models of UCI Multiple Features: six tables that describe the same handwritten digits, and the digit.

    python train.py --data-dir data --download       MVAE, in a minute
    python train.py --model mopoe --data-dir data    another model
    python train.py --missing 0.3 --data-dir data    without 30 % of the cells of the training tables
    python train.py --demo                           on tables of scikit-learn's digits

A batch: fou, fac, kar, pix, zer, mor (B, columns) float, standardised; digit (B,) int64.
"""

from dataclasses import dataclass

from common.data import Examples, hold_out
from common.data.scales import Scales, scales_of, standardised
from common.errors import require
from common.models import choices
from mfeat.data import TABLES, load, with_missing
from mfeat.model import build
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import ObjectiveOptions, model_option, objective_option
from training.options import LatentsOption, RunConfig

import tyro

MODELS = ("mvae", "mmvae", "mopoe", "mopoe-published", "mvtcae", "crmvae", "mmjsd", "hoelder", "helvae", "wb")


@dataclass
class Config(ObjectiveOptions, RunConfig):
    model: model_option(MODELS) = "mvae"
    obj: objective_option({choices.MODELS[model].fusion for model in MODELS}) = None
    posterior: tyro.conf.Suppress[str] = "gaussian"
    settings: tyro.conf.Suppress[str] = "recommended"  # no paper has any
    n_latents: LatentsOption = 32
    batch_size: int = 50
    epochs: int = 40
    lr: float = 1e-3
    lambda_digit: float = 20.0
    """weight of the digit's log-likelihood; the tables have 1"""
    missing: float = 0.0
    """share of the cells of the training and validation tables to leave out, at random"""
    scales: tyro.conf.Suppress[Scales | None] = None

    def check(self) -> None:
        super().check()
        require(0 <= self.missing < 1, f"--missing must lie in [0, 1), it is {self.missing}")


def load_train(config: Config) -> tuple[Examples, Examples | None]:
    """The standardised training and validation examples; the config gets the scales of the tables, if it has none."""
    examples = with_missing(load("train", config), config.missing, config.seed)
    config.fill(scales=scales_of(examples, TABLES, "lower --missing, raise --limit"))
    return hold_out(standardised(examples, config.scales), config.valid)


def experiment() -> Experiment:
    """Six tables and the digit that they describe."""
    return Experiment("mfeat", load, build, objective_of, draw=None, load_train=load_train)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
