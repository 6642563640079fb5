"""MMVAE on MNIST-SVHN: pairs of images of the same digit (Shi et al. 2019, arXiv 1911.03393).

    python train.py --data-dir data                        the paper's settings: DReG, looser, K = 30, learned prior
    python train.py --svhn synthetic --data-dir data       SVHN made of MNIST's digits: no file of SVHN is needed
    python train.py --demo --epochs 10 --K 5               on built-in digits, in minutes

Bounds of log p(mnist, svhn): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or the
ELBO; mnist's log-likelihood is weighed by --llik-scaling. With --model mvae and mopoe the experts are fused as there.
A batch: mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), float in [0, 1].
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from common.errors import require
from common.training import run_from_command_line
from common.training.objective_options import MmvaeOptions, ObjectiveName
from common.training.options import Latents, RunConfig
from mnist_svhn.options import FAMILIES, FUSIONS, TrainingPairOptions

if TYPE_CHECKING:
    from common.training import Experiment


@dataclass
class Config(TrainingPairOptions, MmvaeOptions, RunConfig):
    DEFAULTS_FROM: ClassVar = "as in the authors' code"
    ALWAYS_PAIRED: ClassVar = "MNIST-SVHN is paired by its digits"
    FUSIONS: ClassVar = tuple(FUSIONS.values())

    model: Literal["mmvae", "mvae", "mopoe", "mnist", "svhn", "mnist_svhn"] = "mmvae"
    """mmvae, also mnist_svhn: mixture of experts; mnist, svhn: a VAE of this modality alone"""
    obj: ObjectiveName = "dreg"
    """objective to maximise. Default: as in the paper"""
    prior_and_posterior: Literal["laplace", "normal", "vmf", "ebm"] | None = None
    """family of the prior and the experts. vmf: von Mises-Fisher, z on the unit sphere; ebm: energy-based, for --model
    mvae only. Default: laplace, as in the paper; normal for --model mvae and mopoe, which multiply experts"""
    llik_scaling: float = 0.0
    """weight of mnist's log-likelihood; 0 stands for the ratio of the dimensions, 3072 / 784. Default: as in the
    paper"""
    num_hidden_layers: int = 1
    """hidden layers of mnist's networks. Default: as in the authors' code"""
    n_latents: Latents = 20
    batch_size: int = 128
    """pairs in a batch. Default: as in the paper"""
    epochs: int = 30
    """passes over the pairs. Default: as in the paper"""
    annealing_epochs: int = 0
    lr: float = 1e-3
    """learning rate of Adam with amsgrad. Default: as in the authors' code"""

    def __post_init__(self) -> None:
        if self.model == "mnist_svhn":  # the authors' name
            self.model = "mmvae"
        if self.prior_and_posterior is None:
            self.prior_and_posterior = "normal" if self.model in ("mvae", "mopoe") else "laplace"

    def experts(self) -> tuple[str, str, str]:
        return f"--model {self.model}", FUSIONS[self.model], FAMILIES[self.prior_and_posterior]

    def check(self) -> None:
        super().check()
        self.check_options()
        require(self.num_hidden_layers > 0, f"--num-hidden-layers must be positive, not {self.num_hidden_layers}")


def experiment(config: Config) -> "Experiment":
    """Pairs of MNIST and SVHN."""
    from common.analysis import latent_pictures
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
        amsgrad=True,
        analytics=latent_pictures if config.analytics_every else None,
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
