"""From the command line to main(config)."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

from common import distributed
from common.checkpoints import LAST, load_config
from common.errors import InputError, flag, require
from common.training.options import RunConfig
from common.training.runs import NOT_OF_THE_RUN


def run_from_command_line(
    main: Callable[[Any], object], config: type, description: str | None, args: list[str] | None = None
) -> None:
    """Run `main(config)` from the command line: exit 2 and one line for what a user can mend, 130 on Ctrl-C.

    That includes what the system refuses, such as writing a picture to a full disk.
    """
    distributed.start()
    given = tyro.cli(config, args=args, description=description)
    if type(given) is not config:  # one of several commands, which the first argument names
        config, args = type(given), (sys.argv[1:] if args is None else args)[1:]
    try:
        if getattr(given, "pre_trained", None):
            last = given.save_dir / given.experiment / LAST
            source = last if given.resume and last.exists() else given.pre_trained
            for without in ((), getattr(config, "OF_THE_OBJECTIVE", ())):
                default = taken_up(config, source, without)
                given = tyro.cli(config, args=args, description=description, default=default)
                if not without and getattr(given, "obj", None) == getattr(default, "obj", None):
                    break
        main(given)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    distributed.end()


def taken_up(config: type, path: Path, without: Sequence[str] = ()) -> RunConfig:
    """The configuration of the run that a checkpoint is of, as far as `config` has its options and they are the run's.

    Args:
        without: options that are left as they are by default.

    Raises:
        InputError: the checkpoint is unusable, or has options that `config` does not know.
    """
    own = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda", *without}
    taken = {name: x for name, x in load_config(path).items() if name in own and x is not None}
    for name, hint in get_type_hints(config).items():
        choices = [x for part in (hint, *get_args(hint)) if get_origin(part) is Literal for x in get_args(part)]
        known = not choices or taken.get(name) in (None, *choices)
        require(known, f"{path} was trained with {flag(name, taken.get(name))}: it is of another experiment")
    return config(**taken)
