"""Work in processes of its own, here or on a cluster, by submitit."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from submitit import AutoExecutor, Job
from submitit.core.utils import FailedJobError, UncompletedJobError

from common.errors import InputError, require

Work = TypeVar("Work", bound=Callable[[], str | None])
LONGEST = 60 * 24 * 30  # minutes


@dataclass(frozen=True)
class Pool:
    """Where works run."""

    folder: Path
    """for submitit's files"""
    cluster: str
    """"local", or another that submitit knows"""
    jobs: int
    """at a time"""
    threads: int
    """of each"""
    cuda: bool
    """each has a GPU of its own"""
    parameters: Mapping[str, Any]
    """of the cluster's jobs, by submitit's names"""

    def execute(
        self, todo: Sequence[Work], meanwhile: Callable[[list[Work]], None] = lambda _: None
    ) -> Iterator[tuple[Work, str | None]]:
        """Each work as it ends, and why where it failed, which stops no other.

        Args:
            meanwhile: is told what is under way, every second.

        Raises:
            InputError: there is no such cluster here, or it knows no such parameter.
        """
        known = {"timeout_min": LONGEST, "cpus_per_task": self.threads, "gpus_per_node": int(self.cuda)}
        try:
            executor = AutoExecutor(self.folder, self.cluster)
            executor.update_parameters(**known | {"stderr_to_stdout": True} | dict(self.parameters))
        except (RuntimeError, NameError) as error:
            raise InputError(f"--cluster {self.cluster}: {str(error).splitlines()[0]}") from error
        waiting, running, free = deque(todo), {}, deque(range(self.jobs))
        visible = gpus() if self.cuda and self.cluster == "local" else []
        try:
            while waiting or running:
                while waiting and free:
                    work, slot = waiting.popleft(), free.popleft()
                    if self.cuda and self.cluster == "local":
                        executor.update_parameters(local_visible_gpus=[visible[slot % len(visible)]])
                    try:
                        running[executor.submit(work)] = work, slot
                    except FailedJobError as error:
                        free.append(slot)
                        yield work, f"it was not taken: {str(error).splitlines()[0]}"
                meanwhile([work for work, _ in running.values()])
                time.sleep(1)
                for job in [job for job in running if job.done()]:
                    work, slot = running.pop(job)
                    free.append(slot)
                    yield work, why(job)
        finally:
            for job in running:
                job.cancel()


def gpus() -> list[int]:
    """Numbers of the GPUs that this process may use.

    Raises:
        InputError: they have other names.
    """
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = said.split(",") if said else [str(i) for i in range(torch.cuda.device_count())]
    require(all(name.isdigit() for name in names), f"CUDA_VISIBLE_DEVICES={said}: give the GPUs' numbers")
    return [int(name) for name in names]


def why(job: Job) -> str | None:
    """What the work of a job that is over says of its failure."""
    try:
        return job.result()
    except (FailedJobError, UncompletedJobError):  # killed, or a defect of ours, whose traceback is there
        return f"it broke off: {job.paths.stdout}"
