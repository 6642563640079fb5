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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

import pytest
import tyro

from common.errors import require

ROOT = Path(__file__).parents[1]
SWAPPED_OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
PAIRS = ("min max", "sum mean", "any all", "zeros ones", "zeros_like ones_like", "sample rsample", "exp log", "sin cos")
PAIRS += ("repeat repeat_interleave", "argmin argmax", "amin amax", "softmax log_softmax")
SWAPPED_NAMES = {a: b for pair in PAIRS for a, b in (pair.split(), pair.split()[::-1])} | {"logsumexp": "sum"}
UNCHANGED = {"annotation", "returns", "decorator_list", "type_params", "format_spec"}  # fields of syntax trees
CHECKS = {"validate_args", "strict"}  # arguments that only ask for a check
NEGATED_BY_OPERATOR = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
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


class Mutant(NamedTuple):
    """One change: the `i`-th value (None: the only one) of a field of a syntax tree's node becomes another."""

    owner: ast.AST
    field: str
    i: int | None
    new: ast.AST
    lines: range
    in_function: bool

    @property
    def old(self) -> ast.AST:
        value = getattr(self.owner, self.field)
        return value if self.i is None else value[self.i]

    @property
    def position(self) -> str:
        """Line and column, those of the expression for an operator."""
        node = self.old if hasattr(self.old, "lineno") else self.owner
        return f"{node.lineno}:{node.col_offset}" + ("" if node is self.old or not self.i else f".{self.i}")

    def replace(self, node: ast.AST) -> None:
        if self.i is None:
            setattr(self.owner, self.field, node)
        else:
            getattr(self.owner, self.field)[self.i] = node

    def compiled(self, tree: ast.Module, path: Path) -> CodeType:
        """The code of the module with this change."""
        old = self.old
        self.replace(ast.copy_location(self.new, old) if hasattr(old, "lineno") else self.new)
        try:
            return compile(ast.fix_missing_locations(tree), path, "exec")
        finally:
            self.replace(old)

    def __str__(self) -> str:
        node = self.owner if not hasattr(self.old, "lineno") else self.old  # an operator's expression
        before, old = ast.unparse(node), self.old
        self.replace(self.new)
        after = ast.unparse(self.owner if node is self.owner else self.new)
        self.replace(old)
        return " -> ".join(" ".join(x.split())[:150] for x in (before, after))


def replacements(owner: ast.AST, name: str, node: ast.AST) -> Iterator[ast.AST]:
    """What to put in place of a node that its owner has in the field of this name."""
    if type(node) in SWAPPED_OPERATORS:
        yield SWAPPED_OPERATORS[type(node)]()
    negated = isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], NEGATED_BY_OPERATOR)
    if name in ("test", "ifs") and not negated and not isinstance(node, ast.UnaryOp | ast.Constant):
        yield ast.UnaryOp(ast.Not(), node)
    match node:
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=0 | 1 as value) if isinstance(owner, ast.keyword) and owner.arg == "dim":
            yield ast.Constant(1 - value)
        case ast.Constant(value=int() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=float() as value):
            yield ast.Constant(2 * value or 1.0)
        case ast.UnaryOp(operand=value):
            yield value
        case ast.Name(id=value) if value in SWAPPED_NAMES and isinstance(owner, ast.Call) and name == "func":
            yield ast.Name(SWAPPED_NAMES[value], ast.Load())
        case ast.Attribute(value=value, attr=attribute) if attribute in SWAPPED_NAMES:
            yield ast.Attribute(value, SWAPPED_NAMES[attribute], node.ctx)
        case ast.Call(func=ast.Attribute(value=value, attr="detach" | "clone" | "contiguous" | "double" | "float")):
            yield value
        case ast.Expr(value=ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.AugAssign() | ast.Raise() | ast.Delete():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
        case ast.Assign(targets=[ast.Name(id=target)]) if target in map(ast.unparse, ast.walk(node.value)):
            yield ast.Pass()
        case ast.Break():
            yield ast.Continue()
        case ast.Continue():
            yield ast.Break()


def mutants(node: ast.AST, lines: range = range(0), in_function: bool = False) -> Iterator[Mutant]:
    """All mutants of a syntax tree; `lines` are those of the statement that a node belongs to."""
    for name, value in ast.iter_fields(node):
        if name in UNCHANGED or (isinstance(node, ast.Raise) or isinstance(value, ast.JoinedStr)):
            continue
        is_message = isinstance(node, ast.Call) and ast.unparse(node.func) == "require" and name == "args"
        inside = in_function or (isinstance(node, ast.FunctionDef) and name == "body")
        for i, child in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr) or (is_message and i > 0):
                continue
            if isinstance(child, ast.keyword) and child.arg in CHECKS:
                continue
            own = lines
            if isinstance(child, ast.stmt):
                body = getattr(child, "body", None)
                own = range(child.lineno, body[0].lineno if body else child.end_lineno + 1)
            for new in replacements(node, name, child):
                yield Mutant(node, name, i if isinstance(value, list) else None, new, own, inside)
            if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
                yield from mutants(child, own, inside)


