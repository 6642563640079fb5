"""Estimate a model's log-likelihoods of test characters by importance sampling, in nats per image.

    python loglike.py trained_models --data-dir data                              print a table
    python loglike.py trained_models --data-dir data --k-shot 1 2 5 --json out.json        other shots; write a file too

    log p(image)                  all latent variables are inferred from the image itself
    log p(image|5 others)         given 5 other images of the same character: its code is drawn from q(c|D), which is
                                  part of the model, and z is inferred from the image itself
    log p(character)/20           20 images of a character together, divided by their number: the code is inferred from
                                  some of them, the z of each image from the image itself
    bound                         the lower bound of log p(all test images)/N, and its terms; the KL of c is that of a
                                  character, which the bound divides by the number of its images. A factorial model's
                                  images are those in all styles, as in training

The estimates are lower bounds in expectation, except the bound's terms, and rise with --n-samples. With few effective
samples of a set's code the estimate is too low. The bound is the VHE's for any training objective.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

from common.data import Batch, Examples
from common.errors import require, require_positive
from common.execution import processes
from reports import metrics, tables
from reports.options import LoglikeConfig
from training import run_from_command_line
from vhe.character_sets import images_of, support_sets
from vhe.data import Characters
from vhe.framework import VHE, SupportSets
from vhe.framework.estimators import log_conditional, log_joint
from vhe.model import shared_latents
from vhe.trained_model import load_test, load_trained

import torch
import tyro
from torch import Generator, Tensor

BATCH_SIZE = 200  # images
SAMPLES_PER_CODE = 10  # samples of the z of each image for each sample of the code of its set


@dataclass
class Config(LoglikeConfig):
    limit: int | None = None
    """use only the first N test characters"""
    n_samples: Annotated[int, tyro.conf.arg(aliases=["--iwae-samples"])] = 100
    """importance samples for each image.
    For a set of images N/10 samples of its code, rounded up, each with 10 samples of every z"""
    tolerance: tyro.conf.Suppress[float | None] = None  # all samples are drawn here
    k_shot: tuple[int, ...] | None = None
    """numbers of other images of the character that are given. (): 1, and the number in training"""
    set_size: int = 20
    """number of images of a character for their joint log-likelihood"""

    def check(self) -> None:
        super().check()
        given = " ".join(map(str, self.k_shot or ())) or "nothing"
        require(self.k_shot is None or min(self.k_shot, default=0) > 0, f"--k-shot must be positive, not {given}")
        require_positive(self, "set_size")


def main(config: Config) -> dict[str, dict[str, float]]:
    """Print the table, write the file that --json names, and return the estimates: {name: {"mean", "stderr"}}, nats."""
    config.check()
    model, trained = load_trained(config)
    characters = load_test(config, trained)
    torch.manual_seed(config.seed)
    values = evaluate(model, characters, config, trained["k_shot"])
    # the images of a character are alike: errors count characters
    return tables.report_estimates(values, config, "vhe", len(characters.images), groups=characters.character)


@torch.no_grad()
def evaluate(model: VHE, characters: Characters, config: Config, k_shot: int) -> dict[str, Tensor]:
    """Estimate all log-likelihoods of every image, or set of images: {name: (N,)}, nats.

    Args:
        k_shot: the number of images in a support set during training.
    """
    images, character, n_samples, n = characters.images, characters.character, config.n_samples, config.set_size
    shots, count = dict.fromkeys(config.k_shot or (1, k_shot)), int(character.bincount().min())
    for name, needed in {"--k-shot": max(shots) + 1, "--set-size": n}.items():
        require(needed <= count, f"{name} needs {needed} images of a character, there are {count}: lower it")
    device, generator = model.device, Generator().manual_seed(config.seed + processes.rank())
    latents = shared_latents(model)

    def log_p_given_others(i: Tensor) -> dict[str, Tensor]:
        batch = others[i]
        given = dict.fromkeys(latents, batch.inputs["c"].to(device))
        return {name: log_conditional(model, batch.target.to(device), given, n_samples)}

    def log_p_set(i: Tensor) -> dict[str, Tensor]:
        sets = images_of(images, character, i, n, generator).to(device)
        shared = dict.fromkeys(latents, min(k_shot, n))
        joint = log_joint(model, sets, shared, -(-n_samples // SAMPLES_PER_CODE), n_inner=SAMPLES_PER_CODE)
        return joint.named(name) | {name: joint.value / n}

    def bound(i: Tensor) -> dict[str, Tensor]:
        batch = all_examples[i]
        inputs, sizes = ({v: x.to(device) for v, x in tensors.items()} for tensors in (batch.inputs, batch.sizes))
        value, terms = model.bound(inputs, sizes, x=batch.target.to(device))
        return dict(zip(("bound", *term_names), (value, *terms.values()), strict=True))

    of_images = [partial(log_p_image, n_samples=n_samples)]
    estimates = metrics.evaluate_examples(model, Examples({"image": images}), of_images, BATCH_SIZE)
    for k in shots:
        others = SupportSets(images, {"c": character}, {"c": k}, (), True, generator)
        name = f"log p(image|{k} other{'s' * (k > 1)})"
        estimates |= processes.map_rows(len(images), BATCH_SIZE, log_p_given_others, name)
    name = f"log p(character)/{n}"
    estimates |= processes.map_rows(len(characters.names), max(1, BATCH_SIZE // n), log_p_set, name, " characters")
    all_examples = support_sets(characters, model.latents, k_shot, generator=generator)
    term_names = [f"bound: log p(image|{', '.join(model.likelihood.given)})"]
    term_names += [f"bound: KL of {v}" for v in model.latents]
    return estimates | processes.map_rows(len(images), BATCH_SIZE, bound, "bound")


def log_p_image(model: VHE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """The estimate of log p(image), {name: (B,)}, nats."""
    return {"log p(image)": log_conditional(model, batch.modalities["image"], None, n_samples)}


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
