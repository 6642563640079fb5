import time

from common.errors import InputError
from tests.helpers.jobs import later_the_smaller, sleep_or_fail
from training import parallel
from training.parallel import in_parallel

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "error", "message"),
    [
        (0, InputError, "the first one fails"),
        (-1, InputError, "a run was killed"),
        (-2, MemoryError, "no memory is left"),
    ],
)
def test_a_run_that_fails_stops_the_others(first, error, message):
    started = time.monotonic()
    with pytest.raises(error, match=message):
        list(in_parallel(sleep_or_fail, [first, 1, 2, 3], jobs=2))
    assert time.monotonic() - started < 100, "none of the others slept its time"


@pytest.mark.slow
def test_all_tasks_are_done_by_as_many_processes_as_asked_for():
    tasks = [0, 5, 1, 7]
    assert sorted(in_parallel(later_the_smaller, tasks, jobs=2)) == sorted(tasks)


def test_one_job_needs_no_process():
    assert list(in_parallel(abs, [-1, 2], jobs=1)) == [1, 2]


@pytest.mark.parametrize(("asked", "jobs", "threads"), [(4, 1, 4), (1, 1, 1), (16, 2, 4), (3, 2, 3), (2, 16, 1)])
def test_processes_have_as_many_threads_as_there_are_cores_and_as_asked_for(monkeypatch, asked, jobs, threads):
    monkeypatch.setattr(parallel, "cpu_count", lambda: 8)
    monkeypatch.setattr(parallel.torch, "get_num_threads", lambda: asked)
    assert parallel.threads_each(jobs) == threads
