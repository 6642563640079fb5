"""Calls in child processes, and what became of them: success, one line, a traceback, a hang, or too much memory."""

import io
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from threading import RLock

from common.errors import InputError

import torch
from tqdm import tqdm

OUTCOMES = ("fine", "one line", "traceback", "signal", "hang", "too much memory")
GIB = 2**30
SECONDS = 120  # after which a call hangs; none takes more than some seconds on idle cores
FACTOR = float(os.environ.get("FAULTS", "1"))
tqdm.set_lock(RLock())  # its own lock is shared with forked processes, and one that is killed may hold it for ever
tqdm.monitor_interval = 0  # no thread that may hold the lock while the process forks


def scaled(n: int) -> int:
    """The number of cases, where n are a twentieth of all."""
    return max(1, round(n * FACTOR))


def attack(
    kind: str,
    calls: Iterable[tuple[str, Callable[[], object]]],
    refused: bool = False,
    memory: int | None = None,
    trains: bool = False,
) -> Counter:
    """Make each call in a child process of its own, and assert that each succeeds or ends with one line.

    Args:
        kind: what is attacked, a row of the table.
        calls: (description, call).
        refused: no call may succeed.
        memory: bytes that a call can allocate, beyond which allocations fail; by default without limit.
        trains: a call may be a whole training, which takes up to `memory`; others take 1 GiB at most.
    """
    allowed, counts, failures = OUTCOMES[1:2] if refused else OUTCOMES[:2], Counter(), []
    for name, call in calls:
        outcome, told = _outcome(call, memory, memory if trains else GIB)
        counts[outcome] += 1
        if outcome not in allowed:
            failures.append(f"{name}: {outcome}\n{told}")
    record(kind, counts)
    assert not failures, f"{len(failures)} of {sum(counts.values())}\n" + "\n\n".join(failures[:10])
    return counts


def record(kind: str, counts: Mapping[str, int]) -> None:
    """Add numbers of outcomes to the file that FAULTS_LOG names, if it is set: tests/faults/table.py reads it."""
    if "FAULTS_LOG" in os.environ:
        with open(os.environ["FAULTS_LOG"], "a") as log:
            log.write(json.dumps({"kind": kind, **counts}) + "\n")


def forked(call: Callable[[], object]) -> int:
    """Start a call in a child process, silent and on one thread; returns the child's number.

    The child leaves with status 0, or with 1 after an exception.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _alone()
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            call()
        code = 0
    finally:
        os._exit(code)


def _alone() -> None:
    """What a child process sets first."""
    signal.alarm(10 * SECONDS)  # if the parent dies
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)


def _outcome(call: Callable[[], object], memory: int | None, most: int) -> tuple[str, str]:
    """What became of a call, and what it printed last."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    resident = _resident()  # this process may free memory while the child runs
    child = os.fork()
    if child == 0:
        os.close(reader)
        if memory:
            limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        _run(call, writer)
    os.close(writer)
    with open(reader) as pipe:
        ended = _wait(child, time.monotonic() + SECONDS)
        told = pipe.read()
    if ended is None:
        return "hang", told
    status, usage = ended
    if os.WIFSIGNALED(status):
        return "signal", signal.Signals(os.WTERMSIG(status)).name
    if usage.ru_maxrss * 1024 > resident + most:
        return "too much memory", f"{usage.ru_maxrss / 2**20:.1f} GiB, {resident / GIB:.1f} GiB at its beginning"
    return OUTCOMES[os.WEXITSTATUS(status)], told


def _run(call: Callable[[], object], writer: int) -> None:
    """Make the call and leave the process with the number of its outcome."""
    _alone()
    code, told, printed = 0, "", io.StringIO()
    try:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(printed):
            call()
    except (InputError, OSError) as error:  # the command line prints these as they are
        told = str(error)
        code = 1 if told.count("\n") == 0 and len(told) < 1000 else 2
    except SystemExit as end:  # a command line
        told = printed.getvalue()
        ours = told[told.rfind("error: ") :]
        one_line = "error: " not in told or ours.count("\n") == 1  # the command line's parser has a frame instead
        code = {0: 0, 2: 1 if one_line else 2}.get(end.code, 2)
    except BaseException:
        code, told = 2, traceback.format_exc()[-2000:]
    os.write(writer, told.encode()[:4000])
    os._exit(code)


def _wait(child: int, deadline: float) -> tuple[int, resource.struct_rusage] | None:
    """The child's status and resources; None if it had to be killed at the deadline."""
    pause = 0.001
    while time.monotonic() < deadline:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _resident() -> int:
    """Bytes of this process in memory, which a child begins with."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
