"""Tasks in parallel processes, each with a log."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import TypeVar

from common.errors import InputError, require
from common.execution import processes
from common.io import check_writable

import torch
from joblib import cpu_count

Task, Result = TypeVar("Task"), TypeVar("Result")


def default_jobs(cuda: bool) -> int:
    """How many runs --jobs starts at once by default: one on a GPU, or one on each core that we may use."""
    return 1 if cuda else cpu_count()


def threads_each(jobs: int) -> int:
    """Threads of each process, where `jobs` processes share the cores that we may use; at most OMP_NUM_THREADS."""
    return max(1, min(torch.get_num_threads(), cpu_count() // jobs))


def in_parallel(work: Callable[[Task], Result], todo: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Yield the results of the tasks as they finish; with several jobs each task has its own process.

    Ctrl-C, or one task that fails, stops the others as Ctrl-C stops training: finished work is kept.

    Raises:
        InputError: torchrun started several processes, and each would start all tasks; or a process was killed.
    """
    require(
        processes.world_size() == 1, "this command starts its own processes: run it without torchrun, with --jobs N"
    )
    if jobs == 1:
        yield from map(work, todo)
        return
    waiting = iter(todo)
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads_each(jobs),)) as pool:
        try:
            running = {pool.submit(work, task) for task in islice(waiting, jobs)}
            pool.submit(int)  # CPython's pool notices the death of its newest worker only after another submission
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                results = [future.result() for future in done]
                # submit one task for each that finished, since a pool cannot take back what was submitted
                running |= {pool.submit(work, task) for task in islice(waiting, len(done))}
                yield from results
        except (InputError, OSError, MemoryError, RuntimeError) as error:  # torch's for memory is a RuntimeError
            for process in active_children():  # the terminal sends Ctrl-C to them itself, but not a failure
                with contextlib.suppress(ProcessLookupError):  # it may have ended meanwhile
                    os.kill(process.pid, signal.SIGINT)
            if isinstance(error, BrokenProcessPool):
                raise InputError("a run was killed, perhaps because memory ran out: try fewer --jobs") from error
            raise


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
