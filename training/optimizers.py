"""The optimiser, the schedule of its learning rate, and its tensors in a checkpoint."""

import math
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Annotated

from common.errors import require
from training.options import RunConfig

import msgspec
import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
TENSORS = {"adam": MOMENTS, "amsgrad": MOMENTS | {"max_exp_avg_sq"}}  # that --optimizer keeps for each parameter


class OptimizerState(msgspec.Struct):
    """An optimiser's tensors, such as moments, by the number of the parameter; its options are the run's."""

    state: dict[Count, dict[str, Tensor]]


def make(config: RunConfig, parameters: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """The optimiser that --optimizer names."""
    changes = config.lr_schedule != "constant"
    # a replayed CUDA graph reads a tensor's current value, but a plain number stays as it was at the capture
    lr = torch.tensor(config.lr, device=device) if changes and device.type == "cuda" else config.lr
    # its fused step changes no weight if a gradient is not finite
    return Adam(parameters, lr=lr, amsgrad=config.optimizer == "amsgrad", fused=True)


def schedule(config: RunConfig, optimizer: Optimizer, n_batches: int, steps: int) -> LambdaLR:
    """The learning rates that --lr-schedule names; its `step()` is due after each minibatch.

    A rate depends only on the number of the step, so that checkpoints need not hold the schedule's state.

    Args:
        n_batches: minibatches in an epoch.
        steps: minibatches that are finished.
    """
    total = max(config.epochs * n_batches, 1)

    def factor(step: int) -> float:
        return 1.0 if config.lr_schedule == "constant" else (1 + math.cos(math.pi * step / total)) / 2

    for group in optimizer.param_groups:
        group["initial_lr"] = config.lr
    return LambdaLR(optimizer, factor, last_epoch=steps - 1)


def restore(path: Path, saved: OptimizerState, optimizer: Optimizer, names: Set[str], remedy: str) -> None:
    """Restore an optimiser's tensors; its options stay as they are.

    Args:
        path: where `saved` was read, for messages.
        names: of the tensors that it keeps for each parameter; all but "step" have the parameter's shape.
        remedy: what to do about a damaged file, the end of error messages.

    Raises:
        InputError: a tensor has another name, shape or type, or is not finite.
    """
    parameters = [x for group in optimizer.param_groups for x in group["params"]]
    for number, moments in saved.state.items():
        known = number < len(parameters) and moments.keys() == names
        require(known, f"{path} is damaged, optimizer.state[{number}] belongs to another optimiser: {remedy}")
        for name, x in moments.items():
            like = torch.zeros(()) if name == "step" else parameters[number]
            fits = x.shape == like.shape and x.dtype == like.dtype and bool(x.isfinite().all())
            require(fits, f"{path} is damaged, optimizer.state[{number}].{name} does not fit: {remedy}")
    optimizer.load_state_dict({"state": saved.state, "param_groups": optimizer.state_dict()["param_groups"]})
