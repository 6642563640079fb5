"""Many trainings: in processes of their own, each with a log, and what they come to."""

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

import torch

from common import distributed
from common.errors import InputError, require

Task, Result = TypeVar("Task"), TypeVar("Result")


def in_parallel(work: Callable[[Task], Result], todo: Sequence[Task], jobs: int) -> Iterator[Result]:
    """The results as they come, in processes of their own where there are several.

    Ctrl-C, or the failure of one, stops the others as Ctrl-C stops training: what is done is kept.

    Raises:
        InputError: torchrun has started several processes that would all do so.
    """
    require(distributed.world() == 1, "this starts processes of its own: run it without torchrun, with --jobs N")
    if jobs == 1:
        yield from map(work, todo)
        return
    waiting = iter(todo)
    threads = max(1, os.cpu_count() // jobs)  # more than there are cores for would wait for each other
    with ProcessPoolExecutor(jobs, get_context("spawn"), torch.set_num_threads, (threads,)) as pool:
        try:
            running = {pool.submit(work, task) for task in islice(waiting, jobs)}
            pool.submit(int)  # CPython's pool watches over its newest worker only from the next submission on
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                results = [future.result() for future in done]
                # one in for one out: what a pool has taken in it can't be told to leave out
                running |= {pool.submit(work, task) for task in islice(waiting, len(done))}
                yield from results
        except (InputError, OSError, BrokenProcessPool) as error:
            for process in active_children():  # Ctrl-C reaches them without our help
                with contextlib.suppress(ProcessLookupError):  # it may have ended by now
                    os.kill(process.pid, signal.SIGINT)
            if isinstance(error, BrokenProcessPool):
                raise InputError("a run was killed, perhaps for want of memory: try fewer --jobs") from error
            raise


def in_order(work: Callable[[Task], Result], todo: Sequence[Task], jobs: int) -> Iterator[Result]:
    """The results of many small tasks in their order, from processes where there are several jobs.

    Where one fails, or on Ctrl-C, those under way are finished.
    """
    if jobs == 1:
        yield from map(work, todo)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the processes that map starts will have it
        results = pool.map(work, todo)
        signal.signal(signal.SIGINT, handler)
        try:
            yield from results
        except BrokenProcessPool as error:
            raise InputError("a process was killed, perhaps for want of memory: try fewer at once") from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write to log.txt of a run's folder, which is made, what would be printed; errors name the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            yield
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds (0 for one)."""
    x = torch.tensor(values).double()
    return x.mean().item(), x.std(correction=min(1, len(x) - 1)).item()
