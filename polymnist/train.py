"""Models of PolyMNIST: images of the same digit, each in its own handwriting on its own background.

    python train.py --data-dir data                       MVAE, on digits of MNIST's files in data/
    python train.py --model mopoe --images original       on the files of an archive of PolyMNIST
    python train.py --demo --n-latents 32 --batch-size 50 --lr 1e-3 --beta 1 --epochs 40     built-in digits, minutes

ELBO terms (--obj mvae): each m's, and all together; --obj elbo: all together. Networks and latents as in MoPoE's code.
A batch: m0, m1, ... (B, 3, 28, 28) float in [0, 1].
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from common.training import run_from_command_line
from common.training.objective_options import ObjectiveOptions
from common.training.options import Latents, RunConfig
from polymnist.options import FUSIONS, DatasetOptions

if TYPE_CHECKING:
    from common.training import Experiment


@dataclass
class Config(DatasetOptions, ObjectiveOptions, RunConfig):
    DEFAULTS_FROM: ClassVar = "as in MoPoE's code"
    ALWAYS_PAIRED: ClassVar = "PolyMNIST is paired by its digits"
    FUSIONS: ClassVar = tuple(FUSIONS.values())

    model: Literal["mvae", "mmvae", "mopoe"] = "mvae"
    """mvae: product of experts; mmvae: mixture of experts; mopoe: mixture of the products of all subsets"""
    posterior: Literal["gaussian", "laplace"] = "gaussian"
    """family of the experts and the prior; laplace for --model mmvae only"""
    n_latents: Latents = 512
    batch_size: int = 256
    epochs: int = 300
    annealing_epochs: int = 0
    lr: float = 5e-4
    beta: float = 2.5

    def experts(self) -> tuple[str, str, str]:
        return f"--model {self.model}", FUSIONS[self.model], self.posterior

    def check(self) -> None:
        super().check()
        self.check_options()


def experiment() -> "Experiment":
    """Images of the same digit."""
    from common.training import Experiment, objective_of
    from polymnist.data import load
    from polymnist.model import build
    from polymnist.sample import draw

    return Experiment("polymnist", load, build, objective_of, draw)


def main(config: Config) -> None:
    """Train a model."""
    from common.training import run  # imported here, like the others: --help does without torch

    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
