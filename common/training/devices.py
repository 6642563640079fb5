"""Where and how fast: device, precision, compiled networks."""

import ctypes
import os
import shutil
import sys
from typing import TypeVar

import torch
from torch import Tensor, nn

from common import distributed
from common.errors import require

Model = TypeVar("Model", bound=nn.Module)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def select(cuda: bool) -> torch.device:
    """The GPU where one is asked for and there; a warning and the CPU where it is not there."""
    if cuda and not torch.cuda.is_available():
        print("warning: no GPU is available, going on with the CPU", file=sys.stderr)
    if cuda and torch.cuda.is_available():
        if distributed.world() > 1:
            own, n = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            require(own < n, f"--nproc-per-node is to be {n} at most, one process for each GPU here")
            torch.cuda.set_device(own)
        return torch.device("cuda")
    _quick_products()
    _keep_pages()
    return torch.device("cpu")


def prepare(model: Model, device: torch.device, precision: str, compile: bool) -> Model:
    """Move a model to a device, with its networks in a precision ("fp32", "bf16"), compiled if asked.

    Densities, products of experts and sums stay in float32.

    Args:
        model: has `networks()`.

    Raises:
        InputError: there is no C++ compiler to compile with.
    """
    for network in model.networks():
        if precision == "bf16":
            run_in_bf16(network)
        if compile:
            _check_compiler(device)
            network.compile()
    return model.to(device)


def run_in_bf16(network: nn.Module) -> None:
    """Let a network's products and convolutions run in bfloat16, with float32 outputs."""
    forward = network.forward

    def autocast(*inputs: object, **named: object) -> object:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        with torch.autocast(device.type, torch.bfloat16):
            return _in_float32(forward(*inputs, **named))

    network.forward = autocast


def _in_float32(output: object) -> object:
    """An output, a tensor or a tuple, with its floating tensors in float32."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, tuple):
        parts = [_in_float32(x) for x in output]
        return type(output)(*parts) if hasattr(output, "_fields") else tuple(parts)
    return output


def _check_compiler(device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    require(
        device.type != "cpu" or shutil.which(compiler),
        f"--compile needs a C++ compiler, {compiler} is missing: install it or leave out --compile",
    )


def _keep_pages() -> None:
    """Let glibc hold on to freed memory: steps that ask the system for it anew spend a quarter of their time there."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # not of other C libraries
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _quick_products() -> None:
    """Let oneDNN multiply float32 matrices where it is as exact: on AMD's CPUs it is twice as fast as MKL.

    "medium" permits bfloat16, which oneDNN takes on CPUs with units for it: there torch's default stays.
    """
    x = torch.arange(256.0**2).sin().view(256, 256)
    exact = x.double() @ x.double()
    torch.set_float32_matmul_precision("medium")
    if (x @ x - exact).norm() > 1e-5 * exact.norm():
        torch.set_float32_matmul_precision("highest")
