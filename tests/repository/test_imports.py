"""Who imports whom: `common/` reads from top to bottom, knows no experiment, and nothing imports in a circle.

Imports inside functions count, those under TYPE_CHECKING do not. `from package import name` is an import of the module
that the package has the name from.
"""

import ast
import importlib
import re
from functools import cache
from graphlib import TopologicalSorter

import common
from tests.helpers.scripts import ROOT

ENTRY = re.compile(r"^(    |        )(\w+)(/?): \S", re.MULTILINE)
LAYERS = {"common", "training", "reports"}
MULTIVAE = ("common.models", "multivae_api")  # MultiVae's users look for its MMVAE in common.models


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FOLDERS = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()]
MODULES = {module_name(path): path for folder in FOLDERS for path in folder.rglob("*.py")}
MODULES |= {module_name(path): path for path in ROOT.glob("*.py")}


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


def imported_names(name):
    """What a module's import statements name: (module, attribute or None)."""
    for node in statements(tree_of(name)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno} imports relatively: write the whole name"
            yield from ((node.module, alias.name) for alias in node.names)


@cache
def imports(name):
    """The repository's modules that one imports."""
    found = set()
    for module, attribute in imported_names(name):
        target = f"{module}.{attribute}" if f"{module}.{attribute}" in MODULES else module
        if target in MODULES:
            found.add(handed_on(target).get(attribute, target))
    return {target for target in found if not target.startswith(f"{name}.")}  # a package hands on what it has


def reading_order():
    """The modules of common/ as its docstring lists them."""
    names, room = [], ""
    for indent, name, slash in ENTRY.findall(common.__doc__):
        inside = len(indent) == 8
        names.append(f"common.{room}.{name}" if inside else f"common.{name}")
        if not inside:
            room = name if slash else ""
    return names


ORDER = reading_order()


def test_a_module_of_common_imports_only_what_stands_above_it():
    modules = sorted(name for name in MODULES if name.startswith("common."))
    assert sorted(ORDER) == modules, "common/__init__.py lists each module of common/, a room with a slash"
    below = [(name, target) for i, name in enumerate(ORDER) for target in imports(name) if target in ORDER[i + 1 :]]
    assert not below, "these import what stands below them in common/__init__.py"


def test_layers_import_no_experiment_and_programs_no_tests():
    tops = {(name, target.split(".")[0]) for name in MODULES for target in imports(name)}
    of_common = {(name, top) for name, top in tops if name.split(".")[0] == "common" and top != "common"}
    assert of_common == {MULTIVAE}
    assert not [pair for pair in tops - {MULTIVAE} if pair[0].split(".")[0] in LAYERS and pair[1] not in LAYERS]
    assert not [name for name, top in tops if top == "tests" and name.split(".")[0] != "tests"]
    by_name = [name for name in ORDER if "import_module(" in MODULES[name].read_text()]
    assert by_name == ["common.checkpoints"], "a checkpoint names the experiment that builds its model"


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({name: imports(name) - {name} for name in MODULES}).prepare()


def test_imported_names_exist():
    """The repository's own modules have them: an import inside a function would fail only when it is called."""
    missing = []
    for name in MODULES:
        for module, attribute in imported_names(name):
            if module.split(".")[0] in MODULES and f"{module}.{attribute}" not in MODULES:
                known = module in MODULES and hasattr(importlib.import_module(module), attribute or "__name__")
                missing += [] if known else [f"{name}: {module}.{attribute}"]
    assert not missing


def loaded_first(name, seen):
    """Which of common and torch a module loads first; None if neither."""
    seen.add(name)
    for module, attribute in imported_names(name):
        base = module.split(".")[0]
        if base in ("common", "torch", "torchvision", "sklearn"):
            return base
        parts = [module[:i] for i, x in enumerate(f"{module}.") if x == "."] + [f"{module}.{attribute}"]
        found = (loaded_first(part, seen) for part in parts if part in MODULES and part not in seen)
        first = next((x for x in found if x), None)
        if first:
            return first
    return None


def test_common_is_imported_before_torch():
    """It says how OpenMP's threads wait, which torch reads when it is loaded. (Leaves import nothing of ours.)"""
    late = []
    for name in (name for name in MODULES if name.split(".")[0] not in ("common", "tests", "reference")):
        ours = any(module.split(".")[0] in {x.split(".")[0] for x in MODULES} for module, _ in imported_names(name))
        late += [name] if ours and loaded_first(name, set()) not in ("common", None) else []
    assert not late
