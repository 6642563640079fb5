"""The Variational Homoencoder on Omniglot: characters from a few examples (Hewitt et al. 2018, arXiv 1807.08919).

    python train.py --data-dir data                            pixels independent given the codes
    python train.py --decoder pixelcnn --pre-trained trained_models --annealing-epochs 0 --save-dir of_pixelcnn
                                                               the paper's decoder, from the codes of that run
    python train.py --model hierarchical --data-dir data       alphabets, characters and images
    python train.py --model factorial --data-dir data          characters in styles of drawing
    python train.py --demo                                     built-in characters, in minutes

The bound of log p(all images)/N has, for each image x, the term log p(x|c, z). From it the KL of the character's code c
is subtracted, divided by the number of the character's images, and the KL of the image's own z. The encoder of c sees a
support set of images of the character.
A batch: target (B, 1, 28, 28) float, 0 or 1; support sets (B, k, 1, 28, 28) of c, and of an alphabet's a or a style's s
if the model has them; the support set of z is the target itself, (B, 1, 1, 28, 28).
"""

from dataclasses import dataclass
from typing import Literal

from common.errors import require, require_positive
from common.objectives import Objective
from training import Experiment, run, run_from_command_line
from training.options import LatentsOption, RunConfig, share
from vhe.character_sets import support_sets
from vhe.data import Characters, hold_out, load
from vhe.framework import VHE, SupportSets
from vhe.model import LATENTS, build
from vhe.objectives import HomoencoderObjective
from vhe.sample import draw

import tyro


@dataclass
class Config(RunConfig):
    """The defaults that no docstring explains are our choice."""

    model: Literal["character", "hierarchical", "factorial"] = "character"
    """character: each character has a code c; hierarchical: each alphabet also has a code a, on which c depends;
    factorial: each image is drawn in five styles, which have codes s"""
    decoder: Literal["deconv", "pixelcnn"] = "deconv"
    """deconv: pixels are independent given the codes;
    pixelcnn: a gated PixelCNN, as in the paper, at three times the cost. From scratch it learns to ignore the codes:
    start it from a deconv run with --pre-trained, which takes over all weights but those of the pixel network"""
    paired_fraction: tyro.conf.Suppress[float] = 1.0
    settings: tyro.conf.Suppress[str] = "recommended"  # no paper has any
    objective: Literal["vhe", "resample", "rescale", "statistician"] = "vhe"
    """vhe: draw images independently of their support sets (resample) and divide KLs by the groups' sizes (rescale);
    resample, rescale: only one of the two; statistician: neither, as the Neural Statistician"""
    k_shot: int = 5
    """images in a support set, as in the paper"""
    rotations: bool = True
    """add the characters rotated by 90, 180 and 270 degrees as further characters"""
    test_alphabets: tuple[str, ...] = ()
    """test on these alphabets, of either set, and train on all others. (): the alphabets of the evaluation set"""
    n_latents: LatentsOption = 64
    """dimensions of a character's code c"""
    batch_size: int = 100
    """images in a batch, each with its support sets"""
    epochs: int = 40
    lr: float = 1e-3
    """learning rate; 2e-3 can diverge"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: 1/40 of --epochs"""
    valid: int | None = None
    """hold out the last N alphabets and select the best model on them.
    0 holds out none, and the last model counts as the best. None: the last sixth, 5 of Omniglot's 30"""
    limit: int | None = None
    """use only the first N characters of each split"""

    def __post_init__(self) -> None:
        self.fill(annealing_epochs=share(1 / 40, self.epochs))
        super().__post_init__()

    def check(self) -> None:
        super().check()
        require_positive(self, "k_shot")
        require(
            self.objective == "vhe" or self.model == "character",
            f"--objective {self.objective} needs --model character (got --model {self.model})",
        )


DEMO = Config(demo=True, epochs=6, rotations=False)


def objective(config: Config, model: VHE) -> Objective:
    """The objective that --objective names."""
    return HomoencoderObjective(model, config.objective)


def load_train(config: Config) -> tuple[Characters, Characters | None]:
    """Load characters to train on, and those of the last alphabets to validate on."""
    characters = load("train", config, config.test_alphabets)
    n_images = int(characters.character.bincount().min())
    require(config.k_shot <= n_images, f"--k-shot {config.k_shot} is too large: a character has only {n_images} images")
    return hold_out(characters, config.valid)


def examples(config: Config, characters: Characters, model: VHE) -> SupportSets:
    """Each image with its support sets."""
    return support_sets(characters, LATENTS[config.model], config.k_shot, config.rotations)


def experiment() -> Experiment:
    """Omniglot's characters."""
    return Experiment("vhe", load, build, objective, draw, load_train, examples)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, demo=DEMO)
