"""Every pixel of MNIST's images a modality, 784 of them with shared networks (github.com/jgoffinet/poe-vae).

    python pixels.py train --approx-m 1 --data-dir data                      every piece is an option: train --help
    python pixels.py train --demo --epochs 30 --batch-size 25 --lr 2e-3      on built-in digits, in a minute
    python pixels.py sample trained_models --observed 0.1 --data-dir data    images completed from a tenth of the pixels
    python pixels.py loglike trained_models --data-dir data                  log p(image), log p(bottom|top)

A batch: pixel (B, 784, 1) float in [0, 1]. The posterior given any of the pixels is a product of 784 experts, from
one network told where it looks by a learned embedding; or, --fusion set, one posterior of the sum of what it says of
each, as in partial-VAE (Ma et al. 2019, arXiv 1809.11142).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import tyro

from common.errors import require
from common.objectives.registry import objectives_of
from common.training import run_from_command_line
from mnist.parts import commands as parts


@dataclass
class Train(parts.Train):
    __doc__ = parts.Train.__doc__
    fusion: Literal["poe", "set"] = "poe"
    """how the experts are fused"""
    decoder: Literal["mlp", "shared"] = "mlp"
    """mlp: one network gives all pixels; shared: one network gives one pixel, which a learned embedding names"""
    layout: tyro.conf.Suppress[str] = "pixels"

    def objectives(self) -> Sequence[str]:
        return [obj for obj in objectives_of(self.fusion) if obj != "ar"]

    def check(self) -> None:
        require(self.obj != "ar", "--obj ar takes a posterior for each modality in turn: 784 are too many")
        require(self.posterior != "ebm", "--posterior ebm draws proposals of each expert: 784 are too many")
        super().check()


Command = parts.commands(Train)
main = partial(parts.main, name="pixels")

if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__)
