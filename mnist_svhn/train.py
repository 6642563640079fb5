"""MMVAE on MNIST-SVHN: pairs of images of the same digit (Shi et al. 2019, arXiv 1911.03393).

    python train.py --data-dir data                        the paper's settings: DReG, looser, K = 30, learned prior
    python train.py --svhn synthetic --data-dir data       SVHN made of MNIST's digits: no file of SVHN is needed
    python train.py --demo                                 on built-in digits, in minutes

Bounds of log p(mnist, svhn): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or the
ELBO; mnist's log-likelihood is weighed by --llik-scaling. Other models than MMVAE have their own objectives:
docs/models.md has them. reference/mmvae.py has the paper's model in one file, loop included.
A batch: mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), float in [0, 1].
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from common.errors import require, require_positive
from common.models.choices import Model
from common.models.families import FAMILIES
from mnist_svhn import loglike
from mnist_svhn.data import load, load_train
from mnist_svhn.model import build
from mnist_svhn.options import FAMILY_OF, MODELS, PAPER_MODELS, TrainingPairOptions
from mnist_svhn.sample import draw
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import MmvaeOptions, model_option, objective_option
from training.options import LATENT_NAMES, OptimizerName, RunConfig

import tyro


@dataclass
class Config(TrainingPairOptions, MmvaeOptions, RunConfig):
    """The defaults are the authors': those of MMVAE's paper, or else of its code."""

    model: model_option(
        (*MODELS, "mnist_svhn"), "mmvae, also mnist_svhn: MMVAE; mnist, svhn: a VAE of one modality"
    ) = "mmvae"
    obj: objective_option(
        {model.fusion for model in MODELS.values()},
        "objective to maximise. None: dreg for --model mmvae, mnist and svhn, as in the paper, else the model's own",
    ) = None
    prior_and_posterior: Literal["laplace", "normal", "vmf", "ebm"] | None = None
    """family of the prior and the experts. vmf: von Mises-Fisher, z on the unit sphere;
    ebm: energy-based, for --model mvae only. None: laplace, as in the paper, also for mixtures with private latents;
    normal for models that multiply experts"""
    K: int | None = None
    """importance samples from each expert.
    None: 1 for mixtures with private latents, as in MMVAE+'s code, else 30, or 5 with --demo"""
    num_hidden_layers: int = 1
    """hidden layers of mnist's networks"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z; of its shared part for models with private latents. None: 20, as in the authors' code;
    10 beside private latents, as in DMVAE's"""
    n_private: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="MNIST SVHN")] = None
    """numbers of private latents of each image, for models with them.
    None: 1 4 for dmvae, as in its code; else 10 10, so that a decoder sees 20 latents, like MMVAE's"""
    limit: int | None = None
    """use only the first N training pairs, and the first N pairs of the images that --valid holds out"""
    valid: int | None = None
    """hold out the last N images of each modality for validation. None: a sixth of the rarer modality's"""
    batch_size: int = 128
    """pairs in a batch"""
    epochs: int = 30
    """passes over the pairs"""
    lr: float = 1e-3
    optimizer: OptimizerName = "amsgrad"

    def __post_init__(self) -> None:
        if self.model == "mnist_svhn":  # the authors' name
            self.model = "mmvae"
        model = self.record()
        family = next(name for name, ours in FAMILY_OF.items() if ours == model.posterior)
        self.fill(
            prior_and_posterior=family,
            obj=self.objectives()[0],
            n_latents=10 if model.private else 20,
            n_private=((1, 4) if self.model == "dmvae" else (10, 10)) if model.private else None,
            K=model.K,
        )
        self.fill(K=5 if self.demo and self.obj in ("dreg", "iwae", "stl") else None)
        self.fill(learn_prior=self.model in PAPER_MODELS and not FAMILIES[self.posterior].fixed_prior)
        super().__post_init__()

    @property
    def posterior(self) -> str:
        """Our name of the family."""
        return FAMILY_OF[self.prior_and_posterior]

    def record(self) -> Model:
        return MODELS[self.model]

    def check(self) -> None:
        super().check()
        self.check_options()
        require_positive(self, "num_hidden_layers")
        of_mnist = self.num_hidden_layers == 1 or self.model != "svhn"
        require(of_mnist, "--num-hidden-layers: --model svhn has none of mnist's networks, leave it out")


PAPER = Config(settings="paper")
DEMO = Config(demo=True, epochs=2, batch_size=32)


def experiment(config: Config) -> Experiment:
    """Pairs of MNIST and SVHN."""
    return Experiment("mnist_svhn", load, build, objective_of, draw if config.analytics else None, load_train)


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    finished = run(config, experiment(config))
    if config.logp:
        same = ("data_dir", "demo", "limit", "seed", "cuda", "svhn", "max_per_class", "pair_seed")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
