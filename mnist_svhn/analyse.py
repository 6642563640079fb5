"""Coherence of a model of MNIST-SVHN: does what it generates show the same digit (Shi et al. 2019, section 4.1)?

    python analyse.py trained_models --data-dir data                     a table
    python analyse.py trained_models --data-dir data --svhn synthetic    where it was trained on that
    python analyse.py trained_models --json out.json                     and a file

Cross coherence: how often what is decoded of one modality, given the other, shows that one's digit; joint coherence:
how often both decodings of a draw of the prior show the same one. Digits are told by networks that are trained on the
training images, once for each data-dir, and whose accuracy on test images is printed too. Latent accuracy: of a linear
classifier of one sampled z an image.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from common import devices, runs
from common.checkpoints import load as load_checkpoint
from common.checkpoints import load_model, save, write_atomically
from common.data import Examples
from common.metrics import cross_coherence, joint_coherence, latent_accuracy
from common.models import MultimodalVAE
from mnist_svhn.data import PairOptions, load

STEPS = 3000  # of training a network that tells digits
BATCH_SIZE = 128
CHANNELS = {"mnist": 1, "svhn": 3}
FLAT = {"mnist": 320, "svhn": 500}


@dataclass
class Config(PairOptions, runs.ModelConfig):
    n_samples: int = 10_000
    """draws of the prior, for joint coherence (paper: 10,000)"""
    json: Path | None = None
    """write the figures to this file too"""


def main(config: Config) -> dict[str, float]:
    config.check()
    device = devices.select(config.cuda)
    model = load_model(config.model, "mnist_svhn").to(device)
    once = replace(config, matchings=1)
    train, test = (
        load(split, config.data_dir, once, config.demo, limit=config.limit).to(device) for split in ("train", "test")
    )
    torch.manual_seed(config.seed)
    classifiers = {name: classifier(name, train, config).to(device) for name in model.modalities}
    figures = {f"classifier, {name}": accuracy(classifiers[name], name, test) for name in model.modalities}
    figures |= {
        f"coherence, {source} -> {target}": share
        for (source, target), share in cross_coherence(model, test, "digit", classifiers).items()
    }
    if len(model.modalities) > 1:
        figures["coherence, joint"] = joint_coherence(model, config.n_samples, classifiers)
    for name in model.modalities:
        figures[f"latent accuracy, {name}"] = latent_accuracy(*(latents(model, name, part) for part in (train, test)))
    report(figures, config, len(test))
    return figures


@torch.no_grad()
def latents(model: MultimodalVAE, name: str, examples: Examples) -> tuple[Tensor, Tensor]:
    """One z of q(z|x) for each example of a modality, and the digits."""
    examples = examples.only((name, "digit"))
    z = [model.posterior({name: batch.modalities[name]}).sample() for batch in examples.batches(500)]
    return torch.cat(z), examples.modalities["digit"][examples.rows["digit"]]


def classifier(name: str, train: Examples, config: Config) -> nn.Module:
    """The network that tells the digits of a modality: that of the data-dir, trained where there is none yet."""
    path = config.data_dir / f"digits_of_{name}{'_synthetic' if config.svhn == 'synthetic' else ''}.pt"
    cached = not config.demo and config.limit is None
    network = build_classifier(name)
    if cached and path.exists():
        network.load_state_dict(load_checkpoint(path))
        return network.eval()
    network.to(train.device)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    for _ in tqdm(range(STEPS), desc=f"classifier of {name}", unit=" steps", disable=None):
        batch = train[torch.randint(len(train), (BATCH_SIZE,)).to(train.device)].modalities
        optimizer.zero_grad()
        cross_entropy(network(batch[name]), batch["digit"]).backward()
        optimizer.step()
    if cached:
        save(path, network.cpu().state_dict())
    return network.eval()


def build_classifier(name: str) -> nn.Sequential:
    """Images in [0, 1] -> logits of the ten digits (layers of the authors' analysis)."""
    return nn.Sequential(
        *(nn.Conv2d(CHANNELS[name], 10, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(FLAT[name], 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10)),
    )


@torch.no_grad()
def accuracy(network: nn.Module, name: str, test: Examples) -> float:
    right = [network(b.modalities[name]).argmax(dim=1) == b.modalities["digit"] for b in test.batches(500)]
    return torch.cat(right).double().mean().item()


def report(figures: dict[str, float], config: Config, n: int) -> None:
    """Print a table, in Markdown, and write it to the file that --json names."""
    print(f"\n| mnist_svhn ({'demo' if config.demo else config.svhn} SVHN), {n} test pairs | % |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {100 * value:.2f} |")
    if config.json:
        content = {"experiment": "mnist_svhn", "checkpoint": str(config.model), "split": "test", "n_examples": n}
        content |= {"svhn": "demo" if config.demo else config.svhn, "seed": config.seed, "figures": figures}
        write_atomically(config.json, json.dumps(content, indent=2).encode())


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
