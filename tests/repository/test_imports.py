"""Who imports whom: `common/` reads from top to bottom, knows no experiment, and nothing imports in a circle.

Imports inside functions count, those under TYPE_CHECKING do not. `from package import name` is an import of the module
that the package has the name from.
"""

import ast
import importlib
import re
import sys
from functools import cache
from pathlib import Path

import pytest

import common

ROOT = Path(__file__).parents[2]
ENTRY = re.compile(r"^(    |        )(\w+)(/?): \S", re.MULTILINE)
EXPERIMENTS_IMPORTED = {
    ("common.models", "multivae_api"): "MultiVae's users look for its MMVAE in common.models",
}
LAYERS = ("common", "training", "reports")
MODULES_BY_NAME = {"common.checkpoints": "a checkpoint names the experiment that builds its model"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files():
    folders = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()]
    assert len(folders) > 12
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]


MODULES = {module_name(path): path for path in source_files()}
ROOMS = sorted(name for name, path in MODULES.items() if name.startswith("common.") and path.name == "__init__.py")


@cache
def tree_of(name):
    """A module's syntax tree; parsed in the tests, since all workers collect them."""
    return ast.parse(MODULES[name].read_text())


def statements(node):
    """All nodes below one but those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])
        yield child
        yield from statements(child)


@cache
def handed_on(package):
    """{name: the module it comes from} of what a package imports from its own modules."""
    nodes = [node for node in tree_of(package).body if isinstance(node, ast.ImportFrom)]
    own = [node for node in nodes if node.module.startswith(f"{package}.")]
    return {alias.name: node.module for node in own for alias in node.names}


def imported_names(tree):
    """What a module's import statements name, and their lines: (module, name or None, line)."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno} imports relatively: write the whole name"
            for alias in node.names:
                yield node.module, alias.name, node.lineno


@cache
def imports(name):
    """The repository's modules that one imports, {module: line}."""
    found = {}
    for module, attribute, line in imported_names(tree_of(name)):
        submodule = f"{module}.{attribute}"
        target = submodule if submodule in MODULES else module
        if target in MODULES:
            target = handed_on(target).get(attribute, target)
            if not target.startswith(f"{name}."):  # a package hands on what its own modules have
                found.setdefault(target, line)
    return found


def reading_order():
    """The modules of common/ as its docstring lists them."""
    names, room = [], ""
    for indent, name, slash in ENTRY.findall(common.__doc__):
        inside = len(indent) == 8
        names.append(f"common.{room}.{name}" if inside else f"common.{name}")
        if not inside:
            room = name if slash else ""
        assert not (inside and (slash or not room)), f"{name} is indented as a module of a room"
    return names


ORDER = reading_order()


def test_the_table_of_contents_names_every_module_once():
    modules = sorted(name for name in MODULES if name.startswith("common."))
    assert sorted(ORDER) == modules, "common/__init__.py lists each module of common/, a room with a slash"


@pytest.mark.parametrize("name", ORDER)
def test_a_module_imports_only_what_stands_above_it(name):
    below = {
        target: line
        for target, line in imports(name).items()
        if target in ORDER and ORDER.index(target) > ORDER.index(name)
    }
    assert not below, f"{name} imports what stands below it in common/__init__.py: {below}"


@pytest.mark.parametrize("room", LAYERS)
def test_a_room_imports_no_experiment_and_no_tool(room):
    inside = [name for name in MODULES if name.split(".")[0] == room]
    assert {target.split(".")[0] for name in inside for target in imports(name)} <= {*LAYERS, "multivae_api"}


@pytest.mark.parametrize("name", ["common", *ORDER])
def test_common_imports_no_experiment(name):
    folders = {target.split(".")[0] for target in imports(name)} - {"common"}
    assert folders == {folder for module, folder in EXPERIMENTS_IMPORTED if module == name}
    calls = [ast.unparse(node.func) for node in ast.walk(tree_of(name)) if isinstance(node, ast.Call)]
    by_name = any(call.endswith(("import_module", "__import__")) for call in calls)
    assert by_name == (name in MODULES_BY_NAME), f"{name} imports modules by name"


def test_no_program_imports_tests():
    programs = [name for name in MODULES if name.split(".")[0] != "tests"]
    assert not [name for name in programs if any(target.split(".")[0] == "tests" for target in imports(name))]


def circle(graph):
    """A path of modules that ends where it begins; None if there is none."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        around = next((found for target in graph.get(name, ()) if (found := visit(target))), None)
        path.pop()
        done.add(name)
        return around

    return next((found for name in graph if (found := visit(name))), None)


def test_no_modules_import_each_other_in_a_circle():
    around = circle({name: set(imports(name)) - {name} for name in MODULES})
    assert around is None, " -> ".join(around)


def test_the_circle_is_found():
    assert circle({"a": ["b"], "b": ["c"], "c": ["d"], "d": ["b"]}) == ["b", "c", "d", "b"]
    assert circle({"a": ["b", "c"], "b": ["d"], "c": ["d"]}) is None


def test_imports_in_functions_count_and_those_for_type_checkers_do_not():
    source = "if TYPE_CHECKING:\n    import common.io\nelse:\n    import common.errors\n"
    source += "def f():\n    from common.data import Batch\n"
    names = {(module, name) for module, name, _ in imported_names(ast.parse(source))}
    assert names == {("common.errors", None), ("common.data", "Batch")}
    assert handed_on("common.objectives")["IwaeElbo"] == "common.objectives.importance"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_has_what_it_names(name):
    room = importlib.import_module(name)
    for attribute in getattr(room, "__all__", ()):
        assert getattr(room, attribute) is not None
        submodule = f"{name}.{attribute}"
        assert submodule not in MODULES or getattr(room, attribute) is sys.modules[submodule]


def test_imported_names_exist():
    """The repository's own modules have them: an import inside a function would fail only when it is called."""
    missing = []
    for name in MODULES:
        for module, attribute, line in imported_names(tree_of(name)):
            known = module in MODULES
            if known and attribute and f"{module}.{attribute}" not in MODULES:
                known = hasattr(importlib.import_module(module), attribute)
            if not known and module.split(".")[0] in MODULES:
                missing.append(f"{name}:{line}: {module}.{attribute or ''}")
    assert not missing
