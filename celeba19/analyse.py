"""Coherence of a model of CelebA with 19 modalities: do its faces and latents have the attributes they were given?

    python analyse.py trained_models --data-dir data     tables, one of them by attribute, and pictures
    python analyse.py trained_models --demo              drawn faces, whose attributes are true
    python analyse.py trained_models --json out.json     and a file

What is measured and drawn: `python ../celeba/analyse.py --help`; "attrs" are all 18. Given alone, an attribute's 17
others are left open.
"""

from functools import partial

from celeba import analyse as celeba
from celeba.analyse import Config
from celeba.attributes import ATTRIBUTES
from celeba19.data import load
from reports.analysis import analyse
from training import run_from_command_line

import torch

DATA = celeba.DATA._replace(
    name="celeba19",
    load=load,
    labels=lambda config, split, faces: torch.stack([faces.modalities[name] for name in ATTRIBUTES], dim=1),
    sources=lambda model: {"image": ("image",), "attrs": ATTRIBUTES},
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
