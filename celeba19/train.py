"""MVAE on CelebA with 19 modalities: the image and each of 18 attributes (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                                  the results of README.md
    python train.py --data-dir data --settings paper                 the authors' settings
    python train.py --demo                                           on drawn faces, in minutes

ELBO terms: all modalities, the image, each attribute, and --approx-m random subsets of 2 to 18 modalities;
all scored with --lambda-image and --lambda-attrs. Options and data are celeba's.
A batch: image (B, 3, 64, 64) float in [0, 1], each attribute under its name (B,) int64, 0 or 1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from celeba import train
from common.errors import require
from training import run_from_command_line

if TYPE_CHECKING:
    from common.models import MultimodalVAE
    from common.objectives import Objective
    from training import Experiment


@dataclass
class Config(train.FusionConfig):
    GROUPS: ClassVar = {"objective": ("weighting", "lambda_image", "lambda_attrs")}

    DEMO: ClassVar = {"epochs": 8, "batch_size": 20, "limit": 2400}
    PAPER: ClassVar = train.Config.PAPER

    fusion: Literal["poe", "product", "moe"] = "poe"
    """how the experts are fused"""
    approx_m: int | None = None
    """number of random subsets, of two modalities to all but one, whose ELBOs --obj mvae adds in each batch. Default:
    1, as in the authors' code"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood"""
    lambda_attrs: float = 1.0
    """weight of each attribute's log-likelihood"""
    weighting: Literal["every", "authors"] = "every"
    """ELBO terms of --obj mvae that --lambda-image and --lambda-attrs weigh. every: all terms; authors: ELBO(all) and
    ELBO(image) only, as in the authors' code, where an attribute has ten times the weight in these terms that it has in
    its own ELBO"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.approx_m is None:
            self.approx_m = int(self.objective_name(self.objectives()) == "mvae")

    def weights(self, model: "MultimodalVAE") -> dict[str, float]:
        """lambda by modality: all but the image are attributes."""
        return dict.fromkeys(model.modalities, self.lambda_attrs) | {"image": self.lambda_image}

    def check(self) -> None:
        super().check()
        of_mvae = self.obj in (None, "mvae") and self.fusion == "poe"
        given = f"(got --obj {self.obj or 'default'} and --fusion {self.fusion})"
        require(self.weighting == "every" or of_mvae, f"--weighting authors needs --obj mvae and --fusion poe {given}")


def objective(config: Config, model: "MultimodalVAE") -> "Objective":
    """The objective that --obj names, with the weights that --weighting names."""
    from celeba19.objective import AuthorsElbo
    from training import objective_of

    if config.weighting == "authors":
        return AuthorsElbo(model, config.approx_m, config.weights(model))
    return objective_of(config, model)


def experiment() -> "Experiment":
    """CelebA's faces and each attribute as a modality."""
    from celeba19.data import load, load_train
    from celeba19.model import build

    return train.experiment()._replace(
        name="celeba19", load=load, build=build, objective=objective, load_train=load_train
    )


def main(config: Config) -> None:
    """Train a model."""
    from training import run

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
