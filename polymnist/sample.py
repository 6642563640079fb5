"""Sample from a model of PolyMNIST: from the prior, or given test images of some modalities.

    python sample.py trained_models                                        draws from the prior, in all modalities
    python sample.py trained_models --mixture 10 --data-dir data           draws from ten Gaussians fitted to latents
    python sample.py trained_models --cluster 3                            draws from a cluster of CMVAE's prior
    python sample.py trained_models --given m0 m2 --data-dir data          test images, and all decoded from them

Writes prior.png, mixture_10.png, cluster_3.png, or from_m0_m2.png.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from common.checkpoints import load_model
from common.data import Examples
from common.errors import require
from common.models import MultimodalVAE
from polymnist.data import load
from polymnist.options import DatasetOptions, dataset_options
from reports import generated, options
from training import devices, run_from_command_line, runs

COLUMNS = 12


@dataclass
class Config(DatasetOptions, options.ClusterSamplesConfig):
    CONDITIONS: ClassVar = ("given",)

    n_samples: int = 12
    """number of examples"""
    given: tuple[str, ...] = ()
    """generate from test images of these modalities"""


@torch.no_grad()
def main(config: Config) -> Path:
    """Save the picture that the options ask for; print its path and return it."""
    config.check()
    model = load_model(config.model, "polymnist").to(devices.select(config.cuda))
    for name in config.given:
        require(name in model.modalities, f"this model has no {name}: --given takes {', '.join(model.modalities)}")
        require(config.given.count(name) == 1, f"--given names {name} twice: name each modality once")
    torch.manual_seed(config.seed)
    folder = config.samples_dir
    if config.given or config.mixture:
        runs.check_same(dataset_options(config), config.model)
    if config.given:
        path = folder / f"from_{'_'.join(config.given)}.png"
        generated.decoded(path, model, load("test", config).take(slice(config.n_samples)), config.given, COLUMNS)
    else:
        path = folder / f"{config.sample_name()}.png"
        latents = config.latents(model, lambda: load("train", config))
        generated.samples(path, model, config.n_samples, COLUMNS, latents)
    print(path)
    return path


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save pictures during training: samples from the prior, and decodings given the first modality, and all others."""
    examples, (first, *others) = (valid or train).take(slice(COLUMNS)), model.modalities
    generated.samples(folder / "prior.png", model, COLUMNS, COLUMNS)
    for given in ((first,), tuple(others)):
        generated.decoded(folder / f"from_{'_'.join(given)}.png", model, examples, given, COLUMNS)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
