"""Trainings that test_processes.py start, `torchrun -m tests.helpers.distributed_trainings OUT`."""

import sys
from pathlib import Path

import celeba.train
import cub.train
import mnist.train
import polymnist.train
import vhe.train
from common.execution import processes
from tests.helpers.scripts import call

MNIST = ("--demo", "--limit", 120, "--n-latents", 8, "--batch-size", 25, "--annealing-epochs", 1)
MNIST += ("--lr-schedule", "constant")  # so that a run can be resumed with more epochs
EPOCHS = 10  # of mnist
SMALL = ("--demo", "--limit", 12, "--batch-size", 4, "--epochs", 1)
# folders with examples, objectives or batch norm of their own, and a newer model that draws components
TRAININGS = {
    "mnist": (mnist.train, *MNIST, "--epochs", EPOCHS),
    "cub": (cub.train, *SMALL, "--K", 2),
    "vhe": (vhe.train, *SMALL),
    "celeba": (celeba.train, *SMALL),
    "polymnist": (polymnist.train, *SMALL, "--model", "mopoe-published", "--n-latents", 4, "--missing", 0.3),
}

if __name__ == "__main__":
    processes.start()
    for folder, (script, *options) in TRAININGS.items():
        call(script, *options, "--save-dir", Path(sys.argv[1]) / folder)
    processes.end()
