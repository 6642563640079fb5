"""An optimiser's saved tensors are checked before they are restored."""

import math
from pathlib import Path

from common.errors import InputError
from training import optimizers
from training.optimizers import OptimizerState

import pytest
import torch
from torch import nn

NAMES = {"step", "exp_avg", "exp_avg_sq"}


def adam():
    """Adam over two parameters, after a step."""
    parameters = [nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(4))]
    optimizer = torch.optim.Adam(parameters)
    sum(x.square().sum() for x in parameters).backward()
    optimizer.step()
    return optimizer


def test_an_optimiser_goes_on_with_the_saved_moments():
    saved, other = adam(), adam()
    for state in saved.state.values():
        state["exp_avg"].fill_(7.0)
    optimizers.restore(Path("x"), OptimizerState(saved.state_dict()["state"]), other, NAMES, "delete it")
    assert all((state["exp_avg"] == 7).all() and state["step"] == 1 for state in other.state.values())


@pytest.mark.parametrize(
    ("number", "name", "value", "message"),
    [
        (1, "exp_avg", torch.zeros(3), r"optimizer.state\[1\].exp_avg does not fit"),
        (0, "exp_avg", torch.tensor([[0.0, 1, 2], [3, 4, math.inf]]), r"optimizer.state\[0\].exp_avg does not fit"),
        (1, "max_exp_avg_sq", torch.zeros(4), r"optimizer.state\[1\] belongs to another optimiser"),
        (2, "step", torch.zeros(()), r"optimizer.state\[2\] belongs to another optimiser"),
    ],
)
def test_moments_that_do_not_fit_are_refused(number, name, value, message):
    optimizer = adam()
    state = {i: dict(moments) for i, moments in optimizer.state_dict()["state"].items()}
    state.setdefault(number, dict(state[0]))[name] = value
    with pytest.raises(InputError, match=f"^x is damaged, {message}: delete it$"):
        optimizers.restore(Path("x"), OptimizerState(state), optimizer, NAMES, "delete it")
