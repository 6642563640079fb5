"""What the modules of a homoencoder return, how they are called, and the default prior."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common.errors import require
from vhe.framework.factors import Factor

import torch
from torch import Tensor, nn


class Result(NamedTuple):
    """What a module may return instead of a pair (value, log_prob).

    The log-probability of the value is the sum of the parts that are given.

    value: the value of the module's variable, (B, ...); B objects in a list if the data are not a tensor.
    reparam_log_prob: (B,), nats: the part whose gradient needs no REINFORCE, because `rsample` drew the value as a
        differentiable function of the parameters, or because the module is not learned through its samples.
    reinforce_log_prob: (B,), nats: the part, such as that of a discrete choice, whose gradient REINFORCE estimates.
    """

    value: Tensor | Sequence[Any]
    reparam_log_prob: Tensor | None = None
    reinforce_log_prob: Tensor | None = None

    @property
    def log_prob(self) -> Tensor:
        """The log-probability of the value, (B,), nats."""
        first, *rest = (x for x in (self.reparam_log_prob, self.reinforce_log_prob) if x is not None)
        return sum(rest, first)


class NormalPrior(nn.Module):
    """The prior N(0, I) of a variable (B, *shape), the default one of a homoencoder.

    Args:
        variable: the variable's name, for error messages.
        shape: the shape of one value; by default the shape of the first value that is scored. A checkpoint keeps it.
    """

    def __init__(self, variable: str = "a variable", shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.variable, self.shape = variable, shape
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # which knows the device and the dtype

    def get_extra_state(self) -> Tensor | None:
        """Return an empty tensor of the shape (0, *shape)."""
        return None if self.shape is None else torch.empty(0, *self.shape)

    def set_extra_state(self, state: Tensor | None) -> None:
        """Restore the shape from what `get_extra_state` returned."""
        self.shape = None if state is None else tuple(state.shape[1:])

    def forward(self, batch_size: int | None = None, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the value (B, *shape), drawn unless it is given, and its log-density (B,), nats."""
        if value is None:
            require(
                self.shape is not None,
                f"the size of {self.variable} is not known before the first score: score a batch before sampling, "
                "or give a prior",
            )
            value = torch.randn(batch_size, *self.shape, dtype=self.zero.dtype, device=self.zero.device)
        self.shape = tuple(value.shape[1:])
        squares = value.reshape(len(value), -1).square().sum(dim=1)
        return value, -0.5 * (squares + math.log(2 * math.pi) * math.prod(self.shape))


def evaluate(
    module: nn.Module,
    factor: Factor,
    values: Mapping[str, Tensor],
    value: Tensor | Sequence[Any] | None,
    inputs: tuple[Tensor | Sequence[Any], ...] = (),
    n: int | None = None,
) -> Result:
    """Score `value` with a module, or draw its variable if that is None.

    Args:
        values: the values (B, ...) of other variables, by name.
        inputs: the support sets (B, k, ...) for an encoder, nothing for other modules.
        n: the number of values to draw, B, from a module that depends on nothing. One that takes no `batch_size` is
            called B times.

    Raises:
        InputError: the module does not draw a single value where it is called for each, or its log-probabilities do not
            have the shape (B,).
    """
    name = type(module).__name__
    arguments = {v: values[v] for v in factor.given} | {factor.argument: value}
    if factor.takes_batch_size:
        arguments["batch_size"] = n
    draws_one = value is None and not (inputs or factor.given or factor.takes_batch_size)
    results = [Result(*module(*inputs, **arguments)) for _ in range((n or 1) if draws_one else 1)]
    single = all(getattr(x.value, "ndim", 1) > 0 and len(x.value) == 1 for x in results)
    require(
        single or not draws_one,
        f"{name} depends on nothing: its forward should draw one value of {factor.variable}, (1, ...), or take an "
        "argument batch_size",
    )
    result = results[0] if len(results) == 1 else Result(*map(_joined, zip(*results, strict=True)))
    shape, n_values = tuple(result.log_prob.shape), len(result.value)
    require(
        shape == (n_values,),
        f"{name} returned log-probabilities of shape {shape} for {n_values} values of {factor.variable}: "
        f"they should be {(n_values,)}, one for each example",
    )
    return result


def _joined(parts: tuple[Tensor | Sequence[Any] | None, ...]) -> Tensor | list[Any] | None:
    """Values, or log-probabilities, of several calls as those of one batch; None if the calls return none."""
    if parts[0] is None:
        return None
    return torch.cat(parts) if isinstance(parts[0], Tensor) else [value for part in parts for value in part]
