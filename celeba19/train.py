"""MVAE on CelebA with 19 modalities: the image and each of 18 attributes (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                                  the results of README.md
    python train.py --data-dir data --settings paper                 the authors' settings
    python train.py --demo                                           on drawn faces, in minutes

ELBO terms: all modalities, the image, each attribute, and --approx-m random subsets of 2 to 18 modalities;
all scored with --lambda-image and --lambda-attrs. Options and data are celeba's.
A batch: image (B, 3, 64, 64) float in [0, 1], each attribute under its name (B,) int64, 0 or 1.
"""

from dataclasses import dataclass
from typing import Literal

from celeba import train
from celeba19.data import load, load_train
from celeba19.model import build
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives import MvaeElbo, Objective
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import fusion_option


@dataclass
class Config(train.FusionConfig):
    fusion: fusion_option(("poe", "product", "moe")) = "poe"
    approx_m: int | None = None
    """number of random subsets, of two modalities to all but one, whose ELBOs --obj mvae adds in each batch.
    None: 1, as in the authors' code"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    lambda_attrs: float = 1.0
    """weight of each attribute's log-likelihood"""
    weighting: Literal["every", "authors"] = "every"
    """every: --lambda-image and --lambda-attrs weigh all ELBO terms of --obj mvae;
    authors: ELBO(all) and ELBO(image) alone, as in the authors' code, where an attribute weighs ten times what it
    weighs in its own ELBO"""

    def __post_init__(self) -> None:
        self.fill(approx_m=int((self.obj or self.objectives()[0]) == "mvae"))
        super().__post_init__()

    def weights(self, model: MultimodalVAE) -> dict[str, float]:
        """lambda by modality: all but the image are attributes."""
        return dict.fromkeys(model.modalities, self.lambda_attrs) | {"image": self.lambda_image}

    def check(self) -> None:
        super().check()
        of_mvae = self.obj in (None, "mvae") and self.fusion == "poe"
        given = f"(got --obj {self.obj or 'default'} and --fusion {self.fusion})"
        require(self.weighting == "every" or of_mvae, f"--weighting authors needs --obj mvae and --fusion poe {given}")


class AuthorsElbo(MvaeElbo):
    """MvaeElbo with the weights that the authors' celeba19/train.py passes on."""

    def weight(self, name: str, subset: str) -> float:
        """Return a modality's weight in the term of a subset: lambda in the joint and the image's term, else 1."""
        return self.weights[name] if subset in ("joint", "image") else 1.0


PAPER = Config(settings="paper", epochs=100, annealing_epochs=20, lr=1e-4, lambda_attrs=10.0)
DEMO = Config(demo=True, epochs=8, batch_size=20, limit=2400)


def objective(config: Config, model: MultimodalVAE) -> Objective:
    """The objective that --obj names, with the weights that --weighting names."""
    if config.weighting == "authors":
        return AuthorsElbo(model, config.approx_m, config.weights(model))
    return objective_of(config, model)


def experiment() -> Experiment:
    """CelebA's faces and each attribute as a modality."""
    return train.experiment()._replace(
        name="celeba19", load=load, build=build, objective=objective, load_train=load_train
    )


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
