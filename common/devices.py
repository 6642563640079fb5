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
    if cuda and torch.cuda.is_available():
        return torch.device("cuda")
    _quick_products()
    return torch.device("cpu")


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


def _quick_products() -> None:
    """Let oneDNN multiply float32 matrices where it is as exact: on AMD's CPUs it is twice as fast as MKL.

    "medium" permits bfloat16, which oneDNN takes on CPUs with units for it: there torch's default stays.
    """
    x = torch.arange(256.0**2).sin().view(256, 256)
    exact = x.double() @ x.double()
    torch.set_float32_matmul_precision("medium")
    if (x @ x - exact).norm() > 1e-5 * exact.norm():
        torch.set_float32_matmul_precision("highest")
