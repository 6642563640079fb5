"""MVAE on MNIST: images of digits and their labels (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --lambda-text 1 --annealing-epochs 30 --epochs 80     the results of README.md (--precision bf16)
    python train.py --demo --epochs 30                                    on built-in digits, in seconds

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
import tyro

from common import devices, runs
from common.data import hold_out, unpair
from common.errors import require
from common.models import MultimodalVAE
from common.training import fit
from mnist.data import MNIST, Dataset
from mnist.model import MODELS, build
from mnist.sample import draw


@dataclass
class Config(runs.RunConfig):
    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 64
    """latent dimensions (authors' code: 64)"""
    batch_size: int = 100
    """examples a step (authors' code: 100)"""
    epochs: int = 500
    """passes over the training examples (authors' code: 500)"""
    annealing_epochs: int = 200
    """epochs over which the KL's weight rises from 0 to 1 (authors' code: 200)"""
    lr: float = 1e-3
    """Adam's learning rate (authors' code: 1e-3)"""
    lambda_image: float = 1.0
    """weight of the image's log-likelihood (authors' code: 1)"""
    lambda_text: float = 10.0
    """weight of the label's log-likelihood (authors' code: 10, their README: 50)"""
    model: Literal["mvae", "mvae-q", "jmvae", "vae", "cvae", "bivcca", "mopoe"] = "mvae"
    """mvae: product of experts; mvae-q: quotient of posteriors; jmvae: joint encoder; vae: the image alone; cvae: the
    image given the label; bivcca: mixture of experts; mopoe: mixture of the products of all subsets"""
    obj: Literal["mvae", "elbo", "jmvae", "mixture"] | None = None
    """mvae: ELBO of both and of each modality (of --model mvae and mvae-q, the default there); elbo: of both alone;
    the other models have one objective each"""
    alpha: float = 0.1
    """weight of the KLs that draw JMVAE's unimodal posteriors to the joint one (Suzuki et al. 2016)"""

    def check(self) -> None:
        super().check()
        known = MODELS[self.model]
        require(
            self.obj in (None, *known.objectives), f"--model {self.model} has --obj {' or '.join(known.objectives)}"
        )
        require(
            self.paired_fraction == 1 or not known.pairs_only,
            f"--model {self.model} learns from pairs alone: leave --paired-fraction at 1",
        )


def main(config: Config, dataset: Dataset = MNIST, build: Callable[[Config], MultimodalVAE] = build) -> None:
    config.check()
    if config.dry_run:
        print(json.dumps(runs.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    examples = dataset.load("train", config.data_dir, config.demo, config.download, config.limit)
    train, valid = hold_out(examples.only(model.modalities), config.valid)
    train = unpair(train, config.paired_fraction, torch.Generator().manual_seed(config.seed))
    weights = {"image": config.lambda_image, "text": config.lambda_text}
    objectives = MODELS[config.model].objectives
    objective = objectives[config.obj or next(iter(objectives))](
        model,
        weights={name: weights[name] for name in model.modalities},
        **({"alpha": config.alpha} if config.model == "jmvae" else {}),
    )
    run = runs.Run(dataset.name, config)
    fit(model, objective, train, valid, config, run, partial(draw, model, examples=valid or train, dataset=dataset))


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
