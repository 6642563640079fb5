"""MMVAE on MNIST-SVHN: pairs of images of the same digit (Shi et al. 2019, arXiv 1911.03393).

    python train.py --data-dir data                        the paper's settings: DReG, looser, K = 30, learned prior
    python train.py --svhn synthetic --data-dir data       SVHN made of MNIST's digits: no file of SVHN is needed
    python train.py --demo --epochs 10 --K 5               on built-in digits, in minutes

Bounds of log p(mnist, svhn): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or the
ELBO; mnist's log-likelihood is weighed by --llik-scaling. With --model mvae and mopoe the experts are fused as there.
A batch: mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), float in [0, 1].
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from common.errors import require
from common.training import run_from_command_line
from common.training.options import ObjectiveName, ObjectiveOptions, RunConfig
from mnist_svhn.options import TrainingPairOptions

if TYPE_CHECKING:
    from common.training import Experiment


@dataclass
class Config(TrainingPairOptions, RunConfig, ObjectiveOptions):
    GROUPS: ClassVar = {"objective": ("llik_scaling",), "run": ("analytics", "logp")}
    FUSIONS: ClassVar = ("moe", "poe", "mopoe", "own")

    model: Literal["mmvae", "mvae", "mopoe", "mnist", "svhn"] = "mmvae"
    """mmvae: mixture of experts; mvae: product; mopoe: mixture of the products of all subsets; mnist, svhn: a VAE of
    this modality alone"""
    obj: ObjectiveName = "dreg"
    """objective to maximise. Default: as in the paper"""
    learn_prior: bool = True
    """learn the scales of the prior. Not for vmf and ebm, whose priors have none; products of experts keep N(0, I).
    Default: as in the paper"""
    prior_and_posterior: Literal["laplace", "normal", "vmf", "ebm"] | None = None
    """family of the prior and the experts. vmf: von Mises-Fisher, z on the unit sphere; ebm: energy-based, for --model
    mvae only. Default: laplace, as in the paper; normal for --model mvae and mopoe, which multiply experts"""
    llik_scaling: float = 0.0
    """weight of mnist's log-likelihood; 0 stands for the ratio of the dimensions, 3072 / 784. Default: as in the
    paper"""
    num_hidden_layers: int = 1
    """hidden layers of mnist's networks. Default: as in the authors' code"""
    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 20
    """dimensions of z. Default: as in the authors' code"""
    batch_size: int = 128
    """pairs in a batch. Default: as in the paper"""
    epochs: int = 30
    """passes over the pairs. Default: as in the paper"""
    annealing_epochs: int = 0
    """epochs over which the KL's weight rises from 0 to --beta. Default: as in the authors' code"""
    lr: float = 1e-3
    """learning rate of Adam with amsgrad. Default: as in the authors' code"""
    analytics: bool = True
    """draw pictures during training"""
    logp: bool = False
    """after training, estimate the best model's log-likelihoods of the test pairs (python loglike.py)"""

    def __post_init__(self) -> None:
        if self.prior_and_posterior is None:
            self.prior_and_posterior = "normal" if self.model in ("mvae", "mopoe") else "laplace"

    def objectives(self) -> tuple[str, ...]:
        from mnist_svhn.model import MODELS

        return MODELS[self.model].objectives

    def check(self) -> None:
        from mnist_svhn.model import FAMILIES, MODELS

        super().check()
        self.check_options()
        family = FAMILIES[self.prior_and_posterior]
        self.check_objective(f"--model {self.model}", self.objectives(), MODELS[self.model].fusion, family)
        require(
            0 <= self.llik_scaling < math.inf,
            f"--llik-scaling must be a number that is not negative, it is {self.llik_scaling}",
        )
        require(self.num_hidden_layers > 0, f"--num-hidden-layers must be positive, not {self.num_hidden_layers}")
        require(
            self.llik_scaling == 0 or self.model not in ("mnist", "svhn"),
            f"--llik-scaling weighs mnist beside svhn: --model {self.model} has one of them",
        )
        require(self.paired_fraction == 1, "MNIST-SVHN is paired by its digits: leave --paired-fraction at 1")


def experiment(config: Config) -> "Experiment":
    """Pairs of MNIST and SVHN."""
    from common.training import Experiment, objective_of
    from mnist_svhn.data import load, load_train
    from mnist_svhn.model import build
    from mnist_svhn.sample import draw

    return Experiment(
        "mnist_svhn",
        load,
        build,
        objective_of,
        draw if config.analytics else None,
        load_train,
        examples=lambda config, data, model: data.only(model.modalities),
        amsgrad=True,
    )


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    from common.training import run  # imported here, like the others: --help does without torch
    from mnist_svhn import loglike

    finished = run(config, experiment(config))
    if finished and config.logp:
        same = ("data_dir", "demo", "limit", "seed", "cuda", "svhn", "max_per_class", "pair_seed")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
