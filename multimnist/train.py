"""MVAE on MultiMNIST: images of up to four digits and their strings (Wu & Goodman 2018, arXiv 1802.05335).

    python generate.py --mnist-dir ../mnist/data --data-dir data          the dataset, in a minute
    python train.py --data-dir data                                       the authors' settings
    python train.py --demo --epochs 20 --annealing-epochs 5               on built-in digits, in a few minutes

ELBO terms: ELBO(image), ELBO(text) and ELBO(image, text), all scored with --lambda-image and --lambda-text.
A batch: image (B, 1, 50, 50) float in [0, 1], text (B, 4) int64: digits, 11 where the string is over.
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
from mnist.sample import draw
from multimnist.data import DatasetOptions, dataset
from multimnist.model import build


@dataclass
class Config(DatasetOptions, runs.RunConfig):
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
    """weight of the string's log-likelihood (authors' code and README: 10)"""
    obj: Literal["mvae", "elbo"] = "mvae"
    """mvae: ELBO of both and of each modality; elbo: of both alone"""
    teacher_forcing: bool = False
    """the decoder of strings knows the characters before the one that it predicts, so that p(text|z) is autoregressive;
    without it, it sees the ones it finds most likely, as the authors' did"""


OBJECTIVES = {"mvae": objectives.MvaeElbo, "elbo": objectives.StandardElbo}


def main(config: Config) -> None:
    config.check()
    config.check_options()
    if config.dry_run:
        print(json.dumps(runs.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    data = dataset(config)
    examples = data.load("train", config.data_dir, config.demo, config.download, config.limit)
    train, valid = hold_out(examples, config.valid)
    train = unpair(train, config.paired_fraction, torch.Generator().manual_seed(config.seed))
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    objective = OBJECTIVES[config.obj](model, weights={"image": config.lambda_image, "text": config.lambda_text})
    run = runs.Run(data.name, config)
    fit(model, objective, train, valid, config, run, partial(draw, model, examples=valid or train, dataset=data))


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
