"""Mutation testing: change a module in one place at a time, and see whether a test fails.

    python -m tests.mutations common/experts.py common/priors.py --sample 40 --log mutations.jsonl

A mutant swaps an operator (+ -, * /, < <=, == !=, and or), negates a condition, changes a constant, drops a `not`, a
minus or a `.detach()`, swaps functions (min max, sum mean, ...), or leaves out a statement that has an effect. Strings,
annotations, decorators and messages stay. One process collects the tests and runs them once, tracing which of them
reach which line and how long they take. Then it forks for each mutant, replaces the code of the one function that
changes (or imports all modules anew, if the change is outside of functions), and runs the tests that reach it, the
shortest first, until one fails. Processes that a test starts anew see no mutant. The log makes a run resumable.
"""

import ast
import contextlib
import gc
import importlib
import importlib.abc
import importlib.util
import json
import os
import random
import re
import resource
import signal
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType

import pytest
import tyro

from common.errors import require
from tests.helpers.mutants import Importer, Mutant, live_functions, mutants, patched

ROOT = Path(__file__).parents[1]
OPTIONS = ["-q", "-s", "-p", "no:cacheprovider", "--no-summary", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
IMPORTED_LATE = ("torch.distributed.tensor", "torch.autograd.gradcheck", "matplotlib.pyplot", "sklearn.datasets")
KILLED = ("killed", "timeout")
MEMORY = 16 * 2**30  # bytes of addresses that a mutant may take


@dataclass
class Config:
    modules: tyro.conf.Positional[tuple[Path, ...]]
    """the files to mutate"""
    tests: tuple[Path, ...] = ()
    """the test files or folders; by default those of the same room, and those that name the modules"""
    sample: int | None = None
    """mutants of each module, drawn at random; default: all"""
    seed: int = 0
    """which mutants --sample draws"""
    log: Path = Path("mutations.jsonl")
    """results, a line each; what it holds is not tried again"""
    again: bool = False
    """try only what survived according to the log, again"""
    budget: float = 15.0
    """seconds of tests for each mutant: the shortest that reach it, then those that are most about its module"""
    slow: bool = False
    """also the tests that are marked as slow"""
    near: bool = False
    """only the tests of the same room"""


def run_anew(importer: Importer, names: list[str]) -> bool:
    """Import everything of this repository anew, and run tests by their names: whether all pass."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(f"{ROOT}/") and "/.venv/" not in file and name != "__main__":
            del sys.modules[name]
    sys.meta_path.insert(0, importer)
    return pytest.main([*OPTIONS, *names], plugins=[FirstFailure()]) == 0


def run_items(items: list[pytest.Item]) -> bool:
    """Run tests one after another: whether all pass."""
    items[0].config.pluginmanager.register(FirstFailure())
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return True


def forked(job: Callable[[], bool], seconds: float) -> str:
    """Run a job in a process of its own: "survived" if it returns True, else "killed", or "timeout"."""
    with tempfile.TemporaryDirectory() as folder:
        process = os.fork()
        if process == 0:
            code = 1
            with contextlib.suppress(BaseException):  # whatever a mutant raises, this process must end here
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDWR), 1)
                os.dup2(1, 2)
                os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = folder
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
                code = 0 if job() else 1
            os._exit(code)
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                done, status = os.waitpid(process, os.WNOHANG)
                if done:
                    return "survived" if status == 0 else "killed"
                time.sleep(0.01)
            return "timeout"
        finally:  # also where this run is interrupted: the process, and what it may have started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, 0)


@cache
def is_source(file: str) -> bool:
    """Whether a file is this repository's, and no test."""
    return file.startswith(f"{ROOT}/") and not file.startswith((f"{ROOT}/tests/", f"{ROOT}/.venv/"))


class Tracer:
    """The lines of this repository's files, tests apart, that are run while it is on, {file: lines}."""

    def __init__(self) -> None:
        self.lines = {}

    def __call__(self, frame, event, arg):
        return self.local if is_source(frame.f_code.co_filename) else None

    def local(self, frame, event, arg):
        self.lines.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
        return self.local

    def __enter__(self):
        self.lines = {}
        threading.settrace(self)
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(None)
        threading.settrace(None)


@cache
def checksum(file: str) -> int:
    """The checksum of a file's content; 0 if there is none."""
    path = ROOT / file
    return zlib.crc32(path.read_bytes()) if path.is_file() else 0


def version(test: str, lines: Iterable[str]) -> list[int]:
    """Checksums of a test's file and of those that it runs: what was traced holds as long as they stay."""
    return [checksum(test.partition("::")[0]), *(checksum(file) for file in lines)]


class Log:
    """What was found so far: tests, {name: {seconds, passed, lines}}, and mutants, {name: outcome}."""

    def __init__(self, path: Path) -> None:
        self.path, self.tests, self.mutants = path, {}, {}
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            if "test" in entry:
                if entry["version"] == version(entry["test"], entry["lines"]):
                    self.tests[entry["test"]] = entry
            else:
                self.mutants[entry["mutant"]] = entry["outcome"]

    def add(self, **entry) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def chosen(tests: dict[str, dict], name: str, budget: float) -> list[str]:
    """The tests to run for a mutant within so many seconds: the shortest, then the most devoted to its module."""
    devoted = {test: len(x["lines"][name]) / sum(map(len, x["lines"].values())) for test, x in tests.items()}
    names, total = [], 0.0
    for order, share in ((lambda test: tests[test]["seconds"], 0.3), (lambda test: -devoted[test], 1.0)):
        for test in sorted(tests.keys() - names, key=lambda test, order=order: (order(test), test)):
            if not names or total + tests[test]["seconds"] <= share * budget:
                names.append(test)
                total += tests[test]["seconds"]
    return names


class FirstFailure:
    """The pytest plugin that ends the process when a test fails; to write a report would take longer than the test."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo) -> None:
        if call.excinfo is not None and not isinstance(call.excinfo.value, pytest.skip.Exception):
            os._exit(1)


class Session:
    """The pytest plugin that runs mutants in place of the tests."""

    def __init__(self, config: Config, log: Log) -> None:
        self.config, self.log = config, log
        self.paths = {str(path.resolve()): path for path in config.modules}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        todo = [item for name, item in items.items() if name not in self.log.tests]
        print(f"{len(items)} tests, {len(todo)} to trace", flush=True)
        if todo:
            forked(lambda: self.trace(todo), 3600)
        self.log, self.functions = Log(self.config.log), live_functions(self.paths)
        gc.collect()
        gc.freeze()  # else collections in a fork would copy the whole memory
        for path in self.paths:
            self.mutate(Path(path), items)
        return True

    def trace(self, items: list[pytest.Item]) -> bool:
        tracer = Tracer()
        for item, following in zip(items, [*items[1:], None], strict=True):
            start, failed = time.monotonic(), item.session.testsfailed
            with tracer:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            lines = {str(Path(file).relative_to(ROOT)): sorted(lines) for file, lines in tracer.lines.items()}
            passed, seconds = item.session.testsfailed == failed, round(time.monotonic() - start, 2)
            item.session.shouldfail = False
            traced = {"seconds": seconds, "passed": passed, "lines": lines, "version": version(item.nodeid, lines)}
            self.log.add(test=item.nodeid, **traced)
        return True

    def mutate(self, path: Path, items: dict[str, pytest.Item]) -> None:
        """Try a module's mutants, and print those that survive."""
        name, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        original, found = compile(tree, path, "exec"), list(mutants(tree))
        keys = {mutant: f"{name}:{mutant.position}: {mutant}" for mutant in found}
        if self.config.again:
            found = [mutant for mutant in found if self.log.mutants.get(keys[mutant], "killed") not in KILLED]
        elif self.config.sample is not None:  # which are drawn does not depend on how many there are
            found.sort(key=lambda mutant: random.Random(f"{self.config.seed} {keys[mutant]}").random())
            found = sorted(found[: self.config.sample], key=lambda mutant: mutant.lines.start)
        for mutant in (found[:1] + [mutant for mutant in found if not mutant.in_function])[:2]:
            unchanged = self.attempt(path, original, original, mutant, items, budget=0.5)
            require(unchanged != "killed", f"{name}: its tests fail as they are run here, without any mutant")
        outcomes = []
        for mutant in found:
            key = keys[mutant]
            outcome = self.log.mutants.get(key)
            if outcome is None or self.config.again:
                outcome = self.attempt(path, original, mutant.compiled(tree, path), mutant, items, self.config.budget)
                self.log.add(mutant=key, outcome=outcome)
            outcomes.append(outcome)
            if outcome not in KILLED:
                print(f"{outcome}: {key}", flush=True)
        n_killed = sum(outcome in KILLED for outcome in outcomes)
        print(f"{name}: {len(outcomes)} mutants, {n_killed} killed, {len(outcomes) - n_killed} survived", flush=True)

    def attempt(
        self, path: Path, original: CodeType, code: CodeType, mutant: Mutant, items: dict, budget: float
    ) -> str:
        name = str(path.relative_to(ROOT))
        known = {test: self.log.tests[test] for test in items if self.log.tests.get(test, {}).get("passed")}
        reach = [test for test, entry in known.items() if name in entry["lines"]]
        if mutant.in_function:
            reach = [test for test in reach if not set(mutant.lines).isdisjoint(known[test]["lines"][name])]
        reach = chosen({test: known[test] for test in reach}, name, budget)
        if not reach:
            return "no test"
        limit = 30 + 10 * sum(known[test]["seconds"] for test in reach)
        if mutant.in_function:
            with contextlib.suppress(ValueError), patched(self.functions[str(path)], original, code):
                return forked(lambda: run_items([items[test] for test in reach]), limit)
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return forked(lambda: run_anew(Importer(module, path, code), reach), limit)


def tests_of(modules: tuple[Path, ...], near: bool) -> list[str]:
    """The test files of the modules' rooms, and those that name a module or import from its package."""
    chosen = set()
    for path in modules:
        room = path.parent
        name = ".".join(path.with_suffix("").parts)
        pattern = re.compile(rf"\b{name}\b|from {name.rpartition('.')[0]} import .*\b{path.stem}\b")
        chosen |= set((ROOT / "tests" / room).glob("test_*.py"))
        if not near:
            chosen |= {test for test in (ROOT / "tests").rglob("test_*.py") if pattern.search(test.read_text())}
    return [str(path) for path in sorted(chosen)]


def main(config: Config) -> None:
    tests = [str(path) for path in config.tests] or tests_of(config.modules, config.near)
    marks = [] if config.slow else ["-m", "not slow and not demos"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    session = Session(config, Log(config.log))
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    pytest.main([*OPTIONS, *marks, *tests], plugins=[session])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
