"""Sample from a model of MNIST-SVHN: from the prior, given an image of either modality, or along its latents.

    python sample.py trained_models                                       draws from the prior, in both modalities
    python sample.py trained_models --mixture 10 --data-dir data          draws from ten Gaussians fitted to latents
    python sample.py trained_models --cluster 3                           draws from a cluster of CMVAE's prior
    python sample.py trained_models --given mnist --data-dir data         test images, and both decoded from them
    python sample.py trained_models --given svhn --svhn synthetic --data-dir data
    python sample.py trained_models --traverse                            one latent at a time, by -3 to 3 deviations

Writes prior.png, mixture_10.png, cluster_3.png, from_mnist.png (or svhn), or along_latents_mnist.png and
along_latents_svhn.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from common.data import Examples
from common.errors import require
from common.models import MultimodalVAE
from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, dataset_options
from reports import options, sampling
from training import run_from_command_line, runs

import torch

COLUMNS = 16
IMAGES = sampling.Shown(("mnist", "svhn"))


@dataclass
class Config(PairOptions, options.ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("given", "traverse")
    SCORED: ClassVar = ("given",)

    n_samples: int = 64
    """number of pictures of each modality"""
    given: Literal["mnist", "svhn"] | None = None
    """generate from test images of this modality"""
    traverse: bool = False
    """move along each latent instead, starting from the prior's mean"""


def main(config: Config) -> None:
    """Save the pictures that the options ask for, and print the names of the files."""
    config.check()
    require(not (config.given and config.traverse), "--traverse starts at the prior's mean: leave out --given")
    all_shown = not config.traverse or config.n_samples == Config.n_samples
    require(all_shown, "--traverse draws no samples: leave out --n-samples")
    model = config.trained_model("mnist_svhn")
    torch.manual_seed(config.seed)
    path = config.path()
    if config.given or config.mixture:
        runs.check_same(dataset_options(config), config.model)
    pictures, latents = [path], config.latents(model, lambda: load("train", config))
    if config.traverse:
        on_spheres = model.variational_posterior.on_spheres
        require(not on_spheres, "--traverse moves one latent alone, which leaves vmf's sphere: leave it out")
        pictures = sampling.traversals(path.with_name("along_latents"), model, IMAGES)
    elif config.given:
        has_given = config.given in model.modalities
        require(has_given, f"this model has no {config.given}: use --given {model.modalities[0]}")
        given, examples = (config.given,), load("test", config).take(slice(config.n_samples))
        pictures = [config.path_given(given)]
        sampling.decoded(pictures[0], model, examples, given, IMAGES, COLUMNS, latents)
    else:
        sampling.samples(path, model, config.n_samples, IMAGES, COLUMNS, latents=latents)
    print(*pictures, sep="\n")


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save pictures during training: samples from the prior, and decodings given either modality."""
    examples = (valid or train).take(slice(COLUMNS))
    sampling.samples(folder / "prior.png", model, 4 * COLUMNS, IMAGES, COLUMNS)
    for source in model.modalities:
        sampling.decoded(folder / f"from_{source}.png", model, examples, (source,), IMAGES, COLUMNS)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
