"""The halves of MNIST's images as two modalities, top and bottom (github.com/jgoffinet/poe-vae).

    python halves.py train --data-dir data                                  every piece is an option: train --help
    python halves.py train --demo                                           on built-in digits, in seconds
    python halves.py sample trained_models --observed top --data-dir data   images completed from their tops
    python halves.py loglike trained_models --data-dir data                 log p(image), log p(bottom|top)

A batch: top and bottom, each (B, 392) float in [0, 1]; with --layout vectorised one tensor, halves (B, 2, 392).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from common.models.objectives import objectives_of
from mnist.parts import commands as parts
from training import run_from_command_line
from training.model_options import fusion_option

import tyro


@dataclass
class Train(parts.Train):
    __doc__ = parts.Train.__doc__
    fusion: fusion_option(("poe", "moe", "mopoe", "unstructured")) = "poe"
    layout: Literal["list", "vectorised"] = "list"
    """list: separate networks for top and bottom;
    vectorised: one network for both, told apart by a learned embedding"""
    decoder: tyro.conf.Suppress[str] = "shared"

    def objectives(self) -> Sequence[str]:
        """Return the objectives that this fusion and layout can train, the default first."""
        is_list = self.layout == "list"
        return [obj for obj in objectives_of(self.fusion) if is_list or obj != "elbo-importance"]


DEMO = Train(demo=True, epochs=20)
Command = parts.commands(Train)
main = partial(parts.main, name="halves")

if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__, demo=DEMO)
