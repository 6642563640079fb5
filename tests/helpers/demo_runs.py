"""Short trainings on the built-in data: options, the command that a user types, the texts that samples have."""

import subprocess
import sys

from tests.helpers.scripts import ROOT

OPTIONS = ["--demo", "--epochs", "1", "--annealing-epochs", "1", "--n-latents", "8"]
TINY = ("--epochs", 1, "--annealing-epochs", 1, "--n-latents", 6, "--limit", 40, "--batch-size", 20)


def train_in(folder, save_dir, *options):
    command = [sys.executable, "train.py", *OPTIONS, *options, "--save-dir", str(save_dir)]
    result = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return save_dir


def texts(folder):
    """The lines of the only file of texts in a folder."""
    (path,) = folder.glob("*.txt")
    return path.read_text().split("\n")[:-1]
