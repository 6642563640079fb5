"""Models as `train.py --demo` leaves them, and who reads what they generate."""

from common.checkpoints import load_model
from tests.helpers.scripts import run_script

import torch
from torch import Tensor


def trained(script, folder):
    """The best model of a script's demo, trained with its own settings; nothing is trained if the folder has it."""
    run_script(script, ["--demo", "--resume", "--save-dir", str(folder)])
    return load_model(folder)


def nearest(images: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    """The labels (N,) of the known images that are nearest to images (N, ...) in [0, 1]; known: uint8."""
    distances = torch.cdist(images.flatten(1), known.flatten(1).float() / 255)
    return labels[distances.argmin(dim=1)]


def accuracy(found: Tensor, true: Tensor) -> float:
    return (found == true).float().mean().item()
