"""Where and how fast: device, precision, compiled networks."""

import ctypes
import os
import shutil
import sys
from typing import TypeVar

import torch
from torch import nn

from common import distributed
from common.errors import require
from common.multimodal_vae import MultimodalVAE

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
    """Move the model, choose the precision of its networks ("fp32", "bf16") and compile them if asked."""
    model.bf16 = precision == "bf16"
    if compile:
        compiler = os.environ.get("CXX", "g++")
        require(
            device.type != "cpu" or shutil.which(compiler), f"--compile needs a C++ compiler, {compiler} is missing"
        )
        decoders = model.decoder.values() if isinstance(model.decoder, nn.ModuleDict) else [model.decoder]
        for network in (*model.encoder.values(), *decoders):
            network.compile()
    return model.to(device)


def limit_memory(model: MultimodalVAE, gib: float) -> None:
    """Let training decode no more samples at a time than have activations of so many GiB, gradients included.

    Raises:
        InputError: not one sample's fit.
    """
    with torch.random.fork_rng():  # the run's own draws stay as they are
        few, more = (_held(model, n) for n in (8, 16))
    model.decoded_at_most = int(gib * 2**30 / (2 * (more - few) / 8))
    require(model.decoded_at_most > 0, f"--max-memory {gib} GiB is less than one sample takes")


def _held(model: MultimodalVAE, n: int) -> int:
    """Bytes that the backward pass of n decoded samples needs."""
    held = {}

    def hold(x: torch.Tensor) -> torch.Tensor:
        held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda x: x):
        decoded = model.decode(model.prior().rsample((n,)))
        for p in decoded.values():
            p.log_prob(p.mean.detach())
    return sum(held.values())


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
