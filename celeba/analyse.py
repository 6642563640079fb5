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

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from celeba.attributes import ATTRIBUTES
from celeba.classifier import CLASSIFIER, classifier, tell
from celeba.data import load
from celeba.sample import giver, probabilities
from common import distributed
from common.checkpoints import load_model
from common.data import Examples
from common.models import MultimodalVAE
from common.reporting import tables
from common.training import devices, options, run_from_command_line

BATCH_SIZE = 250


@dataclass
class JudgedConfig(options.ModelConfig):
    GROUPS: ClassVar = {"data": ("cache_dir",)}

    cache_dir: Path | None = None
    """folder of the cache of images at 64 x 64, and of the classifier. Default: the data-dir"""
    json: Path | None = None
    """also write the shares to this file"""


@dataclass
class Config(JudgedConfig):
    n_samples: int = 500
    """faces to generate given each attribute alone, and given its absence; from the prior ten times this number"""


def main(
    config: Config, experiment: str = "celeba", arranged: Callable[[Examples], Examples] = lambda examples: examples
) -> dict[str, dict[str, float]]:
    """Report the shares of right attributes: {attribute: {column: share in [0, 1]}}.

    Args:
        arranged: CelebA's examples with the model's modalities.
    """
    config.check()
    device = devices.select(config.cuda)
    model = load_model(config.model, experiment).to(device)
    network, test = judge(config, device)
    torch.manual_seed(config.seed)
    distributed.seed_each_process()
    return report(shares(model, network, test, arranged(test), config.n_samples), config, experiment, len(test))


def report(columns: dict[str, Tensor], config: JudgedConfig, experiment: str, n: int) -> dict[str, dict[str, float]]:
    """Report columns (18,) by attribute: {attribute: {column: share in [0, 1]}}."""
    shares = {name: {column: x[i].item() for column, x in columns.items()} for i, name in enumerate(ATTRIBUTES)}
    table = tables.attribute_table(shares, caption=f"{experiment}, {n} test images")
    settings = {"n_examples": n, "n_samples": getattr(config, "n_samples", 1), "seed": config.seed}
    tables.report(config, experiment, [table], settings)
    return shares


def judge(config: JudgedConfig, device: torch.device) -> tuple[nn.Module, Examples]:
    """The classifier, and the test images with their attributes."""
    train, test = (load(split, config) for split in ("train", "test"))
    folder = config.cache_dir or (None if config.demo else config.data_dir)
    cache = folder / f"{'demo_' if config.demo else ''}{CLASSIFIER}" if folder and config.limit is None else None
    network = distributed.on_first_process(lambda: classifier(train.to(device), cache).cpu())
    return network.to(device), test.to(device)


@torch.no_grad()
def shares(
    model: MultimodalVAE, network: nn.Module, test: Examples, arranged: Examples, n_samples: int
) -> dict[str, Tensor]:
    """By column of the table, (18,)."""
    truth, others = test.modalities["attrs"].bool(), [name for name in model.modalities if name != "image"]

    def of_test(rows: Tensor) -> dict[str, Tensor]:
        batch, decoded = arranged[rows], {"test images": test[rows].modalities["image"]}
        for name, given in {"reconstructed": ("image",), "given all": others}.items():
            z = model.posterior(batch, given).sample()
            decoded[name] = model.decode(z, ["image"])["image"].mean
        return {name: tell(network, images) == truth[rows] for name, images in decoded.items()}

    def alone(rows: Tensor) -> dict[str, Tensor]:
        right = []
        for i, name in enumerate(ATTRIBUTES):
            for value in (0, 1):
                z = model.posterior(give({name: value}, len(rows))).sample()
                right.append(tell(network, model.decode(z, ["image"])["image"].mean)[:, i] == value)
        return {"given alone": torch.stack(right, dim=1).unflatten(1, (-1, 2))}  # (B, 18, 2)

    def joint(rows: Tensor) -> dict[str, Tensor]:
        p = model.decode(model.prior().sample((len(rows),)))
        return {"joint": tell(network, p["image"].mean) == (probabilities(p) > 0.5)}

    right = distributed.map_rows(len(test), BATCH_SIZE, of_test, "test images")
    give = giver(model)
    right |= distributed.map_rows(n_samples, n_samples, alone, "given alone", " draws")
    n = -(-10 * n_samples // BATCH_SIZE) * BATCH_SIZE  # whole batches
    right |= distributed.map_rows(n, BATCH_SIZE, joint, "joint", " draws")
    columns = {name: x.double().mean(dim=0) for name, x in right.items()}  # (18,), given one alone (18, 2)
    columns["given alone"] = columns["given alone"].float().mean(dim=1)
    return columns | commoner(truth)


def commoner(truth: Tensor) -> dict[str, Tensor]:
    """The column of always saying what most have, of (N, 18) bool."""
    share = truth.double().mean(dim=0)
    return {"commoner value": torch.maximum(share, 1 - share)}


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
