"""Do the faces that a model of CelebA generates have the attributes that were given? A classifier tells.

    python analyse.py trained_models --data-dir data     a table by attribute
    python analyse.py trained_models --demo              drawn faces, whose attributes are true
    python analyse.py trained_models --json out.json     and a file

The classifier, a convolutional network, learns the attributes of the training images (kept in the cache-dir, for drawn
faces where one is given). Shares of right attributes of 64 x 64 images, in %:

    test images           the classifier on the test images: what generated faces can come to
    reconstructed         z of q(z|image) of a test image, decoded
    given all             z of q(z|attrs) of a test image's 18 attributes, decoded
    given alone           z given that one attribute, as often with it as without: 50 is chance
    joint                 z of the prior: what is decoded as the attribute, and what the classifier sees in the image
    commoner value        always saying what most test images have
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from celeba.attributes import ATTRIBUTES
from celeba.classifier import CLASSIFIER, classifier, tell
from celeba.data import load
from celeba.sample import giver, probabilities
from common import devices, options, reports, runs
from common.checkpoints import load_model, write_atomically
from common.data import Examples
from common.models import MultimodalVAE

BATCH_SIZE = 250


@dataclass
class JudgedConfig(options.ModelConfig):
    cache_dir: Path | None = None
    """where the images at 64 x 64 and the classifier are kept; default: the data-dir"""
    json: Path | None = None
    """write the shares to this file too"""


@dataclass
class Config(JudgedConfig):
    n_samples: int = 500
    """faces to generate given each attribute alone, and as many without it; ten times as many of the prior"""


def main(
    config: Config, experiment: str = "celeba", arranged: Callable[[Examples], Examples] = lambda examples: examples
) -> dict[str, dict[str, float]]:
    """
    Args:
        arranged: CelebA's examples with the model's modalities.
    """
    config.check()
    device = devices.select(config.cuda)
    model = load_model(config.model, experiment).to(device)
    network, test = judge(config, device)
    torch.manual_seed(config.seed)
    return report(shares(model, network, test, arranged(test), config.n_samples), config, experiment, len(test))


def report(columns: dict[str, Tensor], config: JudgedConfig, experiment: str, n: int) -> dict[str, dict[str, float]]:
    """Print the table of columns (18,), and write it to the file that --json names; by attribute."""
    found = {name: {column: x[i].item() for column, x in columns.items()} for i, name in enumerate(ATTRIBUTES)}
    print(f"\n{experiment}, {n} test images\n\n{reports.attribute_table(found)}")
    if config.json:
        content = {
            "experiment": experiment,
            "checkpoint": str(config.model),
            "split": "test",
            "n_examples": n,
            "n_samples": getattr(config, "n_samples", 1),
            "seed": config.seed,
        }
        write_atomically(config.json, json.dumps(content | {"attributes": found}, indent=2).encode())
    return found


def judge(config: JudgedConfig, device: torch.device) -> tuple[nn.Module, Examples]:
    """The classifier, and the test images with their attributes."""
    train, test = (
        load(split, config.data_dir, config.demo, limit=config.limit, cache_dir=config.cache_dir)
        for split in ("train", "test")
    )
    folder = config.cache_dir or (None if config.demo else config.data_dir)
    cache = folder / f"{'demo_' if config.demo else ''}{CLASSIFIER}" if folder and config.limit is None else None
    return classifier(train.to(device), cache), test.to(device)


@torch.no_grad()
def shares(
    model: MultimodalVAE, network: nn.Module, test: Examples, arranged: Examples, n_samples: int
) -> dict[str, Tensor]:
    """By column of the table, (18,)."""
    truth, others = test.modalities["attrs"].bool(), [name for name in model.modalities if name != "image"]
    right = {"test images": [], "reconstructed": [], "given all": []}
    for start in range(0, len(test), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        image, batch = test[rows].modalities["image"], arranged[rows]
        decoded = {"test images": image}
        for name, given in {"reconstructed": ("image",), "given all": others}.items():
            z = model.posterior(batch, given).sample()
            decoded[name] = model.decode(z, ["image"])["image"].mean
        for name, images in decoded.items():
            right[name].append(tell(network, images) == truth[rows])
    columns = {name: torch.cat(parts).double().mean(dim=0) for name, parts in right.items()}
    alone, given = torch.zeros(len(ATTRIBUTES)), giver(model)
    for i, name in enumerate(ATTRIBUTES):
        for value in (0, 1):
            z = model.posterior(given({name: value}, n_samples)).sample()
            seen = tell(network, model.decode(z, ["image"])["image"].mean)[:, i]
            alone[i] += (seen == value).double().mean().item() / 2
    columns["given alone"] = alone
    agree = []
    for _ in range(0, 10 * n_samples, BATCH_SIZE):
        p = model.decode(model.prior().sample((BATCH_SIZE,)))
        agree.append(tell(network, p["image"].mean) == (probabilities(p) > 0.5))
    columns["joint"] = torch.cat(agree).double().mean(dim=0)
    return columns | commoner(truth)


def commoner(truth: Tensor) -> dict[str, Tensor]:
    """The column of always saying what most have, of (N, 18) bool."""
    share = truth.double().mean(dim=0)
    return {"commoner value": torch.maximum(share, 1 - share)}


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
