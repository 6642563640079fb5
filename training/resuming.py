"""The last checkpoint of a run: its fields beside the model, and how training resumes from it."""

from collections.abc import Set
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from torch import Tensor

from common.checkpoints import Saved, check_fit
from common.errors import require

Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
REMEDY = "train anew in another --save-dir"  # for a damaged checkpoint


class OptimizerState(msgspec.Struct):
    """An optimiser's tensors, such as moments, by the number of the parameter; its options are the run's."""

    state: dict[Count, dict[str, Tensor]]


class Last(Saved, kw_only=True):
    """A checkpoint to resume from.

    epoch to n_train: see `training.progress.Progress`; command to resumed_from: see
    `training.runs.Run.about`.

    rng: the random states of each process, by device.
    """

    rng: list[dict[str, Tensor]]
    optimizer: OptimizerState
    epoch: Count
    batch: Count
    sums: dict[str, Finite]
    n: Count
    seconds: Finite
    best: float
    best_epoch: Count
    n_train: Count
    command: str
    started: str
    commit: str | None
    resumed_from: list[dict[str, str | None]]


def restore(path: Path, last: Last, model: torch.nn.Module, optimizer: torch.optim.Optimizer, names: Set[str]) -> None:
    """Restore a model and its optimiser.

    Args:
        path: where `last` was read, for messages.
        optimizer: over the model's parameters, perhaps among others.
        names: of the tensors that it keeps for each parameter.

    Raises:
        InputError: a tensor's name, shape or type differs from the model's, or it is not finite.
    """
    check_fit(last.state_dict, model, f"{path} has other networks", REMEDY)
    model.load_state_dict(last.state_dict)
    restore_optimizer(path, last.optimizer, optimizer, names, REMEDY)


def restore_optimizer(
    path: Path, saved: OptimizerState, optimizer: torch.optim.Optimizer, names: Set[str], remedy: str
) -> None:
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
