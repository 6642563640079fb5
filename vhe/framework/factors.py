"""Which variables a module's distribution depends on, by the names of its arguments, and an order to draw them in."""

import inspect
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from common.errors import InputError, require

from torch import nn

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


class Factors(nn.ModuleDict):
    """Distributions by the variable that each of them draws and scores: a model's encoders, or its priors.

    Args:
        modules: one module, several, or a dict by variable. A module that is not in a dict has the variable that the
            last argument of its `forward` names.
        by_variable: more modules, by variable: `Factors(c=Qc(), z=Qz())`.

    Raises:
        InputError: a module's `forward` names no variable, or two modules have the same variable.
    """

    def __init__(self, modules: Modules = (), **by_variable: nn.Module) -> None:
        super().__init__()
        for name, module in (*_named(modules), *by_variable.items()):
            argument = _arguments(module)[-1].name
            variable = argument if name is None else name
            require(variable not in self, f"two modules have the variable {variable}: give one for each variable")
            unfit = hasattr(self, variable) or not variable.isidentifier()
            require(not unfit, f"a variable cannot be called {variable!r}, no name or one of Factors' own: rename it")
            self[variable] = module

    def signatures(self, takes_inputs: bool) -> dict[str, Factor]:
        """What each variable's distribution depends on, {variable: Factor}.

        Args:
            takes_inputs: whether the first argument of `forward` is a batch of support sets.

        Raises:
            InputError: the arguments of a module are not `[inputs,] *latents, variable=None`.
        """
        return {variable: _factor(module, variable, takes_inputs) for variable, module in self.items()}


def _named(modules: Modules) -> Iterable[tuple[str | None, nn.Module]]:
    """Return the modules with the names of a dict, or with None for names."""
    if isinstance(modules, Mapping | nn.ModuleDict):
        return modules.items()
    if isinstance(modules, nn.Module) and not isinstance(modules, nn.ModuleList):
        modules = [modules]
    return [(None, module) for module in modules]


def _factor(module: nn.Module, variable: str, takes_inputs: bool) -> Factor:
    arguments = _arguments(module)
    require(
        len(arguments) > takes_inputs,
        f"{_signature(module, arguments)} takes no support sets: its arguments should be inputs, *latents, "
        "variable=None",
    )
    *given, argument = [argument.name for argument in arguments[takes_inputs:]]
    takes_batch_size = "batch_size" in given
    return Factor(variable, argument, tuple(x for x in given if x != "batch_size"), takes_batch_size)


def _arguments(module: nn.Module) -> list[inspect.Parameter]:
    """Return the arguments of a module's `forward`, the last of which is its variable; InputError if it is not."""
    require(
        isinstance(module, nn.Module),
        f"{module!r} is not a torch.nn.Module: a distribution is a module whose forward draws and scores its variable",
    )
    arguments = list(inspect.signature(module.forward).parameters.values())
    require(
        len(arguments) > 0 and arguments[-1].default is None,
        f"{_signature(module, arguments)} names no variable: its arguments should be [inputs,] *latents, variable=None",
    )
    return arguments


def _signature(module: nn.Module, arguments: Iterable[inspect.Parameter]) -> str:
    return f"{type(module).__name__}.forward({', '.join(map(str, arguments))})"


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