def functions_of(code: CodeType) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """The functions in some code by name and line, inner ones too."""
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield (inner.co_qualname, inner.co_firstlineno), inner
            yield from functions_of(inner)


def live_functions(files: Iterable[str]) -> dict[str, list[FunctionType]]:
    """All functions of modules that have been imported, decorated ones too, by file."""
    functions = [x for x in gc.get_objects() if type(x) is FunctionType]  # isinstance would ask proxies for their class
    return {file: [x for x in functions if x.__code__.co_filename == file] for file in files}


@contextlib.contextmanager
def patched(functions: list[FunctionType], original: CodeType, mutated: CodeType) -> Iterator[None]:
    """Replace the code of the functions that differ; ValueError if one refers to other variables around it."""
    before, after = dict(functions_of(original)), dict(functions_of(mutated))
    replaced = []
    try:
        for function in functions:
            code = function.__code__
            key = (code.co_qualname, code.co_firstlineno)
            if after[key] != before[key]:
                function.__code__ = after[key]
                replaced.append((function, code))
        yield
    finally:
        for function, code in replaced:
            function.__code__ = code


class Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from given code."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        package = [str(self.path.parent)] if self.path.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(name, self.path, loader=self, submodule_search_locations=package)

    def exec_module(self, module):
        exec(self.code, module.__dict__)


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


class Tracer:
    """The lines of some files that are run while it is on, {file: lines}."""

    def __init__(self, files: set[str]) -> None:
        self.files, self.lines = files, {}

    def __call__(self, frame, event, arg):
        return self.local if frame.f_code.co_filename in self.files else None

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


class Log:
    """What was found so far: tests, {name: {seconds, passed, lines}}, and mutants, {name: outcome}."""

    def __init__(self, path: Path) -> None:
        self.path, self.tests, self.mutants = path, {}, {}
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            if "test" in entry:
                self.tests[entry.pop("test")] = entry
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
        print(f"{len(items)} tests, of which {len(todo)} are to be traced", flush=True)
        if todo:
            forked(lambda: self.trace(todo), 3600)
        self.log, self.functions = Log(self.config.log), live_functions(self.paths)
        gc.collect()
        gc.freeze()  # else collections in a fork would copy the whole memory
        for path in self.paths:
            self.mutate(Path(path), items)
        return True

    def trace(self, items: list[pytest.Item]) -> bool:
        files = {str(path) for folder in ("common", "vhe", "mnist") for path in (ROOT / folder).rglob("*.py")}
        tracer = Tracer(files | set(self.paths))
        for item, following in zip(items, [*items[1:], None], strict=True):
            start, failed = time.monotonic(), item.session.testsfailed
            with tracer:
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            lines = {str(Path(file).relative_to(ROOT)): sorted(lines) for file, lines in tracer.lines.items()}
            passed, seconds = item.session.testsfailed == failed, round(time.monotonic() - start, 2)
            item.session.shouldfail = False
            self.log.add(test=item.nodeid, seconds=seconds, passed=passed, lines=lines)
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
    marks = [] if config.slow else ["-m", "not slow"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    session = Session(config, Log(config.log))
    for name in IMPORTED_LATE:
        importlib.import_module(name)
    pytest.main([*OPTIONS, *marks, *tests], plugins=[session])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
