"""Sample from a model of PolyMNIST: from the prior, or given test images of some modalities.

    python sample.py trained_models                                        draws from the prior, in all modalities
    python sample.py trained_models --mixture 10 --data-dir data           draws from ten Gaussians fitted to latents
    python sample.py trained_models --given m0 m2 --data-dir data          test images, and all decoded from them

Writes prior.png, mixture_10.png, or from_m0_m2.png.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.distributions import Distribution

from common.checkpoints import load_model
from common.data import Examples
from common.errors import require
from common.evaluation.latent_mixtures import gaussian_mixture
from common.models import MultimodalVAE
from common.reporting import plots
from common.training import devices, options, run_from_command_line, runs
from polymnist.data import load
from polymnist.options import DatasetOptions, dataset_options

COLUMNS = 12


@dataclass
class Config(DatasetOptions, options.ModelConfig):
    n_samples: int = 12
    """number of examples"""
    mixture: int = 0
    """draw z from a mixture of this number of Gaussians, fitted to latents of training examples, and not from the
    prior"""
    given: tuple[str, ...] = ()
    """generate from test images of these modalities"""
    out_dir: Path | None = None
    """folder to write to. Default: samples/ beside the model"""


@torch.no_grad()
def main(config: Config) -> Path:
    """Save the picture that the options ask for; print its path and return it."""
    config.check()
    require(config.mixture >= 0, f"--mixture must not be negative, it is {config.mixture}")
    require(not (config.mixture and config.given), "--mixture stands in for the prior: leave out --given")
    model = load_model(config.model, "polymnist").to(devices.select(config.cuda))
    for name in config.given:
        require(name in model.modalities, f"this model has no {name}: --given takes {', '.join(model.modalities)}")
    torch.manual_seed(config.seed)
    folder = config.out_dir or runs.folder_of(config.model) / "samples"
    if config.given:
        runs.check_same(dataset_options(config), config.model)
        path = folder / f"from_{'_'.join(config.given)}.png"
        decoded(model, load("test", config).take(slice(config.n_samples)), config.given, path)
    elif config.mixture:
        runs.check_same(dataset_options(config), config.model)
        path = folder / f"mixture_{config.mixture}.png"
        train = load("train", config).only(model.modalities)
        prior(model, config.n_samples, path, gaussian_mixture(model, train, config.mixture))
    else:
        path = folder / "prior.png"
        prior(model, config.n_samples, path)
    print(path)
    return path


def prior(model: MultimodalVAE, n: int, path: Path, latents: Distribution | None = None) -> None:
    """Save n samples from the prior, or from another distribution of z, a modality a row."""
    title = "samples from the prior" if latents is None else "samples from a mixture of Gaussians"
    _in_rows(model.generate(n, latents), path, title)


def decoded(model: MultimodalVAE, examples: Examples, given: tuple[str, ...], path: Path) -> None:
    """Save images of the given modalities, and below them all decodings of one draw of the posterior."""
    x = examples.only(given).to(model.device)[:].modalities
    means = {name: p.mean for name, p in model.decode(model.posterior(x).sample()).items()}
    title = f"decoded from a sample of q(z|{','.join(given)})"
    _in_rows({f"{name}, given": image for name, image in x.items()} | means, path, title)


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save pictures during training: samples from the prior, and decodings given the first modality, and all others."""
    examples, (first, *others) = (valid or train).take(slice(COLUMNS)), model.modalities
    prior(model, COLUMNS, folder / "prior.png")
    decoded(model, examples, (first,), folder / f"from_{first}.png")
    decoded(model, examples, tuple(others), folder / f"from_{'_'.join(others)}.png")


def _in_rows(images: dict[str, Tensor], path: Path, title: str) -> None:
    """Save N images (N, 3, 28, 28) of each kind in rows; images of the same draw stand above each other."""
    rows = [plots.in_rows(x, [], COLUMNS)[0] for x in images.values()]
    labels = list(images) * len(rows[0])
    plots.image_grid(path, torch.stack(rows, dim=1).flatten(0, 1).clamp(0, 1), labels, title=title)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
