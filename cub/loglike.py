"""Log-likelihoods of a model of CUB's birds, by importance sampling on test images with a caption (nats per pair).

Means over the ten captions of an image, and over images, whose spread gives the standard errors.

    python loglike.py trained_models --data-dir data --limit 100       a table, of the captions of 100 images
    python loglike.py trained_models --paper --json out.json           with the paper's number, and a file

log p(image,caption), log p(image) and log p(caption) share samples of q(z|image,caption), all components of a mixture.
The last two are also estimated with samples of each encoder alone: log p(caption) with z from q(z|image) shows how
much of the caption the image tells. Padding adds nothing; only --paper uses the weights of the likelihoods.
"""

from dataclasses import dataclass

from cub.data import CAPTIONS
from cub.options import about
from cub.trained_model import TrainedConfig, load_birds, load_trained
from reports import tables
from reports.likelihoods import MmvaeLoglikeConfig, mmvae_estimates
from training import run_from_command_line

import torch


@dataclass
class Config(TrainedConfig, MmvaeLoglikeConfig):
    """The options of models of birds, and of MMVAE's log-likelihoods."""


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model, vocabulary = load_trained(config)
    config.check_fits(model)
    birds = load_birds("test", model, vocabulary, config)
    torch.manual_seed(config.seed)
    values = mmvae_estimates(model, birds.examples, **config.sampling, paper=config.paper)
    facts = about(config) | {"captions each": str(CAPTIONS)}
    n, groups = len(birds.classes), birds.image_of_each_caption
    return tables.report_estimates(values, config, "cub", n, facts, groups=groups)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
