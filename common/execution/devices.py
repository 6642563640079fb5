"""Device and precision."""

import ctypes
import os
import sys
from typing import TypeVar

from common.errors import require
from common.execution import processes

import torch
from joblib import cpu_count
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def select(cuda: bool) -> torch.device:
    """The GPU if it is asked for and available, otherwise the CPU; warns if the GPU is not available."""
    if cuda and not torch.cuda.is_available() and processes.rank() == 0:
        print("warning: no GPU is available, using the CPU", file=sys.stderr)
    if cuda and torch.cuda.is_available():
        if processes.world_size() > 1:
            local_rank, n_gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            require(local_rank < n_gpus, f"--nproc-per-node must be at most {n_gpus}, one process for each GPU here")
            torch.cuda.set_device(local_rank)
        return torch.device("cuda")
    torch.set_num_threads(min(torch.get_num_threads(), cpu_count()))  # OpenMP does not see the limits of containers
    torch.set_flush_denormal(True)  # Intel's CPUs take a hundred times as long for numbers below 1e-38
    _quick_products()
    _keep_pages()
    return torch.device("cpu")


def prepare(model: Model, device: torch.device, precision: str) -> Model:
    """Move a model to a device, and set its networks' precision.

    Densities, products of experts and sums stay in float32.

    Args:
        model: must have `networks()`.
        precision: "fp32" or "bf16".
    """
    for network in model.networks():
        if precision == "bf16":
            run_in_bf16(network)
    return model.to(device)


def run_in_bf16(network: nn.Module) -> None:
    """Make a network compute its matrix products and convolutions in bfloat16, with float32 outputs."""
    forward = network.forward

    def autocast(*inputs: object, **named: object) -> object:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        with torch.autocast(device.type, torch.bfloat16):
            return _in_float32(forward(*inputs, **named))

    network.forward = autocast


def _in_float32(output: object) -> object:
    """A tensor, or a (named, nested) tuple of tensors, with floating-point tensors in float32."""
    if isinstance(output, Tensor):
        return output.float() if output.is_floating_point() else output
    if isinstance(output, tuple):
        tensors = [_in_float32(x) for x in output]
        return type(output)(*tensors) if hasattr(output, "_fields") else tuple(tensors)
    return output


def _keep_pages() -> None:
    """Make glibc keep freed memory: asking the system for it again takes a quarter of a step's time."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # other C libraries lack it
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def _quick_products() -> None:
    """Multiply float32 matrices by oneDNN if it is exact: on AMD's CPUs it is twice as fast as MKL.

    "medium" selects oneDNN, but also permits bfloat16, which oneDNN uses on CPUs with units for it; on these CPUs
    torch's default stays.
    """
    x = torch.arange(256.0**2).sin().view(256, 256)
    exact = x.double() @ x.double()
    torch.set_float32_matmul_precision("medium")
    if (x @ x - exact).norm() > 1e-5 * exact.norm():
        torch.set_float32_matmul_precision("highest")
