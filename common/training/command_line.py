"""From the command line to main(config).

The scripts import torch only when they run: nothing here imports it before the command line has been read.
"""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import msgspec
import tyro

from common.choices import FAMILIES, FUSIONS, MODELS
from common.errors import InputError, brief, flag, option, require
from common.objectives.registry import OBJECTIVES
from common.training.options import RunConfig

GROUPS = ("data", "model", "objective", "training", "run")  # of --help, in its order
FIRST = ("data_dir", "model", "fusion", "posterior", "obj")  # in their group
SET_BY_EXPERIMENTS = [x.name for x in dataclasses.fields(RunConfig) if x.default is x.default_factory]  # both missing
LARGEST = 2**32  # whole numbers must be smaller: so is every seed, and every size that memory holds
MEMORY_RAN_OUT = ("can't allocate memory", "not enough memory", "out of memory", "calculation overflowed")
LESS_MEMORY = "give a smaller --limit, --batch-size, --n-latents, --K, --max-memory or --n-samples"
SPINS = "10000"  # rounds of a waiting thread before it sleeps, about 60 microseconds
SUMMARIES = {
    "obj": {name: record.summary for name, record in OBJECTIVES.items()},
    "fusion": FUSIONS,
    "posterior": FAMILIES,
    "model": {name: model.summary for name, model in MODELS.items()},
}


