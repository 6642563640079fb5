"""The factors of a model as the arguments of their modules name them, and the order in which variables can be drawn."""

import inspect
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from torch import nn

from common.errors import InputError, require

Modules = nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module]


class Factor(NamedTuple):
    """A distribution of one variable: q(c|D), p(c|a), p(x|c, z).

    variable: its name; argument: how forward calls it, by that name unless the module was given in a dict.
    given: the variables that it depends on; counts: whether forward wants to know how many to draw (`batch_size`).
    """

    variable: str
    argument: str
    given: tuple[str, ...]
    counts: bool


def named(modules: Modules, takes_inputs: bool) -> tuple[nn.ModuleDict, dict[str, Factor]]:
    """The modules and their factors by variable.

    Args:
        modules: one, several, or a dict by variable.
        takes_inputs: whether the first argument is a support set.

    Raises:
        InputError: a module's arguments are not `[inputs,] *latents, variable=None`, or two are of one variable.
    """
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleDict | nn.ModuleList):
        modules = [modules]
    by_name = isinstance(modules, Mapping | nn.ModuleDict)
    known: dict[str, nn.Module] = {}
    factors = {}
    for name, module in modules.items() if by_name else ((None, module) for module in modules):
        factor = _factor(module, name, takes_inputs)
        require(factor.variable not in factors, f"two modules are of the variable {factor.variable}: give one of each")
        taken = hasattr(nn.ModuleDict, factor.variable)
        require(not taken, f"a variable cannot be called {factor.variable}, as an attribute of torch's modules is")
        known[factor.variable], factors[factor.variable] = module, factor
    return nn.ModuleDict(known), factors


def _factor(module: nn.Module, name: str | None, takes_inputs: bool) -> Factor:
    require(isinstance(module, nn.Module), f"{module!r} is no torch.nn.Module")
    arguments = list(inspect.signature(module.forward).parameters.values())
    called = f"{type(module).__name__}.forward({', '.join(map(str, arguments))})"
    form = "inputs, *latents, variable=None" if takes_inputs else "*latents, variable=None"
    require(
        len(arguments) > takes_inputs and arguments[-1].default is None,
        f"{called} names no variable: its arguments should be {form}",
    )
    *given, variable = [argument.name for argument in arguments[takes_inputs:]]
    counts = "batch_size" in given
    return Factor(name or variable, variable, tuple(x for x in given if x != "batch_size"), counts)


def in_order(factors: Mapping[str, Factor], kind: str) -> tuple[str, ...]:
    """The variables, each after those that it depends on.

    Raises:
        InputError: one depends on a variable that is not there, or on itself through others.
    """
    for name, factor in factors.items():
        unknown = [x for x in factor.given if x not in factors]
        require(not unknown, f"the {kind} of {name} depends on {', '.join(unknown)}: there is {', '.join(factors)}")
    try:
        return tuple(TopologicalSorter({name: factor.given for name, factor in factors.items()}).static_order())
    except CycleError as error:
        raise InputError(f"the {kind}s depend on each other in a circle: {' -> '.join(error.args[1])}") from error


def descendants(factors: Mapping[str, Factor], order: Iterable[str]) -> dict[str, set[str]]:
    """For each variable itself and all that depend on it, however indirectly."""
    found: dict[str, set[str]] = {name: {name} for name in factors}
    for name in order:
        for below in found.values():
            if below & set(factors[name].given):
                below.add(name)
    return found
