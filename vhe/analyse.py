"""Classify characters given a few examples of each: an image goes to the class whose examples make it most likely.

    python analyse.py trained_models --data-dir data                           20-way, 5-shot
    python analyse.py trained_models --data-dir data --k-shot 1 --json out.json         one-shot; write a file too
    python analyse.py trained_models --data-dir data --episodes 100 --n-samples 20      closer figures

An episode draws classes from all test characters, of any alphabet, and for each class some examples D and other images
x. An image is assigned to the class with the largest estimate of log p(x|D). The table shows the accuracy with its 95 %
confidence interval for the number of images classified.

On one idle core of an AMD EPYC the defaults take 8 seconds with independent pixels, 50 with a PixelCNN; --episodes 100
--n-samples 20 take 6 and 33 minutes.
"""

from dataclasses import dataclass

from common.errors import option, require
from common.execution import processes
from common.progress import progress_bar
from reports import tables
from reports.options import ScoresConfig
from training import run_from_command_line
from vhe.character_sets import images_of
from vhe.data import Characters
from vhe.framework import VHE
from vhe.framework.estimators import log_conditionals
from vhe.model import shared_latents
from vhe.trained_model import load_test, load_trained

import torch
from torch import Tensor


@dataclass
class Config(ScoresConfig):
    limit: int | None = None
    """use only the first N test characters"""
    n_way: int = 20
    """number of classes, as in the paper"""
    k_shot: int = 5
    """examples of each class, as in the paper, which also has 1"""
    episodes: int = 10
    """number of draws of classes, examples and images; 100 narrow the interval to a third, and take ten times longer"""
    n_queries: int = 1
    """images to classify in each class"""
    n_samples: int = 5
    """importance samples for each image and class; 20 raise the accuracy a little, and take four times longer"""

    def check(self) -> None:
        super().check()
        for name, least in {"n_way": 2, "k_shot": 1, "episodes": 1, "n_queries": 1}.items():
            require(getattr(self, name) >= least, f"{option(name)} must be at least {least}, not {getattr(self, name)}")


def main(config: Config) -> dict[str, float]:
    """Print and return the accuracy, in [0, 1]: "mean" and "stderr" over episodes, "low" and "high" of its interval."""
    config.check()
    model, trained = load_trained(config)
    characters = load_test(config, trained)
    torch.manual_seed(config.seed)
    processes.seed_each_process()
    shares = accuracies(model, characters, config)
    (accuracy,) = tables.summarise({"accuracy": shares}).values()
    accuracy |= interval(accuracy["mean"], len(shares) * config.n_way * config.n_queries)
    report(accuracy, config, len(characters.names))
    return accuracy


@torch.no_grad()
def accuracies(model: VHE, characters: Characters, config: Config) -> Tensor:
    """Return the share of images that are classified correctly in each episode, (E,).

    Every process draws all episodes, so that they do not depend on the number of processes, and evaluates its share.
    """
    n, n_classes = config.k_shot + config.n_queries, len(characters.names)
    require(config.n_way <= n_classes, f"--n-way {config.n_way}: there are {n_classes} characters, give fewer classes")
    count = int(characters.character.bincount().min())
    require(n <= count, f"--k-shot and --n-queries need {n} images of a character, there are {count}: lower one")
    generator = torch.Generator().manual_seed(config.seed)
    own_episodes = range(config.episodes)[processes.local_rows()]
    shares = torch.zeros(config.episodes).double()
    for episode in progress_bar(range(config.episodes), desc="few-shot classification", unit=" episodes"):
        classes = torch.randperm(n_classes, generator=generator)[: config.n_way]
        images = images_of(characters.images, characters.character, classes, n, generator).to(model.device)
        if episode not in own_episodes:
            continue
        given, x = images[:, : config.k_shot], images[:, config.k_shot :].flatten(0, 1)  # (N, k, ...), (N * Q, ...)
        log_p = log_conditionals(model, x, dict.fromkeys(shared_latents(model), given), config.n_samples)  # (N * Q, N)
        classes_of_x = torch.arange(config.n_way, device=x.device).repeat_interleave(config.n_queries)
        shares[episode] = (log_p.argmax(dim=1) == classes_of_x).double().mean()
    return processes.sum_over_processes(shares)


def interval(p: float, n: int) -> dict[str, float]:
    """The 95 % confidence interval "low" to "high" of a share p of n images (Wilson 1927)."""
    z2 = 1.96**2 / n
    middle, half = (p + z2 / 2) / (1 + z2), (z2 * (p * (1 - p) + z2 / 4)) ** 0.5 / (1 + z2)
    return {"low": middle - half, "high": middle + half}


def report(accuracy: dict[str, float], config: Config, n_classes: int) -> None:
    """Report the accuracy and its interval, in a table."""
    cells = {key: tables.percent(x) for key, x in accuracy.items()}
    title, about = tables.data_scored(config, "vhe", None, n_classes, "test character")
    head = (f"{title}, {tables.count(config.n_samples, 'sample')}", "accuracy, %", "95 % interval")
    name = f"{config.n_way}-way {config.k_shot}-shot, {tables.count(config.episodes, 'episode')}"
    row = (name, cells["mean"], f"{cells['low']} to {cells['high']}")
    table = tables.Table("estimates", {"accuracy": accuracy}, head, [row])
    chosen = ("n_way", "k_shot", "episodes", "n_queries", "n_samples", "seed")
    settings = {"n_classes": n_classes} | {name: getattr(config, name) for name in chosen}
    tables.report(config, "vhe", [table], settings, about)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
