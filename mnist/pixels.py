"""Each of the 784 pixels of MNIST's images as a modality, with shared networks (github.com/jgoffinet/poe-vae).

    python pixels.py train --approx-m 1 --data-dir data                      every piece is an option: train --help
    python pixels.py train --demo                                            on built-in digits, in a minute
    python pixels.py sample trained_models --observed 0.1 --data-dir data    images completed from a tenth of the pixels
    python pixels.py loglike trained_models --data-dir data                  log p(image), log p(bottom|top)

A batch: pixel (B, 784, 1) float in [0, 1]. The posterior given some pixels is the product of their experts; one
network computes all experts and knows the pixel's place by a learned embedding. With --fusion set the network's outputs
are summed over the pixels, and one posterior is computed from the sum, as in partial-VAE (Ma et al. 2019, arXiv
1809.11142). With --fusion unstructured, the baseline, one network sees all pixels, 0 where missing, and which are
there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from common.errors import require
from common.models.objectives import objectives_of
from mnist.parts import commands as parts
from training import run_from_command_line
from training.model_options import fusion_option

import tyro


@dataclass
class Train(parts.Train):
    __doc__ = parts.Train.__doc__
    fusion: fusion_option(("poe", "set", "unstructured")) = "poe"
    decoder: Literal["mlp", "shared"] = "mlp"
    """mlp: one network gives all pixels; shared: one network gives one pixel at a time, named by a learned embedding"""
    layout: tyro.conf.Suppress[str] = "pixels"

    def objectives(self) -> Sequence[str]:
        """Return the objectives that this fusion can train, the default first."""
        return [obj for obj in objectives_of(self.fusion) if obj != "ar"]

    def check(self) -> None:
        """Raise InputError for options that exclude each other."""
        require(self.obj != "ar", "--obj ar needs one posterior per pixel, in turn: 784 are too many, give another")
        require(
            self.posterior != "ebm",
            "--posterior ebm draws proposals from each expert: 784 are too many, choose another",
        )
        super().check()


DEMO = Train(demo=True, epochs=30, batch_size=25, lr=2e-3)
Command = parts.commands(Train)
main = partial(parts.main, name="pixels")

if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__, demo=DEMO)
