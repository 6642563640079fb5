"""Log-likelihoods of a model of Omniglot, by importance sampling on the test characters (nats an image).

    python loglike.py trained_models --data-dir data                              a table
    python loglike.py trained_models --data-dir data --k-shot 1 2 5 --json out.json        other shots, and a file

    log p(image)                  all latent variables inferred from the image itself
    log p(image|5 others)         given 5 other images of the same character, whose code is drawn of q(c|D), which is
                                  part of the model; what the image has of its own is inferred from it
    log p(character)/20           of 20 images of a character together, divided by their number: the code is inferred
                                  from some of them, z of each image from itself
    bound                         of log p(all test images)/N and its terms

All but the bound's terms are lower bounds in expectation, which rise with --n-samples. Few effective samples, of the
codes of a set, say that its log-likelihood is higher yet. The bound is the VHE's, whatever the objective in training.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from common import distributed, reports, runs
from common.errors import require
from common.options import LoglikeConfig
from vhe.data import Characters
from vhe.estimators import log_conditional, log_joint
from vhe.grouped import support_sets
from vhe.homoencoder import VHE
from vhe.support_sets import SupportSets
from vhe.trained import codes, device_of, images_of, load_test, load_trained

BATCH_SIZE = 200  # images
OWN = 10  # of the samples of a set of images, those that share a code


@dataclass
class Config(LoglikeConfig):
    limit: int | None = None
    """use the first N test characters"""
    n_samples: int = 100
    """importance samples an image, or a set of images: a tenth as many codes of the set, and ten z of each image"""
    k_shot: tuple[int, ...] | None = None
    """given so many images of the character; default: 1, and as many as in training"""
    set_size: int = 20
    """images of a character whose joint log-likelihood is estimated"""

    def check(self) -> None:
        super().check()
        require(self.k_shot is None or (len(self.k_shot) > 0 and min(self.k_shot) > 0), "--k-shot must be positive")
        require(self.set_size > 0, f"--set-size must be positive, not {self.set_size}")


def main(config: Config) -> dict[str, dict[str, float]]:
    config.check()
    model, trained = load_trained(config)
    characters = load_test(config, trained)
    torch.manual_seed(config.seed)
    distributed.seed_apart()
    estimates = reports.summarise(evaluate(model, characters, config, trained["k_shot"]))
    reports.report(estimates, config, "vhe", len(characters.images))
    return estimates


@torch.no_grad()
def evaluate(model: VHE, characters: Characters, config: Config, k_shot: int) -> dict[str, Tensor]:
    """Every estimate for every image, or set of images: {name: (N,)}, nats.

    Args:
        k_shot: images in a support set, in training.
    """
    images, character, n_samples, n = characters.images, characters.character, config.n_samples, config.set_size
    shots, count = dict.fromkeys(config.k_shot or (1, k_shot)), int(character.bincount().min())
    for name, needed in {"--k-shot": max(shots) + 1, "--set-size": n}.items():
        require(needed <= count, f"{name} needs {needed} images of a character: there are {count}")
    device, generator = device_of(model), Generator().manual_seed(config.seed + distributed.rank())
    own = codes(model)

    def alone(i: Tensor) -> dict[str, Tensor]:
        return {"log p(image)": log_conditional(model, images[i].to(device), None, n_samples)}

    def given_others(i: Tensor) -> dict[str, Tensor]:
        batch = others[i]
        given = dict.fromkeys(own, batch.inputs["c"].to(device))
        return {name: log_conditional(model, batch.target.to(device), given, n_samples)}

    def together(i: Tensor) -> dict[str, Tensor]:
        sets = images_of(images, character, i, n, generator).to(device)
        shared = dict.fromkeys(own, min(k_shot, n))
        joint, ess = log_joint(model, sets, shared, -(-n_samples // OWN), n_own=OWN)
        return {name: joint / n, "effective samples, character": ess}

    def bound(i: Tensor) -> dict[str, Tensor]:
        batch = everything[i]
        inputs, sizes = ({v: x.to(device) for v, x in of.items()} for of in (batch.inputs, batch.sizes))
        value, of_terms = model.bound(inputs, sizes, x=batch.target.to(device))
        return dict(zip(("bound", *terms), (value, *of_terms.values()), strict=True))

    found = distributed.share_out(len(images), BATCH_SIZE, alone, "log p(image)")
    for k in shots:
        others = SupportSets(images, {"c": character}, {"c": k}, (), True, generator)
        name = f"log p(image|{k} other{'s' * (k > 1)})"
        found |= distributed.share_out(len(images), BATCH_SIZE, given_others, name)
    name = f"log p(character)/{n}"
    found |= distributed.share_out(len(characters.names), max(1, BATCH_SIZE // n), together, name, " characters")
    everything = support_sets(characters, model.latents, k_shot, generator=generator)
    terms = [f"bound: log p(image|{', '.join(model.likelihood.given)})", *(f"bound: KL of {v}" for v in model.latents)]
    return found | distributed.share_out(len(images), BATCH_SIZE, bound, "bound")


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
