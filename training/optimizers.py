"""The optimiser, and the schedule of its learning rate."""

import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from training.options import TrainingOptions

OPTIMIZERS = {  # by --optimizer; their fused steps change no weight if a gradient is not finite
    "adam": Adam,
    "amsgrad": partial(Adam, amsgrad=True),
    "adamw": AdamW,
    "sgd": partial(SGD, momentum=0.9),
}
MOMENTS = frozenset({"step", "exp_avg", "exp_avg_sq"})
TENSORS = {  # that they keep for each parameter
    "adam": MOMENTS,
    "amsgrad": MOMENTS | {"max_exp_avg_sq"},
    "adamw": MOMENTS,
    "sgd": frozenset({"momentum_buffer"}),
}
SCHEDULES = {  # of --lr-schedule: share of the steps after the warm-up -> factor of --lr
    "constant": lambda t: 1.0,
    "linear": lambda t: 1 - t,
    "cosine": lambda t: (1 + math.cos(math.pi * t)) / 2,
    "step": lambda t: 0.1 ** ((t >= 1 / 2) + (t >= 3 / 4)),
}


def make(config: TrainingOptions, parameters: Iterable[nn.Parameter], device: torch.device) -> Optimizer:
    """The optimiser that --optimizer names."""
    changes = config.lr_schedule != "constant" or config.warmup_epochs > 0
    # a replayed CUDA graph reads a tensor's current value, but a plain number stays as it was at the capture
    lr = torch.tensor(config.lr, device=device) if changes and device.type == "cuda" else config.lr
    optimizer = OPTIMIZERS[config.optimizer](parameters, lr=lr, fused=True)
    if config.optimizer == "sgd":  # torch's fused step makes all momentum buffers at once, or fails
        for p in optimizer.param_groups[0]["params"]:
            optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
    return optimizer


def schedule(config: TrainingOptions, optimizer: Optimizer, n_batches: int, steps: int) -> LambdaLR:
    """The learning rates that --lr-schedule names; its `step()` is due after each minibatch.

    A rate depends only on the number of the step, so that checkpoints need not hold the schedule's state.

    Args:
        n_batches: minibatches in an epoch.
        steps: minibatches that are finished.
    """
    for group in optimizer.param_groups:
        group["initial_lr"] = config.lr
    return LambdaLR(optimizer, lambda step: factor(config, step, n_batches), last_epoch=steps - 1)


def factor(config: TrainingOptions, step: int, n_batches: int) -> float:
    """The share of --lr at a step (from 0): rises linearly to 1 at the last warm-up step, then follows the schedule."""
    warm_up, end = config.warmup_epochs * n_batches, config.epochs * n_batches
    if step < warm_up:
        return (step + 1) / warm_up
    return SCHEDULES[config.lr_schedule]((step - warm_up) / max(end - warm_up, 1))
