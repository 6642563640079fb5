"""Sample from a model of PolyMNIST: from the prior, or given test images of some modalities.

    python sample.py trained_models                                        draws from the prior, in all modalities
    python sample.py trained_models --mixture 10 --data-dir data           draws from ten Gaussians fitted to latents
    python sample.py trained_models --latent-prior score                   draws from a density fitted to latents
    python sample.py trained_models --cluster 3                            draws from a cluster of CMVAE's prior
    python sample.py trained_models --given m0 m2 --data-dir data          test images, and all decoded from them

Writes prior.png, mixture_10.png, score.png, cluster_3.png, or from_m0_m2.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.data import Examples
from common.errors import require
from common.models import MultimodalVAE
from polymnist.data import load, modalities
from polymnist.options import MAX_MODALITIES, DatasetOptions, dataset_options
from reports import options, sampling
from training import run_from_command_line, runs

import torch

COLUMNS = 12
IMAGES = sampling.Shown(modalities(MAX_MODALITIES))


@dataclass
class Config(DatasetOptions, options.ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("given",)
    SCORED: ClassVar = ("given",)

    n_samples: int = 12
    """number of examples"""
    given: tuple[str, ...] = ()
    """generate from test images of these modalities"""


def main(config: Config) -> Path:
    """Save the picture that the options ask for; print its path and return it."""
    config.check()
    model = config.trained_model("polymnist")
    for name in config.given:
        require(name in model.modalities, f"this model has no {name}: --given takes {', '.join(model.modalities)}")
        require(config.given.count(name) == 1, f"--given names {name} twice: name each modality once")
    torch.manual_seed(config.seed)
    path = config.path()
    if config.given or config.mixture:
        runs.check_same(dataset_options(config), config.model)
    latents = config.latents(model, lambda: load("train", config))
    if config.given:
        path, examples = config.path_given(config.given), load("test", config).take(slice(config.n_samples))
        sampling.decoded(path, model, examples, config.given, IMAGES, COLUMNS, latents)
    else:
        sampling.samples(path, model, config.n_samples, IMAGES, COLUMNS, latents=latents)
    print(path)
    return path


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save pictures during training: samples from the prior, and decodings given the first modality, and all others."""
    examples, (first, *others) = (valid or train).take(slice(COLUMNS)), model.modalities
    sampling.samples(folder / "prior.png", model, COLUMNS, IMAGES, COLUMNS)
    for given in ((first,), tuple(others)):
        sampling.decoded(folder / f"from_{'_'.join(given)}.png", model, examples, given, IMAGES, COLUMNS)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
