"""Trainings that tests/common/test_distributed.py starts by torchrun: `-m tests.helpers.distributed_trainings OUT`."""

import sys
from pathlib import Path

import celeba.train
import cub.train
import polymnist.train
import vhe.train
from common import distributed
from tests.helpers.scripts import call

SMALL = ("--demo", "--limit", 4, "--batch-size", 4, "--epochs", 1)
# folders with examples, objectives or batch norm of their own, and a newer model with absent modalities
TRAININGS = {
    "cub": (cub.train, "--K", 2),
    "vhe": (vhe.train,),
    "celeba": (celeba.train, "--sync-batch-norm"),
    "polymnist": (polymnist.train, "--model", "cmvae", "--n-latents", 4, "--missing", 0.3),
}

if __name__ == "__main__":
    distributed.start()
    for folder, (script, *options) in TRAININGS.items():
        call(script, *SMALL, *options, "--save-dir", Path(sys.argv[1]) / folder)
    distributed.end()
