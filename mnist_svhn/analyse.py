"""Coherence of a model of MNIST-SVHN: does what it generates show the same digit (Shi et al. 2019, section 4.1)?

    python analyse.py trained_models --data-dir data                     tables and pictures
    python analyse.py trained_models --data-dir data --svhn synthetic    where it was trained on that
    python analyse.py trained_models --json out.json                     and a file

Cross coherence: how often what is decoded of one modality, given the other, shows that one's digit; joint coherence:
how often both decodings of a draw of the prior show the same one. Digits are told by convolutional networks that are
trained on the training images, once for each data-dir, and whose accuracy on test images is printed too, beside that of
linear ones. Latent accuracy: of a linear classifier of one sampled z an image.

Writes umap.png (draws of the prior and of the posteriors in the plane) and kl.png (KLs of the posteriors from the prior
and from each other, by latent) into the model's samples/.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.checkpoints import load_model
from common.data import Examples
from common.errors import require
from common.metrics import cross_coherence, divergences, joint_coherence, latent_accuracy
from common.models import MultimodalVAE
from common.reporting import plots, tables
from common.reporting import umap as maps
from common.training import devices, options, run_from_command_line, runs
from mnist_svhn.classifier import accuracy, classifier
from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, chosen

FEWEST = 20  # test pairs that make a map


@dataclass
class Config(PairOptions, options.ModelConfig):
    n_samples: int = 10_000
    """samples from the prior, for joint coherence. Default: as in the paper"""
    umap: bool = True
    """draw umap.png, which takes half a minute"""
    out_dir: Path | None = None
    """folder of the pictures. Default: samples/ beside the model"""
    json: Path | None = None
    """also write the figures to this file"""


def main(config: Config) -> dict[str, float]:
    config.check()
    require(
        not config.umap or config.limit is None or config.limit >= FEWEST,
        f"umap.png needs {FEWEST} test pairs: a larger --limit, or --no-umap",
    )
    runs.check_same(chosen(config), config.model)
    device = devices.select(config.cuda)
    model = load_model(config.model, "mnist_svhn").to(device)
    train, test = (load(split, config).to(device) for split in ("train", "test"))
    shares, readers = {}, {}
    for name in model.modalities:
        for kind in ("linear", "convolutional"):
            make = partial(classifier, kind, name, train, cache(config, kind, name))
            readers[name] = distributed.on_first_process(lambda make=make: make().cpu()).to(device)
            shares[f"{kind} classifier, {name}"] = accuracy(readers[name], name, test)
    torch.manual_seed(config.seed)
    distributed.seed_each_process()
    shares |= {
        f"coherence, {source} -> {target}": share
        for (source, target), share in cross_coherence(model, test, "digit", readers).items()
    }
    if len(model.modalities) > 1:
        shares["coherence, joint"] = joint_coherence(model, config.n_samples, readers)
    z = {name: latents(model, name, test) for name in model.modalities}
    for name in model.modalities:
        of_train = latents(model, name, train)
        shares[f"latent accuracy, {name}"] = distributed.on_first_process(partial(latent_accuracy, of_train, z[name]))
    folder, pictures, kls = config.out_dir or runs.folder_of(config.model) / "samples", [], {}
    if not model.variational_posterior.has_density:
        print("\nno kl.png: the KLs of an energy-based posterior have no closed form")
    else:
        kls = divergences(model, test.only(model.modalities))
        pictures.append(folder / "kl.png")
        if distributed.rank() == 0:
            plots.boxes(pictures[-1], {name: kl.cpu() for name, kl in kls.items()}, ("latent", "nats"))
    if config.umap and distributed.rank() == 0:
        pictures.append(folder / "umap.png")
        maps.latents(pictures[-1], model, z, "digits", {str(d): d for d in range(10)})
    nats = {name: kl.sum(dim=1).mean().item() for name, kl in kls.items()}
    report(shares, nats, config, len(test))
    print("", *pictures, sep="\n")
    return shares | nats


@torch.no_grad()
def latents(model: MultimodalVAE, name: str, examples: Examples) -> tuple[Tensor, Tensor]:
    """One z of q(z|x) for each example of a modality, and the digits."""
    examples = examples.only((name, "digit"))

    def draw(rows: Tensor) -> dict[str, Tensor]:
        return {"z": model.posterior({name: examples[rows].modalities[name]}).sample()}

    z = distributed.map_rows(len(examples), 500, draw, f"latents of {name}")["z"].to(examples.device)
    return z, examples.modalities["digit"][examples.rows["digit"]]


def cache(config: Config, kind: str, name: str) -> Path | None:
    """Where a classifier of all training images is kept."""
    if config.demo or config.limit is not None or config.max_per_class != PairOptions.max_per_class:
        return None
    return config.data_dir / f"{kind}_digits_of_{name}{'_synthetic' if config.svhn == 'synthetic' else ''}.pt"


def report(shares: dict[str, float], nats: dict[str, float], config: Config, n: int) -> None:
    """Report the shares in % and the KLs in nats, each in a table."""
    data = "demo" if config.demo else config.svhn
    head = f"mnist_svhn ({data} SVHN), {n} test pairs"
    figures = [
        tables.Table("figures", shares, (head, "%"), [(name, f"{100 * x:.2f}") for name, x in shares.items()]),
        tables.Table("nats", nats, (head, "nats"), [(name, f"{x:.2f}") for name, x in nats.items()]),
    ]
    tables.report(config, "mnist_svhn", figures, {"n_examples": n, "svhn": data, "seed": config.seed})


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
