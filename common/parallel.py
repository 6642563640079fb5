"""Many trainings in processes of their own."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import active_children, get_context
from typing import TypeVar

import torch

from common.errors import InputError

Task, Result = TypeVar("Task"), TypeVar("Result")


def in_parallel(work: Callable[[Task], Result], todo: Sequence[Task], jobs: int) -> Iterator[Result]:
    """The results as they come, in processes of their own where there are several.

    Ctrl-C, or the failure of one, stops the others as Ctrl-C stops training: what is done is kept.
    """
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