def run_from_command_line(
    main: Callable[[Any], object], config: type, description: str | None, args: list[str] | None = None
) -> None:
    """Run `main(config)` from the command line.

    Exits with 2 and one line for errors that a user can mend, among them what the system refuses, such as writing to a
    full disk; with 130 on Ctrl-C.

    Args:
        config: a dataclass, or a union of dataclasses: the script then has one command for each.
        description: the script's docstring, which --help shows as it is.
    """
    _let_waiting_threads_sleep()
    try:
        given = parse(config, description, args)
        from common import distributed  # needs torch, which --help does without

        distributed.start()
        if type(given) is not config:  # the first argument named one of several commands
            config, args = type(given), (sys.argv[1:] if args is None else args)[1:]
        if isinstance(given, RunConfig):
            given = _parse_again(given, config, description, args)
        for name, value in vars(given).items():
            small = not isinstance(value, int) or abs(value) < LARGEST
            require(small, f"{option(name)} {value} is too large: give a number below {LARGEST}")
        main(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the program that reads the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a program that SIGPIPE ends
    except (InputError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:  # many modules are imported where they are used
        print(
            f"error: {brief(error)}: the installation lacks files or cannot be read, make setup mends it",
            file=sys.stderr,
        )
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not _memory_ran_out(error):
            raise
        print(f"error: memory ran out ({brief(error)}): {LESS_MEMORY}", file=sys.stderr)
        sys.exit(2)
    distributed.end()


def _let_waiting_threads_sleep() -> None:
    """Make threads that wait for others sleep after a short time, unless the environment says how they wait.

    GNU's OpenMP, which torch's wheels hold, lets them spin for milliseconds: on a busy machine two threads then train
    several times slower than one. It reads the variable when torch is loaded, here and in the processes started here.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _memory_ran_out(error: RuntimeError | MemoryError) -> bool:
    """Whether an allocation failed, which torch reports on the CPU by a RuntimeError like any other."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in MEMORY_RAN_OUT)


def _parse_again(given: RunConfig, config: type, description: str | None, args: list[str] | None) -> RunConfig:
    """Parse the command line with the defaults that the options name: of --settings and --demo, and of another run.

    A default that depends on another option, as K on the objective, is left out where that option is given.
    """
    named = _named_defaults(given)
    epochs = named.get("epochs", config().epochs)
    if parse(config, description, args, named).epochs != epochs:  # the named annealing is for the named epochs
        named = {name: value for name, value in named.items() if name != "annealing_epochs"}
    other = _other_run(given)  # complete, so that what --demo names adds nothing
    defaults = other | named if given.settings == "paper" else other or named
    tied = [(name, *others) for name, others in getattr(config, "DEPEND_ON", {}).items()]
    while defaults:
        given, default = parse(config, description, args, defaults), config(**defaults)
        without = {x for names in tied if getattr(given, names[0]) != getattr(default, names[0]) for x in names}
        if not without & defaults.keys():
            break
        defaults = {name: value for name, value in defaults.items() if name not in without}
    return given


def _named_defaults(given: RunConfig) -> dict[str, Any]:
    """The defaults of --settings and --demo."""
    named = given.DEMO if given.demo else {}
    if given.settings == "paper":
        require(given.PAPER is not None, "--settings paper: no paper has settings for this script, leave it out")
        for name in ("demo", "config", "pre_trained"):
            alone = not getattr(given, name)
            require(alone, f"--settings paper and {option(name)} set the same defaults: leave one out")
        named = given.PAPER
    return named


def _other_run(given: RunConfig) -> dict[str, Any]:
    """The options of the run that --resume continues, else of that of --config, else of that of --pre-trained."""
    from common.training.runs import PLACE, read_about

    config, before = type(given), given.save_dir / given.experiment / "config.json"
    file = before if given.resume and before.exists() else given.config
    if file:
        options = read_about(file).config
        return taken_up(config, {name: value for name, value in options.items() if name not in PLACE}, file)
    if not given.pre_trained:
        return {}
    from common.checkpoints import load_config
    from common.training.runs import NOT_OF_THE_RUN

    names = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda"}
    options = load_config(given.pre_trained)
    return taken_up(config, {name: value for name, value in options.items() if name in names}, given.pre_trained)


def taken_up(config: type, options: dict[str, Any], source: Path) -> dict[str, Any]:
    """The options of another run, as config.json and checkpoints hold them, with the types of a config.

    Options that are None are left out.

    Args:
        source: where the options were read, for messages.

    Raises:
        InputError: `config` lacks an option, or does not allow its value.
    """
    remedy, hints = "give the file of a run of this experiment", get_type_hints(config)
    unknown = [name for name in options if name not in config.__dataclass_fields__]
    require(not unknown, f"{source} has options that this script lacks, {', '.join(unknown[:3])}: {remedy}")
    taken = {name: value for name, value in options.items() if value is not None}
    for name, value in taken.items():
        try:
            taken[name] = msgspec.convert(value, hints[name], dec_hook=lambda kind, text: kind(text))
        except msgspec.ValidationError as error:
            choices = ", ".join(map(str, _choices(config, name)))
            allowed = f"this script has {choices}" if choices else brief(error)
            raise InputError(f"{source} was trained with {flag(name, value)}, {allowed}: {remedy}") from error
    return taken


def parse(
    config: Any,  # noqa: ANN401
    description: str | None = None,
    args: list[str] | None = None,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Any:  # noqa: ANN401
    """Read a config from the command line; --help prints the description, then the options in groups.

    Args:
        config: a dataclass, or a union of dataclasses, one for each command.
        args: by default those of the program.
        defaults: of some options, in place of those of the class.
    """
    if description and {"-h", "--help"} & set(sys.argv[1:] if args is None else args):
        print(description)
    return tyro.cli(in_groups(config, defaults), args=args, description="").flat()


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
    members += [(name, tyro.conf.OmitArgPrefixes[group]) for name, group in nested.items()]

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
    """The group that the class names which first defines the option."""
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
    name, hint = option.name, get_type_hints(config, include_extras=True)[option.name]
    value = defaults[name] if name in defaults else _default(option)
    choices, (text, _, source) = _choices(config, name), _texts(config).get(name, "").partition(". Default: ")
    summaries = [f"{choice}: {SUMMARIES[name][choice]}" for choice in choices if choice in SUMMARIES.get(name, ())]

    if name in SET_BY_EXPERIMENTS:
        source = source or getattr(config, "DEFAULTS_FROM", "")
    if name == "annealing_epochs" and value is None:
        source = f"{config.ANNEALING:.0%} of --epochs"
    if name == "settings":
        text += f". paper: {'not known' if config.PAPER is None else _flags(config.PAPER) or 'the same'}"
    if name == "demo" and getattr(config, "DEMO", None):
        text += f". The defaults are then {_flags(config.DEMO)}"

    def shown(label: str) -> str:
        told = [part for part in ("" if value is None else label, source) if part]
        return f"(default: {', '.join(told)})" if told else ""

    if summaries:
        text = "\n".join([f"{text} {shown(str(value))}", *summaries])
    argument = tyro.conf.arg(help=text, help_behavior_hint="" if summaries else shown, metavar=_metavar(hint, choices))
    field = dataclasses.field(**({} if value is dataclasses.MISSING else {"default_factory": lambda: value}))
    return name, Annotated[hint, argument], field


def _flags(options: Mapping[str, Any]) -> str:
    return " ".join(flag(name, value) for name, value in options.items())


def _default(option: dataclasses.Field) -> object:
    return option.default if option.default_factory is dataclasses.MISSING else option.default_factory()


@cache
def _texts(config: type) -> dict[str, str]:
    """{option: its docstring}, without the line breaks of the source, which tyro would keep."""
    texts = {}
    for base in reversed(config.__mro__):
        for param in docstring_parser.parse_from_object(base).params if dataclasses.is_dataclass(base) else ():
            texts[param.arg_name] = " ".join((param.description or "").split())
    return texts


def _choices(config: type, option: str) -> list:
    """The values of an option whose type is a Literal; for --obj those that exist for the script's fusions."""
    hint = get_type_hints(config).get(option)
    choices = [x for part in (hint, *get_args(hint)) if get_origin(part) is Literal for x in get_args(part)]
    if option != "obj":
        return choices
    fusions = _choices(config, "fusion") or getattr(config, "FUSIONS", FUSIONS)
    return [name for name in choices if name not in OBJECTIVES or set(fusions) & set(OBJECTIVES[name].fusions)]


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
