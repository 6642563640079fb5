"""MMVAE on MNIST-SVHN: pairs of images of the same digit (Shi et al. 2019, arXiv 1911.03393).

    python train.py --data-dir data                        the paper's settings: DReG, looser, K = 30, learned prior
    python train.py --svhn synthetic --data-dir data       SVHN made of MNIST's digits: no file of SVHN is needed
    python train.py --demo                                 on built-in digits, in minutes

Bounds of log p(mnist, svhn): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or the
ELBO; mnist's log-likelihood is weighed by --llik-scaling. Other models than MMVAE have their own objectives: README.md
has them in a table.
A batch: mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), float in [0, 1].
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from common.errors import require, require_positive
from common.models.choices import WITHOUT_SCALES
from mnist_svhn.options import FAMILIES, MODELS, PAPER_MODELS, TrainingPairOptions
from training import run_from_command_line
from training.objective_options import MmvaeOptions, NamedModels, ObjectiveName, Unset
from training.options import LATENT_NAMES, OptimizerName, RunConfig

if TYPE_CHECKING:
    from training import Experiment


@dataclass
class Config(TrainingPairOptions, NamedModels, MmvaeOptions, RunConfig):
    DEFAULTS_FROM: ClassVar = "as in the authors' code"
    DEMO: ClassVar = {"epochs": 2, "batch_size": 32, "K": 5}
    PAPER: ClassVar = {}  # the defaults
    DEPEND_ON: ClassVar = MmvaeOptions.DEPEND_ON | {
        "model": ("obj", "prior_and_posterior", "n_private", "n_clusters"),
        "prior_and_posterior": ("learn_prior",),
    }
    MODELS: ClassVar = MODELS
    FUSIONS: ClassVar = tuple(dict.fromkeys(model.fusion for model in MODELS.values()))

    model: Literal[(*MODELS, "mnist_svhn")] = "mmvae"
    """mmvae, also mnist_svhn: MMVAE; mnist, svhn: a VAE of this modality alone"""
    obj: ObjectiveName | None = None
    """objective to maximise. Default: dreg for --model mmvae, mnist and svhn, as in the paper, else the model's own"""
    prior_and_posterior: Literal["laplace", "normal", "vmf", "ebm"] | None = None
    """family of the prior and the experts. vmf: von Mises-Fisher, z on the unit sphere; ebm: energy-based, for --model
    mvae only. Default: laplace, as in the paper, also for mmvae+ and cmvae as in theirs; normal for models that
    multiply experts"""
    llik_scaling: float = 0.0
    """weight of mnist's log-likelihood; 0 stands for the ratio of the dimensions, 3072 / 784. Default: as in the
    paper"""
    num_hidden_layers: int = 1
    """hidden layers of mnist's networks. Default: as in the authors' code"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z; of its shared part for --model dmvae, mmvae+ and cmvae. Default: 20, as in the authors' code; 10
    beside private latents, as in DMVAE's"""
    n_private: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="MNIST SVHN")] = None
    """numbers of private latents of each image, for --model dmvae, mmvae+ and cmvae. Default: 1 4 for dmvae, as in its
    code; else 10 10, so that a decoder sees 20 latents, like MMVAE's"""
    limit: int | None = None
    """use only the first N training pairs, and the first N pairs of the images that --valid holds out"""
    valid: int | None = None
    """hold out the last N images of each modality for validation. Default: a sixth of the rarer
    modality's"""
    batch_size: int = 128
    """pairs in a batch. Default: as in the paper"""
    epochs: int = 30
    """passes over the pairs. Default: as in the paper"""
    lr: float = 1e-3
    """learning rate. Default: as in the authors' code"""
    optimizer: OptimizerName = "amsgrad"

    def __post_init__(self) -> None:
        if self.model == "mnist_svhn":  # the authors' name
            self.model = "mmvae"
        super().__post_init__()
        model = self.record()
        if self.prior_and_posterior is None:
            self.prior_and_posterior = next(name for name, ours in FAMILIES.items() if ours == model.posterior)
        if self.obj is None:
            self.obj = self.objectives()[0]
        if self.n_latents is None:
            self.n_latents = 10 if model.private else 20
        if self.n_private is not None:
            self.n_private = tuple(self.n_private)  # files hold a list
        elif model.private:
            self.n_private = (1, 4) if self.model == "dmvae" else (10, 10)
        if isinstance(self.learn_prior, Unset):
            self.learn_prior = self.model in PAPER_MODELS and self.posterior not in WITHOUT_SCALES

    @property
    def posterior(self) -> str:
        """Our name of the family."""
        return FAMILIES[self.prior_and_posterior]

    def check(self) -> None:
        super().check()
        self.check_options()
        require_positive(self, "num_hidden_layers")
        of_mnist = self.num_hidden_layers == 1 or self.model != "svhn"
        require(of_mnist, "--num-hidden-layers: --model svhn has none of mnist's networks, leave it out")


def experiment(config: Config) -> "Experiment":
    """Pairs of MNIST and SVHN."""
    from mnist_svhn.data import load, load_train
    from mnist_svhn.model import build
    from mnist_svhn.sample import draw
    from training import Experiment, objective_of

    return Experiment(
        "mnist_svhn",
        load,
        build,
        objective_of,
        draw if config.analytics else None,
        load_train,
    )


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    from mnist_svhn import loglike
    from training import run  # imported here, like the others: --help does without torch

    finished = run(config, experiment(config))
    if config.logp:
        same = ("data_dir", "demo", "limit", "seed", "cuda", "svhn", "max_per_class", "pair_seed")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
