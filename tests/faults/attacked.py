"""Damaged files given to the functions that read them, in a process of their own, and what becomes of it."""

import importlib
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from tests.faults.mutated import mutations

ROOT = Path(__file__).parents[2]
MARK = b"\x1e"  # before each line of the process that reads
STARTED = 120  # seconds until it has imported everything
SECONDS = 20  # after which reading a file counts as a hang
LONGEST = 500  # characters of a message, a third of which are a temporary folder's name
GIB = 2**30
OUTCOMES = ("loaded", "one line", "traceback", "hang", "over 1 GiB")


class Case(NamedTuple):
    """A format and what reads it.

    make: writes what lies beside the file into a folder, and returns the content that is to be damaged.
    pack: turns damaged content into the file, such as by compressing it.
    read: reads a file at a path.
    name: of the file.
    """

    make: Callable[[Path], bytes]
    read: Callable[[Path], object]
    name: str
    pack: Callable[[bytes], bytes] = bytes


class Tally(NamedTuple):
    """How many files had which of OUTCOMES, and what was said of those with the last three."""

    counts: dict[str, int]
    faults: list[str]


def attack(module: str, cases: Sequence[str], seed: int, n: int) -> dict[str, Tally]:
    """Damage a file of each case n times, read it each time, and tally each case.

    Args:
        module: whose CASES, {name: Case}, hold the cases.
    """
    tallies = {case: Tally(dict.fromkeys(OUTCOMES, 0), []) for case in cases}
    files = [(case, i) for case in cases for i in range(n)]
    while files:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.faults.attacked", module, str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
        ) as process:
            process.stdin.write(json.dumps(files).encode())
            process.stdin.close()
            for outcome, message in _outcomes(process):
                (case, i), *files = files
                tallies[case].counts[outcome] += 1
                if outcome in OUTCOMES[2:]:
                    tallies[case].faults.append(f"{case}, seed {seed}, file {i}: {outcome}: {message}")
                if outcome == "over 1 GiB" or not files:
                    process.kill()  # the peak of a new process begins anew
                    break
    return tallies


def _outcomes(process: subprocess.Popen) -> Iterator[tuple[str, str]]:
    """Yield (outcome, message) of each file, until the process that reads them ends."""
    noise, limit = b"", STARTED
    while select.select([process.stdout], [], [], limit)[0]:
        line = process.stdout.readline()
        if line.startswith(MARK):
            outcome, message = json.loads(line.removeprefix(MARK))
            limit = SECONDS
            if outcome == "begun":
                continue
            if noise and outcome == "one line":
                outcome, message = "traceback", f"it also prints {noise[:300]!r}"
            yield outcome, message
            noise = b""
        elif line:
            noise += line
        else:
            if process.wait() != 0:
                yield "traceback", f"exit status {process.returncode}: {noise[-500:]!r}"
            return
    process.kill()
    yield "hang", f"over {limit:.0f} seconds"


def _read_all(module: str, seed: int, files: Sequence[tuple[str, int]]) -> None:
    """Read damaged files, each the i-th of a case, and print what became of it."""
    cases = importlib.import_module(module).CASES
    for name, of_case in groupby(files, key=itemgetter(0)):
        case, rows = cases[name], {i for _, i in of_case}
        with tempfile.TemporaryDirectory() as folder:
            content, path = case.make(Path(folder)), Path(folder) / case.name
            path.write_bytes(case.pack(content))
            case.read(path)  # undamaged
            _limit_memory()
            _say("begun", name)
            for i, damaged in enumerate(mutations(content, seed, max(rows) + 1)):
                if i in rows:
                    path.write_bytes(case.pack(damaged))
                    _say(*_outcome(case, path))


@cache
def _limit_memory() -> None:
    """Let this process take 4 GiB more than it has."""
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (address_space + 4 * GIB, resource.RLIM_INFINITY))


def _say(outcome: str, message: str) -> None:
    sys.stdout.buffer.write(MARK + json.dumps([outcome, message]).encode() + b"\n")
    sys.stdout.buffer.flush()


def _outcome(case: Case, path: Path) -> tuple[str, str]:
    outcome, message = "loaded", ""
    try:
        case.read(path)
    except InputError as error:
        message = str(error)
        fits = message.isprintable() and len(message) <= LONGEST
        outcome = "one line" if fits else "traceback"
    except Exception:
        outcome, message = "traceback", traceback.format_exc()[-800:]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return ("over 1 GiB", f"{peak / GIB:.1f} GiB, {outcome} {message}") if peak > GIB else (outcome, message)


def table(tallies: dict[str, Tally]) -> str:
    """Tallies as a table in Markdown, with their sums."""
    rows = [["format", "tried", *OUTCOMES]]
    rows += [[name, sum(tally.counts.values()), *tally.counts.values()] for name, tally in tallies.items()]
    rows.append(["all", *(sum(column) for column in zip(*(row[1:] for row in rows[1:]), strict=True))])
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


if __name__ == "__main__":
    _read_all(sys.argv[1], int(sys.argv[2]), json.load(sys.stdin))
