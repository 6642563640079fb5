"""The Variational Homoencoder on Omniglot: characters from a few examples (Hewitt et al. 2018, arXiv 1807.08919).

    python train.py --data-dir data                            independent pixels
    python train.py --decoder pixelcnn --pre-trained trained_models --annealing-epochs 0 --epochs 20 --data-dir data \
        --save-dir of_pixelcnn                                 the paper's decoder, from what those codes have learned
    python train.py --model hierarchical --data-dir data       alphabets, characters, images
    python train.py --model factorial --data-dir data          characters in styles of drawing
    python train.py --demo --epochs 20                         made-up characters, in minutes

The bound is that of log p(all images)/N: log p(x|c, z) less the KL of the character's code c, inferred from a support
set of its images, divided by the number of its images, less the KL of the image's own z.
A batch: target (B, 1, 28, 28) float, 0 or 1; support sets of c (B, k, 1, 28, 28), of z the target itself, of an
alphabet's a and a style's s as of c.
"""

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Literal

import torch
import tyro

from common import devices, options, runs
from common.errors import require
from common.training import fit
from vhe.data import hold_out, load
from vhe.grouped import support_sets
from vhe.model import LATENTS, build
from vhe.objectives import HomoencoderObjective
from vhe.sample import draw


@dataclass
class Config(options.RunConfig):
    model: Literal["character", "hierarchical", "factorial"] = "character"
    """character: a code c of each character; hierarchical: also a of each alphabet, which c depends on; factorial: also
    s of the style, in five of which every image is drawn"""
    decoder: Literal["deconv", "pixelcnn"] = "deconv"
    """pixels that are independent given the codes, or a gated PixelCNN (paper), three times the work. A PixelCNN alone
    learns to do without codes: let it start from a --pre-trained deconv run, of which it takes up all but the pixels"""
    objective: Literal["vhe", "resample", "rescale", "statistician"] = "vhe"
    """vhe: images drawn apart from their support sets (resample), KLs divided by the groups' sizes (rescale); the
    Neural Statistician does neither"""
    k_shot: int = 5
    """images in a support set (paper: 5)"""
    rotations: bool = False
    """characters turned by 90, 180 and 270 degrees are characters of their own"""
    test_alphabets: list[str] = field(default_factory=list)
    """these alphabets of either set are for testing and all others for training; default: the evaluation set's"""
    n_latents: Annotated[int, tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])] = 64
    """dimensions of a character's code (ours)"""
    batch_size: int = 100
    """images a step, each with its support sets (ours)"""
    epochs: int = 40
    """passes over the images (ours)"""
    annealing_epochs: int = 1
    """epochs over which the weight of the KLs rises (ours)"""
    lr: float = 1e-3
    """learning rate of Adam (ours; 2e-3 can diverge)"""
    valid: int | None = None
    """hold out the last N alphabets and select the best model on them; default: the last sixth (5 of Omniglot's 30).
    0: none, the last model counts as the best"""
    limit: int | None = None
    """use the first N characters (before --valid takes its part)"""
    paired_fraction: float = 1.0
    """1: there is one modality"""

    def check(self) -> None:
        super().check()
        require(self.k_shot > 0, f"--k-shot must be positive, not {self.k_shot}")
        compared = f"--objective {self.objective} is compared on --model character: {self.model} has the vhe's"
        require(self.objective == "vhe" or self.model == "character", compared)
        require(self.paired_fraction == 1, "images are of one modality: leave --paired-fraction at 1")


def main(config: Config) -> None:
    config.check()
    if config.dry_run:
        print(json.dumps(options.as_json(config), indent=2))
        return
    torch.manual_seed(config.seed)
    characters = load("train", config.data_dir, config.demo, config.download, config.limit, config.test_alphabets)
    train, valid = hold_out(characters, config.valid)
    fewest = int(characters.character.bincount().min())
    require(config.k_shot <= fewest, f"--k-shot {config.k_shot}: a character has no more than {fewest} images")
    examples = [x and support_sets(x, LATENTS[config.model], config.k_shot, config.rotations) for x in (train, valid)]
    model = devices.prepare(build(config), devices.select(config.cuda), config.precision, config.compile)
    run = runs.Run("vhe", config)
    pictures = partial(draw, model, valid or train)
    fit(model, HomoencoderObjective(model, config.objective), *examples, config, run, pictures)


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
