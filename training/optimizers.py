"""The optimiser, and the schedule of its learning rate."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.options import RunConfig

MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
TENSORS = {"adam": MOMENTS, "amsgrad": MOMENTS | {"max_exp_avg_sq"}}  # that --optimizer keeps for each parameter


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
    for group in optimizer.param_groups:
        group["initial_lr"] = config.lr
    return LambdaLR(optimizer, lambda step: factor(config, step, n_batches), last_epoch=steps - 1)


def factor(config: RunConfig, step: int, n_batches: int) -> float:
    """The share of --lr at a step (from 0)."""
    if config.lr_schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * step / max(config.epochs * n_batches, 1))) / 2
