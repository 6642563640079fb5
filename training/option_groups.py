"""The options of a config as tyro takes them: in groups, with their help."""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import tyro

from common.errors import require
from common.models.choices import FAMILIES, FUSIONS, MODELS
from common.objectives.registry import OBJECTIVES
from training.options import RunConfig

GROUPS = ("data", "model", "objective", "training", "run")  # of --help, in its order
FIRST = ("data_dir", "model", "fusion", "posterior", "obj")  # in their group
SUMMARIES = {
    "obj": {name: record.summary for name, record in OBJECTIVES.items()},
    "fusion": FUSIONS,
    "posterior": FAMILIES,
    "model": {name: model.summary for name, model in MODELS.items()},
}


def in_groups(config: Any, defaults: Mapping[str, Any]) -> Any:  # noqa: ANN401 (types, and unions of types)
    """A dataclass for tyro with a member for each group of options; its method `flat()` returns the config.

    The class that defines an option names its group: in GROUPS, {group: options}, or in GROUP for all its options.
    Other options belong to "model" in scripts that train, and stand before the groups in other scripts.

    Args:
        config: a dataclass, or a union of dataclasses, for which a union is returned.
        defaults: of some options, in place of those of the class; for each command those of its options.
    """
    if get_origin(config) is Annotated:
        command, *marks = get_args(config)
        return Annotated[(in_groups(command, defaults), *marks)]
    if not dataclasses.is_dataclass(config):
        return Union[tuple(in_groups(command, defaults) for command in get_args(config))]  # noqa: UP007 (of any number)
    groups = {name: [] for name in ("", *GROUPS)}
    for field in sorted(dataclasses.fields(config), key=lambda field: field.name not in FIRST):
        groups[_group(config, field.name)].append(_argument(config, field, defaults))
    members = groups.pop("")
    nested = {name: _dataclass(name, options) for name, options in groups.items() if options}
    no_help = {"help": ""}  # tyro would search the sources for one
    members += [
        (name, tyro.conf.OmitArgPrefixes[group], dataclasses.field(metadata=no_help)) for name, group in nested.items()
    ]

    def flat(self: object) -> object:
        values = {}
        for name, value in vars(self).items():
            values |= vars(value) if name in nested else {name: value}
        return config(**values)

    return _dataclass(config.__name__, members, config.__doc__, {"flat": flat})


def _dataclass(name: str, fields: list, doc: str = "", namespace: dict[str, Any] | None = None) -> type:
    made = dataclasses.make_dataclass(name, fields, kw_only=True, namespace=namespace)
    made.__doc__ = doc  # tyro shows it
    return made


def _group(config: type, option: str) -> str:
    """The group that the first class with this option names."""
    definer = next(base for base in reversed(config.__mro__) if option in getattr(base, "__dataclass_fields__", ()))
    otherwise = vars(definer).get("GROUP", "model" if issubclass(config, RunConfig) else "")
    return next((name for name, options in vars(definer).get("GROUPS", {}).items() if option in options), otherwise)


def _argument(
    config: type, option: dataclasses.Field, defaults: Mapping[str, Any]
) -> tuple[str, Any, dataclasses.Field]:
    """An option as a field for tyro, with its help.

    In an option's docstring, "Default:" precedes the source of the default, or what happens by default if that is None:
    --help shows it beside the default. The choices of --obj, --model, --fusion and --posterior follow, one a line.
    """
    name, hint = option.name, _hints(config)[option.name]
    value = defaults[name] if name in defaults else _default(option)
    choices, (text, _, source) = choices_of(config, name), _texts(config).get(name, "").partition(". Default: ")
    summaries = [f"{choice}: {SUMMARIES[name][choice]}" for choice in choices if choice in SUMMARIES.get(name, ())]

    if issubclass(config, RunConfig):
        text, source = config.explained(name, value, text, source)

    def shown(label: str) -> str:
        told = [part for part in ("" if value is None else label, source) if part]
        return f"(default: {', '.join(told)})" if told else ""

    if summaries:
        text = "\n".join([f"{text} {shown(str(value))}", *summaries])
    argument = tyro.conf.arg(help=text, help_behavior_hint="" if summaries else shown, metavar=_metavar(hint, choices))
    field = dataclasses.field(**({} if value is dataclasses.MISSING else {"default_factory": lambda: value}))
    return name, Annotated[hint, argument], field


def _default(option: dataclasses.Field) -> object:
    return option.default if option.default_factory is dataclasses.MISSING else option.default_factory()


@cache
def _hints(config: type) -> dict[str, Any]:
    return get_type_hints(config, include_extras=True)


@cache
def _texts(config: type) -> dict[str, str]:
    """{option: its docstring}, without the line breaks of the source, which tyro would keep."""
    texts = {}
    for base in reversed(config.__mro__):
        for param in docstring_parser.parse_from_object(base).params if dataclasses.is_dataclass(base) else ():
            texts[param.arg_name] = " ".join((param.description or "").split())
    return texts


def choices_of(config: type, option: str) -> list:
    """The values of an option, none if it takes others too; for --obj those that exist for the script's fusions."""
    hint = _hints(config).get(option)
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    parts = [hint] if get_origin(hint) is Literal else [x for x in get_args(hint) if x not in (NoneType, Ellipsis)]
    is_open = any(get_origin(part) is not Literal for part in parts)
    choices = [] if is_open else [x for part in parts for x in get_args(part)]
    if option != "obj":
        return choices
    fusions = choices_of(config, "fusion") or getattr(config, "FUSIONS", FUSIONS)
    return [name for name in choices if name not in OBJECTIVES or set(fusions) & set(OBJECTIVES[name].fusions)]


def check_choices(config: RunConfig) -> None:
    """Raise InputError for an option that has a value which is none of its choices, as only Python can give it."""
    for name, value in vars(config).items():
        choices = choices_of(type(config), name)
        allowed = not choices or value is None or {*choices}.issuperset(value if isinstance(value, tuple) else [value])
        require(allowed, f"{name} = {value!r} is no choice: there are {', '.join(map(repr, choices))}")


def _metavar(hint: Any, choices: Sequence[str]) -> str | None:  # noqa: ANN401 (a type hint)
    """The placeholder of an option that may be None, without the None; None if the option or tyro has one."""
    hint, *marks = get_args(hint) if get_origin(hint) is Annotated else [hint]
    if NoneType not in get_args(hint) or any(getattr(mark, "metavar", None) for mark in marks):
        return None
    if choices:
        return f"{{{','.join(choices)}}}"
    kind = next(kind for kind in get_args(hint) if kind is not NoneType)
    if get_origin(kind) is tuple:
        kind = get_args(kind)[0]
        return f"[{kind.__name__.upper()} [{kind.__name__.upper()} ...]]"
    return kind.__name__.upper()
