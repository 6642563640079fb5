"""Mutants of a module: its syntax tree with one change, and how their code gets into a process that has imported it."""

import ast
import contextlib
import gc
import importlib.abc
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import NamedTuple

OPERATORS = "Add Sub, Mult Div, BitOr BitAnd, Lt LtE, Gt GtE, Eq NotEq, Is IsNot, In NotIn, And Or"
NAMES = "min max, sum mean, any all, zeros ones, zeros_like ones_like, sample rsample, exp log, sin cos, amin amax"
NAMES += ", argmin argmax, repeat repeat_interleave, softmax log_softmax"


def swapped(pairs: str) -> dict[str, str]:
    """Both directions of pairs of names."""
    return {a: b for pair in pairs.split(", ") for a, b in (pair.split(), pair.split()[::-1])}


SWAPPED_NAMES = swapped(NAMES) | {"logsumexp": "sum"}
SWAPPED_OPERATORS = {getattr(ast, a): getattr(ast, b) for a, b in swapped(OPERATORS).items()}
SWAPPED_OPERATORS |= dict.fromkeys((ast.FloorDiv, ast.Mod, ast.Pow), ast.Mult)
UNCHANGED = {"annotation", "returns", "decorator_list", "type_params", "format_spec"}  # fields of syntax trees
CHECKS = {"validate_args", "strict"}  # arguments that only ask for a check
NEGATED_BY_OPERATOR = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)


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
