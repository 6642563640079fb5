"""MMVAE on MNIST-SVHN: pairs of images of the same digit (Shi et al. 2019, arXiv 1911.03393).

    python train.py --data-dir data                        the paper's settings: DReG, looser, K = 30, learned prior
    python train.py --svhn synthetic --data-dir data       SVHN made of MNIST's digits: no file of SVHN is needed
    python train.py --demo --epochs 20 --K 5               on built-in digits, in minutes

Bounds of log p(mnist, svhn): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or the
ELBO; mnist's log-likelihood is weighed by --llik-scaling. With --model mvae and mopoe the experts are fused as there.
A batch: mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), float in [0, 1].
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
import tyro

from common import devices, runs
from common.bounds import Objective
from common.errors import require
from common.models import MultimodalVAE
from common.objectives import DregElbo, IwaeElbo, MixtureElbo, MvaeElbo, StandardElbo, StlElbo
from common.training import fit
from mnist_svhn.data import PairOptions, load_train
from mnist_svhn.model import build
from mnist_svhn.sample import draw


@dataclass
class Config(runs.RunConfig, PairOptions):
    model: Literal["mmvae", "mvae", "mopoe", "mnist", "svhn"] = "mmvae"
    """mmvae: mixture of experts; mvae: product; mopoe: mixture of the products of all subsets; mnist, svhn: a VAE of
    this modality alone"""
    obj: Literal["dreg", "iwae", "stl", "elbo", "mvae"] = "dreg"
    """the bound, and its gradient (paper: dreg); mvae: ELBO of both and of each modality, of --model mvae"""
    K: int = 30
    """samples of each encoder, of dreg, iwae and stl (paper: 30; the authors' script: 20)"""
    looser: bool = True
    """of dreg, iwae and stl: the mean over the encoders outside the logarithm (paper)"""
    dreg: Literal["exact", "stop-all", "published"] = "exact"
    """exact: unbiased for mixtures too; stop-all: the paper's rule; published: what its code did"""
    learn_prior: bool = True
    """learn the prior's scales (paper)"""
    prior_and_posterior: Literal["laplace", "normal"] | None = None
    """families; default: normal for --model mvae and mopoe, whose products need it, else laplace (paper)"""
    llik_scaling: float = 0.0
    """weight of mnist's log-likelihood; 0: 3072 / 784, the ratio of the dimensions (paper)"""
    num_hidden_layers: int = 1
    """of mnist's networks (authors' code: 1)"""
    beta: float = 1.0
    """weight of log p(z) - log q(z|x) (authors' code: 1)"""
    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 20
    """latent dimensions (authors' code: 20)"""
    batch_size: int = 128
    """pairs a step (paper: 128)"""
    epochs: int = 30
    """passes over the pairs (paper: 30)"""
    annealing_epochs: int = 0
    """epochs over which beta rises (authors' code: none)"""
    lr: float = 1e-3
    """learning rate of Adam with amsgrad (authors' code: 1e-3)"""

    def __post_init__(self) -> None:
        if self.prior_and_posterior is None:
            self.prior_and_posterior = "normal" if self.model in ("mvae", "mopoe") else "laplace"

    def check(self) -> None:
        super().check()
        self.check_options()
        require(self.K > 0, f"--K must be positive, not {self.K}")
        for name in ("llik_scaling", "beta"):
            require(getattr(self, name) >= 0, f"{runs.option(name)} must not be negative, it is {getattr(self, name)}")
        require(self.num_hidden_layers > 0, f"--num-hidden-layers must be positive, not {self.num_hidden_layers}")
        require(
            self.prior_and_posterior == "normal" or self.model not in ("mvae", "mopoe"),
            f"--model {self.model} takes products of experts, which need --prior-and-posterior normal",
        )
        require(
            self.obj != "mvae" or self.model == "mvae",
            f"--obj mvae is of --model mvae, not {self.model}",
        )
        require(self.paired_fraction == 1, "MNIST-SVHN is paired by its digits: leave --paired-fraction at 1")


def objective(config: Config, model: MultimodalVAE) -> Objective:
    """The bound that --obj names."""
    if config.obj == "dreg":
        return DregElbo(model, config.K, config.looser, gradient=config.dreg)
    if config.obj in ("iwae", "stl"):
        return {"iwae": IwaeElbo, "stl": StlElbo}[config.obj](model, config.K, config.looser)
    if config.obj == "mvae":
        return MvaeElbo(model)
    return StandardElbo(model) if config.model == "mvae" else MixtureElbo(model)


def main(config: Config) -> None:
    config.check()
    if config.dry_run:
        print(json.dumps(runs.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    train, valid = load_train(config.data_dir, config, config.demo, config.download, config.limit, config.valid)
    train, valid = train.only(model.modalities), valid and valid.only(model.modalities)
    run = runs.Run("mnist_svhn", config)
    pictures = partial(draw, model, examples=valid or train)
    fit(model, objective(config, model), train, valid, config, run, pictures, beta=config.beta, amsgrad=True)


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
