"""Where and how fast: device, precision, compiled networks."""

import os
import shutil
import sys

import torch

from common.errors import require
from common.models import MultimodalVAE


def select(cuda: bool) -> torch.device:
    """The GPU where one is asked for and there; a warning and the CPU where it is not there."""
    if cuda and not torch.cuda.is_available():
        print("warning: no GPU is available, going on with the CPU", file=sys.stderr)
    return torch.device("cuda" if cuda and torch.cuda.is_available() else "cpu")


def prepare(model: MultimodalVAE, device: torch.device, precision: str, compile: bool) -> MultimodalVAE:
    """Move the model, choose the precision of its networks ("fp32", "bf16") and compile them if asked."""
    model.bf16 = precision == "bf16"
    if compile:
        compiler = os.environ.get("CXX", "g++")
        require(
            device.type != "cpu" or shutil.which(compiler), f"--compile needs a C++ compiler, {compiler} is missing"
        )
        for network in (*model.encoder.values(), *model.decoder.values()):
            network.compile()
    return model.to(device)
