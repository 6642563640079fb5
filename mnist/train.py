"""MVAE on MNIST: images of digits and their labels (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --lambda-text 1 --annealing-epochs 30 --epochs 80     the results of README.md (--precision bf16)
    python train.py --demo --epochs 30                                    on built-in digits, in seconds

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
import tyro

from common import devices, objectives, runs
from common.data import hold_out, unpair
from common.training import fit
from mnist.data import load
from mnist.model import build
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
    obj: Literal["mvae", "elbo"] = "mvae"
    """mvae: ELBO of both and of each modality; elbo: of both alone"""


OBJECTIVES = {"mvae": objectives.MvaeElbo, "elbo": objectives.StandardElbo}


def main(config: Config) -> None:
    config.check()
    if config.dry_run:
        print(json.dumps(runs.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    examples = load("train", config.data_dir, config.demo, config.download, config.limit)
    train, valid = hold_out(examples, config.valid)
    train = unpair(train, config.paired_fraction, torch.Generator().manual_seed(config.seed))
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    objective = OBJECTIVES[config.obj](model, weights={"image": config.lambda_image, "text": config.lambda_text})
    run = runs.Run("mnist", config)
    fit(model, objective, train, valid, config, run, partial(draw, model, examples=valid or train))


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
