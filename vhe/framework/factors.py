"""Which variables a module's distribution depends on, by the names of its arguments, and an order to draw them in."""

import inspect
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from torch import nn

from common.errors import InputError, require

Modules = nn.Module | Iterable[nn.Module] | Mapping[str, nn.Module]


class Factor(NamedTuple):
    """The distribution of one variable given others, such as q(c|D), p(c|a) or p(x|c, z).

    variable: the variable's name.
    argument: the argument of `forward` that holds its value; another name only if the module was given in a dict.
    given: the names of the variables that it depends on.
    takes_batch_size: whether `forward` has an argument `batch_size`, the number of values to draw.
    """

    variable: str
    argument: str
    given: tuple[str, ...]
    takes_batch_size: bool


def by_variable(modules: Modules, takes_inputs: bool) -> tuple[nn.ModuleDict, dict[str, Factor]]:
    """Return the modules and their factors, both by the name of the variable.

    Args:
        modules: one module, several, or a dict by variable.
        takes_inputs: whether the first argument of `forward` is a batch of support sets.

    Raises:
        InputError: the arguments of a module are not `[inputs,] *latents, variable=None`, or two modules have the same
            variable.
    """
    module_of: dict[str, nn.Module] = {}
    factor_of: dict[str, Factor] = {}
    for name, module in _named(modules):
        factor = _factor(module, name, takes_inputs)
        variable = factor.variable
        require(variable not in factor_of, f"two modules have the variable {variable}: give one for each variable")
        reserved = hasattr(nn.ModuleDict, variable)
        require(not reserved, f"a variable cannot be called {variable}, an attribute of torch.nn.ModuleDict: rename it")
        module_of[variable], factor_of[variable] = module, factor
    return nn.ModuleDict(module_of), factor_of


def _named(modules: Modules) -> Iterable[tuple[str | None, nn.Module]]:
    """Return the modules with the names of a dict, or with None for names."""
    if isinstance(modules, Mapping | nn.ModuleDict):
        return modules.items()
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
        modules = [modules]
    return [(None, module) for module in modules]


def _factor(module: nn.Module, name: str | None, takes_inputs: bool) -> Factor:
    require(
        isinstance(module, nn.Module),
        f"{module!r} is not a torch.nn.Module: a distribution is a module whose forward draws and scores its variable",
    )
    arguments = list(inspect.signature(module.forward).parameters.values())
    signature = f"{type(module).__name__}.forward({', '.join(map(str, arguments))})"
    form = "inputs, *latents, variable=None" if takes_inputs else "*latents, variable=None"
    require(
        len(arguments) > takes_inputs and arguments[-1].default is None,
        f"{signature} names no variable: its arguments should be {form}",
    )
    *given, variable = [argument.name for argument in arguments[takes_inputs:]]
    takes_batch_size = "batch_size" in given
    return Factor(name or variable, variable, tuple(x for x in given if x != "batch_size"), takes_batch_size)


def topological_order(factors: Mapping[str, Factor], kind: str) -> tuple[str, ...]:
    """Return the variables in an order in which each follows those that it depends on.

    Args:
        factors: the factor of each variable.
        kind: what the factors are, in the singular, for error messages: "encoder", "prior".

    Raises:
        InputError: a variable depends on one that has no factor, or on itself through others.
    """
    for name, factor in factors.items():
        unknown = [x for x in factor.given if x not in factors]
        require(
            not unknown, f"the {kind} of {name} depends on {', '.join(unknown)}: the variables are {', '.join(factors)}"
        )
    try:
        return tuple(TopologicalSorter({name: factor.given for name, factor in factors.items()}).static_order())
    except CycleError as error:
        raise InputError(f"the {kind}s depend on each other in a circle: {' -> '.join(error.args[1])}") from error


def descendants(factors: Mapping[str, Factor], order: Iterable[str]) -> dict[str, set[str]]:
    """Return, for each variable, the set of itself and all variables that depend on it, directly or through others.

    Args:
        factors: the factor of each variable.
        order: the variables in their topological order.
    """
    descendants_of: dict[str, set[str]] = {name: {name} for name in factors}
    for name in order:
        for variables in descendants_of.values():
            if variables & set(factors[name].given):
                variables.add(name)
    return descendants_of
