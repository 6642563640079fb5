"""What the first of several processes shows on standard error: progress bars, and messages once."""

import sys
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar

import torch.distributed as dist
from tqdm import tqdm

T = TypeVar("T")
LINE_INTERVAL = 10.0  # seconds between lines of progress where standard error is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt}, {elapsed}, {remaining} left, {rate_fmt}{postfix}\n"


class ProgressBar(tqdm):
    """tqdm's, for units that begin with a blank: a slow rate is "12.5 s/images", not "12.5s/ images"."""

    @staticmethod
    def format_meter(*args: Any, **options: Any) -> str:  # noqa: ANN401 (those of tqdm)
        """Return the line to show."""
        return tqdm.format_meter(*args, **options).replace("s/ ", " s/")


def is_first() -> bool:
    """Whether this process is the only one or the first of several."""
    return not dist.is_initialized() or dist.get_rank() == 0


def progress_bar(items: Iterable[T] | None = None, shown: bool = True, **options: Any) -> tqdm:  # noqa: ANN401 (those of tqdm)
    """A progress bar on the first process's standard error; a line every ten seconds if that is no terminal.

    Args:
        items: what to iterate over, if the bar is not updated by hand.
        shown: False for a bar that nobody sees.
        options: those of tqdm, such as desc, unit and total.
    """
    if not sys.stderr.isatty():
        options |= {"delay": LINE_INTERVAL, "mininterval": LINE_INTERVAL, "bar_format": LINE, "leave": True}
    return ProgressBar(items, disable=not (shown and is_first()), **options)


@cache
def print_once(message: str) -> None:
    """Print a message on standard error, on the first process and only the first time."""
    if is_first():
        print(message, file=sys.stderr)
