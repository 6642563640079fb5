"""Run work in separate processes, here or on a cluster, by submitit."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from common.errors import InputError

import torch
from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, UncompletedJobError

Work = TypeVar("Work", bound=Callable[[], str | None])
MAX_MINUTES = 60 * 24 * 30


@dataclass(frozen=True)
class Pool:
    """The processes, or the cluster's jobs, that work runs in."""

    folder: Path
    """folder of submitit's files"""
    cluster: str
    """"local", or another cluster that submitit knows"""
    jobs: int
    """jobs that run at the same time"""
    threads: int
    """threads of each job"""
    cuda: bool
    """whether each job has its own GPU"""
    parameters: Mapping[str, Any]
    """parameters of the cluster's jobs, by submitit's names"""

    def execute(self, todo: Sequence[Work]) -> Iterator[tuple[Work, str | None]]:
        """Yield each work as it ends, with its error or None; a failure stops no other work.

        Args:
            todo: the work; each returns its error or None.

        Raises:
            InputError: there is no such cluster here, or it knows no such parameter.
        """
        defaults = {"timeout_min": MAX_MINUTES, "cpus_per_task": self.threads, "gpus_per_node": int(self.cuda)}
        try:
            executor = AutoExecutor(self.folder, self.cluster)
            executor.update_parameters(**defaults | {"stderr_to_stdout": True} | dict(self.parameters))
        except (RuntimeError, NameError) as error:
            raise InputError(f"--cluster {self.cluster}: {str(error).splitlines()[0]}") from error
        waiting, running, free = deque(todo), {}, deque(range(self.jobs))
        visible = gpus() if self.cuda and self.cluster == "local" else []
        try:
            while waiting or running:
                while waiting and free:
                    work, slot = waiting.popleft(), free.popleft()
                    if self.cuda and self.cluster == "local":
                        executor.parameters["visible_gpus"] = [visible[slot % len(visible)]]  # not settable otherwise
                    try:
                        with stderr_in(self.folder / "controllers.log"):
                            running[executor.submit(work)] = work, slot
                    except FailedJobError as error:
                        free.append(slot)
                        yield work, f"it was not accepted: {str(error).splitlines()[0]}"
                time.sleep(1)
                for job in [job for job in running if job.done()]:
                    work, slot = running.pop(job)
                    free.append(slot)
                    yield work, error_of(job)
        finally:
            for job in running:
                job.cancel()


@contextmanager
def stderr_in(file: Path) -> Iterator[None]:
    """Give the processes that are started meanwhile a file to write errors to.

    On Ctrl-C the terminal interrupts submitit's processes as well, whose tracebacks would hide what we say.
    """
    before = os.dup(2)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "ab") as log:
        os.dup2(log.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]


def error_of(job: Job) -> str | None:
    """The error of a job that has ended, or None."""
    try:
        return job.result()
    except (FailedJobError, UncompletedJobError):  # killed, or a defect of ours, whose traceback is in the log
        return f"it ended early: {job.paths.stdout}"
