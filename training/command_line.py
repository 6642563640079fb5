"""From the command line to main(config)."""

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import InputError, brief, flag, flags, option, require
from common.execution import processes
from training.options import RunConfig, changed_by, default_of, resumed

import tyro

LARGEST = 2**32  # whole numbers must be smaller: so is every seed, and every size that memory holds
MEMORY_RAN_OUT = ("can't allocate memory", "not enough memory", "out of memory", "calculation overflowed")
LESS_MEMORY = "give a smaller --limit, --batch-size, --n-latents, --K or --n-samples"


def run_from_command_line(
    main: Callable[[Any], object],
    config: type,
    description: str | None,
    args: Sequence[str] | None = None,
    paper: RunConfig | None = None,
    demo: RunConfig | None = None,
) -> None:
    """Run `main(config)` from the command line.

    Exits with 2 and one line for errors that a user can fix, including those of the system, such as a full disk; with
    130 on Ctrl-C.

    Args:
        config: a dataclass, or a union of dataclasses: the script then has one command for each.
        description: the script's docstring, which --help shows as it is.
        args: by default those of the program.
        paper, demo: the defaults with --settings paper and with --demo.
    """
    with _errors_in_one_line():
        _refuse_another_checkouts_code()
        given = parse(config, description, args, paper, demo)
        processes.start()
        for name, values in vars(given).items():
            for value in values if isinstance(values, tuple) else (values,):
                small = not isinstance(value, int) or abs(value) < LARGEST
                require(small, f"{option(name)} {value} is too large: give a number below {LARGEST}")
        main(given)
        sys.stdout.flush()
    processes.end()


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
    except ImportError as error:
        own = "if it is a folder of yours, add it to include in pyproject.toml"
        remedy = f"{own}; else the installation is incomplete or unreadable; in both cases run make setup"
        print(f"error: {brief(error)}: {remedy}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if not _memory_ran_out(error):
            raise
        print(f"error: memory ran out ({brief(error)}): {LESS_MEMORY}", file=sys.stderr)
        sys.exit(2)


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


def parse(
    config: Any,  # noqa: ANN401 (a dataclass, or a union of them)
    description: str | None = None,
    args: Sequence[str] | None = None,
    paper: RunConfig | None = None,
    demo: RunConfig | None = None,
) -> Any:  # noqa: ANN401
    """Read a config from the command line, see `run_from_command_line`; --help prints the description first."""
    args = sys.argv[1:] if args is None else [*args]
    if {"-h", "--help"} & set(args):
        _print_description(description, paper, demo)
    given = _read(config, args)
    if not isinstance(given, RunConfig):
        return given
    read = partial(_read, type(given), args if dataclasses.is_dataclass(config) else args[1:])  # a command comes first
    if (before := resumed(given)) is not None:
        return _with_its_data(read(before), given, args)
    default = default_of(given, paper, demo)
    if default is None:
        return given
    given = _with_its_data(read(default), given, args)
    if given.epochs == default.epochs or type(given).annealing_epochs is not None:
        return given
    default.annealing_epochs = None  # that of the default is part of its epochs
    return read(default)


def _with_its_data(config: RunConfig, given: RunConfig, args: Sequence[str]) -> RunConfig:
    """The config; InputError if an earlier run's --demo would make --data-dir mean nothing.

    Args:
        given: what the command line says without the earlier run.
    """
    names_data = any(arg.split("=")[0].replace("_", "-") == "--data-dir" for arg in args)
    earlier = "the run that --resume or --pre-trained names has --demo, and reads no files"
    remedy = "leave --data-dir out, or train anew; --pre-trained also takes --no-demo"
    require(given.demo or not (config.demo and names_data), f"{earlier}: {remedy}")
    return config


def _read(config: Any, args: Sequence[str], default: RunConfig | None = None) -> Any:  # noqa: ANN401
    """What tyro reads; its box of an error becomes an InputError of one line. Help leaves out that None is allowed."""
    options, printed = {} if default is None else {"default": default}, io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(config, args=args, description="", config=(tyro.conf.DisallowNone,), **options)
    except SystemExit as ended:
        if not ended.code:
            raise
        raise InputError(f"{_message(printed.getvalue())}: see {Path(sys.argv[0]).name} --help") from None


def _message(box: str) -> str:
    """What tyro says between the title of its box and the next rule, in one line; the choices sorted.

    Of the similar options that it lists after the rule, the nearest to each unknown one.
    """
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]
    lines = list(itertools.dropwhile(lambda line: not line.strip("─-"), lines))  # ASCII's box has a rule there
    message = " ".join(itertools.takewhile(lambda line: line.strip("─-╰╯"), lines)).rstrip(".")
    said, _, choices = message.partition(" Expected one of ")
    names = sorted({*re.findall("'(.+?)'", choices)} - {"None"})
    if names:
        return f"{said.rstrip('.')}; there are {', '.join(names)}"
    unknown = re.findall(r"--[\w-]+", message) if message.startswith("Unrecognized options") else ()
    known = {*re.findall(r"--[\w-]+", box)} - {*unknown}
    nearest = [name for option in unknown for name in difflib.get_close_matches(option, known, n=1)]
    return f"Unrecognized options: {', '.join(unknown)} (did you mean {' and '.join(nearest)}?)" if nearest else message


def _print_description(description: str | None, paper: RunConfig | None, demo: RunConfig | None) -> None:
    """Print the script's docstring, and which options --settings paper and --demo stand for."""
    if description:
        print(description)
    for name, named in (("settings", paper), ("demo", demo)):
        if named is not None:
            print(f"{flag(name, getattr(named, name))} stands for {flags(changed_by(named)) or 'the defaults'}\n")
