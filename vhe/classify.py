"""Classify characters by a few examples of each: the class whose examples make an image likeliest.

    python classify.py trained_models --data-dir data                           20-way, 5-shot (paper)
    python classify.py trained_models --data-dir data --k-shot 1 --json out.json         one-shot, and a file

An episode draws classes of all test characters, whatever their alphabets, and of each some examples D and other images
x to classify, by the largest of the estimates of log p(x|D). The interval is that of so many images.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from common import distributed, runs
from common.checkpoints import write_atomically
from common.errors import require
from common.options import ModelConfig, option
from vhe.data import Characters
from vhe.estimators import log_conditionals
from vhe.homoencoder import VHE
from vhe.trained import codes, device_of, images_of, load_test, load_trained


@dataclass
class Config(ModelConfig):
    limit: int | None = None
    """use the first N test characters"""
    n_way: int = 20
    """classes (paper: 20)"""
    k_shot: int = 5
    """examples of each class (paper: 5, 1)"""
    episodes: int = 100
    """draws of classes, examples and images"""
    n_queries: int = 1
    """images of each class to classify"""
    n_samples: int = 20
    """importance samples of each image under each class; the accuracy rises with them"""
    json: Path | None = None
    """write the accuracy to this file too"""

    def check(self) -> None:
        super().check()
        for name, least in {"n_way": 2, "k_shot": 1, "episodes": 1, "n_queries": 1}.items():
            require(getattr(self, name) >= least, f"{option(name)} must be at least {least}, not {getattr(self, name)}")


def main(config: Config) -> dict[str, float]:
    """
    Returns:
        the accuracy's "mean" and its interval from "low" to "high", in [0, 1].
    """
    config.check()
    model, trained = load_trained(config)
    characters = load_test(config, trained)
    torch.manual_seed(config.seed)
    distributed.seed_apart()
    shares = accuracies(model, characters, config)
    found = interval(shares.mean().item(), len(shares) * config.n_way * config.n_queries)
    report(found, config, len(characters.names))
    return found


@torch.no_grad()
def accuracies(model: VHE, characters: Characters, config: Config) -> Tensor:
    """The share of images that are classified rightly in each episode, (E,).

    Of several processes each draws all episodes, which are those of one process, and does its part of them.
    """
    n, n_classes = config.k_shot + config.n_queries, len(characters.names)
    require(config.n_way <= n_classes, f"--n-way {config.n_way} needs as many characters: there are {n_classes}")
    count = int(characters.character.bincount().min())
    require(n <= count, f"--k-shot and --n-queries need {n} images of a character: there are {count}")
    generator = torch.Generator().manual_seed(config.seed)
    own = range(config.episodes)[distributed.part()]
    shares = torch.zeros(config.episodes).double()
    for episode in tqdm(range(config.episodes), unit=" episodes", disable=distributed.quiet()):
        classes = torch.randperm(n_classes, generator=generator)[: config.n_way]
        images = images_of(characters.images, characters.character, classes, n, generator).to(device_of(model))
        if episode not in own:
            continue
        given, x = images[:, : config.k_shot], images[:, config.k_shot :].flatten(0, 1)  # (N, k, ...), (N * Q, ...)
        log_p = log_conditionals(model, x, dict.fromkeys(codes(model), given), config.n_samples)  # (N * Q, N)
        right = torch.arange(config.n_way, device=x.device).repeat_interleave(config.n_queries)
        shares[episode] = (log_p.argmax(dim=1) == right).double().mean()
    return distributed.summed(shares)


def interval(p: float, n: int) -> dict[str, float]:
    """A share p of n images, and its 95 % confidence interval (Wilson 1927)."""
    z2 = 1.96**2 / n
    middle, half = (p + z2 / 2) / (1 + z2), (z2 * (p * (1 - p) + z2 / 4)) ** 0.5 / (1 + z2)
    return {"mean": p, "low": middle - half, "high": middle + half}


def report(found: dict[str, float], config: Config, n_classes: int) -> None:
    """Print a table, in Markdown, and write the accuracy to the file that --json names."""
    percent = {name: f"{100 * x:.1f}" for name, x in found.items()}
    print(f"\n| vhe, {n_classes} test characters, {config.n_samples} samples | accuracy, % | 95 % interval |")
    print("|---|---|---|")
    name = f"{config.n_way}-way {config.k_shot}-shot, {config.episodes} episodes"
    print(f"| {name} | {percent['mean']} | {percent['low']} to {percent['high']} |")
    if config.json and distributed.rank() == 0:
        chosen = ("n_way", "k_shot", "episodes", "n_queries", "n_samples", "seed", "demo")
        content = {"experiment": "vhe", "checkpoint": str(config.model), "split": "test", "n_classes": n_classes}
        content |= {name: getattr(config, name) for name in chosen} | {"accuracy": found}
        write_atomically(config.json, json.dumps(content, indent=2).encode())


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
