"""From the command line to main(config).

The scripts import torch only when they run: nothing here imports it before the command line has been read.
"""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tyro

from common.errors import InputError, brief, option, require
from common.objectives.registry import OBJECTIVES
from training import earlier_runs
from training.option_groups import choices_of, in_groups
from training.options import RunConfig

LARGEST = 2**32  # whole numbers must be smaller: so is every seed, and every size that memory holds
MEMORY_RAN_OUT = ("can't allocate memory", "not enough memory", "out of memory", "calculation overflowed")
LESS_MEMORY = "give a smaller --limit, --batch-size, --n-latents, --K or --n-samples"
SPINS = "10000"  # rounds of a waiting thread before it sleeps, about 60 microseconds


def run_from_command_line(
    main: Callable[[Any], object], config: type, description: str | None, args: list[str] | None = None
) -> None:
    """Run `main(config)` from the command line.

    Exits with 2 and one line for errors that a user can fix, including those of the system, such as a full disk; with
    130 on Ctrl-C.

    Args:
        config: a dataclass, or a union of dataclasses: the script then has one command for each.
        description: the script's docstring, which --help shows as it is.
    """
    _let_waiting_threads_sleep()
    with _errors_in_one_line():
        _refuse_another_checkouts_code()
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
    distributed.end()


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """A context that ends the program on errors: with a status, and one line if a user can fix them."""
    try:
        yield
    except BrokenPipeError:  # the program that reads the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a program that SIGPIPE ends
    except (InputError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:  # many modules are imported where they are used
        own = "if it is a folder of yours, add it to include in pyproject.toml"
        remedy = f"{own}; else the installation is incomplete or unreadable; in both cases run make setup"
        print(f"error: {brief(error)}: {remedy}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not _memory_ran_out(error):
            raise
        print(f"error: memory ran out ({brief(error)}): {LESS_MEMORY}", file=sys.stderr)
        sys.exit(2)


def _let_waiting_threads_sleep() -> None:
    """Make threads that wait for others sleep after a short time, unless the environment says how they wait.

    GNU's OpenMP, which torch's wheels hold, lets them spin for milliseconds: on a busy machine two threads then train
    several times slower than one. It reads the variable when torch is loaded, here and in the processes started here.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _refuse_another_checkouts_code() -> None:
    """Raise InputError if the script lies in a checkout whose own `common` is not the one that Python imported."""
    script = Path(getattr(sys.modules["__main__"], "__file__", __file__)).resolve()
    root, imported = script.parent.parent, Path(__file__)
    checkouts_copy = root / "training/command_line.py"
    require(
        not checkouts_copy.exists() or checkouts_copy.samefile(imported),
        f"{script} would run the code of {imported.parents[1]}, where this Python's environment was set up: run make "
        f"setup in {root} and its .venv/bin/python, or set PYTHONPATH={root}",
    )


def _memory_ran_out(error: RuntimeError | MemoryError) -> bool:
    """Whether an allocation failed, which torch reports on the CPU by a RuntimeError like any other."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in MEMORY_RAN_OUT)


def _parse_again(given: RunConfig, config: type, description: str | None, args: list[str] | None) -> RunConfig:
    """Parse the command line with the defaults that the options name: of --settings and --demo, and of another run.

    A default that depends on another option, as K on the objective, is left out where that option is given.
    """
    named = _named_defaults(given)
    epochs = named.get("epochs", config().epochs)
    # --annealing-epochs of --settings or --demo fits only their own --epochs
    if parse(config, description, args, named).epochs != epochs:
        named = {name: value for name, value in named.items() if name != "annealing_epochs"}
    other = earlier_runs.options_of(given)  # also those of --demo
    defaults = other | named if given.settings == "paper" else other or named
    tied = getattr(config, "DEPEND_ON", {})
    if not defaults:
        return given
    while True:
        given, default = parse(config, description, args, defaults), config(**defaults)
        left_out = [name for name in tied if getattr(given, name) != getattr(default, name)]
        for name in left_out:  # grows: what depends on a default that is left out is left out too
            left_out += tied.get(name, ())
        if not defaults.keys() & left_out:
            return given
        defaults = {name: value for name, value in defaults.items() if name not in left_out}


def _named_defaults(given: RunConfig) -> dict[str, Any]:
    """The defaults of --settings and --demo."""
    named = given.DEMO if given.demo else {}
    if given.settings == "paper":
        require(given.PAPER is not None, "--settings paper: no paper has settings for this script, leave it out")
        for name in ("demo", "pre_trained"):
            alone = not getattr(given, name)
            require(alone, f"--settings paper and {option(name)} set the same defaults: leave one out")
        named = given.PAPER
    return named


def _check_choices(config: type, args: Sequence[str]) -> None:
    """Raise InputError, in one line, for a value that is none of its option's choices."""
    names = {field.name for field in dataclasses.fields(config)}
    for i, argument in enumerate(args):
        flag, is_joined, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in names:
            continue
        choices = [*map(str, choices_of(config, name))]
        known = OBJECTIVES if name == "obj" else choices  # why others do not exist for the model is said later
        values = [value] if is_joined else args[i + 1 : i + 2]
        wrong = [x for x in values if choices and x not in (*known, "None") and not x.startswith("--")]
        require(not wrong, f"{flag} {' '.join(wrong)}: this script has {', '.join(choices)}")


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
    given = sys.argv[1:] if args is None else args
    if {"-h", "--help"} & set(given):
        if description:
            print(description)
    elif dataclasses.is_dataclass(config):
        _check_choices(config, given)
    return tyro.cli(in_groups(config, defaults), args=args, description="").flat()
