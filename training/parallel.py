"""Tasks in parallel processes, each with a log."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config

from common.errors import InputError, require
from common.execution import processes
from common.io import check_writable

Task, Result = TypeVar("Task"), TypeVar("Result")


def default_jobs(cuda: bool) -> int:
    """How many runs --jobs starts at once by default: one on a GPU, or one on each core that we may use."""
    return 1 if cuda else cpu_count()


def threads_each(jobs: int) -> int:
    """Threads of each process, where `jobs` processes share the cores that we may use; at most OMP_NUM_THREADS."""
    return max(1, min(torch.get_num_threads(), cpu_count() // jobs))


def in_parallel(work: Callable[[Task], Result], todo: Iterable[Task], jobs: int) -> Iterator[Result]:
    """Yield the results of the tasks as they finish; several jobs run in processes.

    Ctrl-C, or one task that fails, stops the others: their last checkpoints are kept.

    Raises:
        InputError: torchrun started several processes, and each would start all tasks; or a process was killed.
    """
    alone = processes.world_size() == 1
    require(alone, "this command starts its own processes: run it without torchrun, with --jobs N")
    with parallel_config("loky", inner_max_num_threads=threads_each(jobs)):
        pool = Parallel(jobs, return_as="generator_unordered")
    try:
        yield from pool(delayed(work)(task) for task in todo)
    except BrokenProcessPool as error:
        raise InputError("a run was killed, perhaps because memory ran out: try fewer --jobs") from error


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Redirect what is printed to log.txt in a run's folder, which is created; errors name the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder / "log.txt")
    with open(folder / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except InputError as error:
            raise type(error)(f"{folder}: {error}") from error
