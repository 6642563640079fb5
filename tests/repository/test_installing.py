"""What is installed with what, and what is said where an extra is missing."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import venv
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from common.errors import InputError
from cub import analyse as cub_analyse
from mnist import analyse as mnist_analyse
from tests.helpers.scripts import ROOT
from tests.repository.test_imports import MODULES, tree_of

import pytest
from packaging.requirements import Requirement

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
NOT_PINNED = ("bench", "tensorboard", "wandb", "mlflow")  # hundreds of MB, which .ci/run installs itself
PROGRAMS_WITH_EXTRAS = ("explore", "reproduce", "tools", "tests", "setup")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {normal(Requirement(line).name) for line in requirements}


def with_needs(packages):
    """The packages and all that they need, but for setuptools, which Python's own tools bring."""
    found, todo = set(), [*packages]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            needed = map(Requirement, distribution(name).requires or ())
            todo += [normal(r.name) for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found - {"setuptools"}


def pinned(file):
    lines = [line for line in (ROOT / file).read_text().splitlines() if line and line[0] not in "#-"]
    return {normal(name): version for name, version in (line.split("==") for line in lines)}


def test_each_setup_installs_what_it_needs_and_nothing_else():
    base, more = pinned("requirements.txt"), pinned("requirements-all.txt")
    extras = set().union(*(names(lines) for extra, lines in EXTRAS.items() if extra not in NOT_PINNED))
    assert base.keys() == with_needs(names(PROJECT["dependencies"]))
    assert more.keys() == with_needs(names(PROJECT["dependencies"]) | extras) - base.keys()
    for line in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]:
        requirement = Requirement(line)
        version = (base | more).get(normal(requirement.name))
        assert version is None or requirement.specifier.contains(version), f"{line}, pinned is {version}"


def test_nothing_but_the_programs_that_need_extras_imports_them_first():
    """Imports inside functions are made when they are needed."""
    base, packages = names(PROJECT["dependencies"]), packages_distributions()
    known = MODULES.keys() | sys.stdlib_module_names
    for name in MODULES:
        if name.split(".")[0] in PROGRAMS_WITH_EXTRAS:
            continue
        for node in tree_of(name).body:
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module] if isinstance(node, ast.ImportFrom) else []
            for top in {module.split(".")[0] for module in imported} & packages.keys() - known:
                assert {normal(package) for package in packages[top]} & base, f"{name} imports {top}"


@pytest.mark.parametrize(("script", "package"), [("explore.py", "gradio"), ("reproduce.py", "submitit")])
def test_a_program_names_the_extra_that_it_lacks(script, package, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match="^2$"):
        runpy.run_path(str(ROOT / script), run_name="__main__")
    remedy = f"pip install {package}, or make setup-all for all extras"
    assert capsys.readouterr().err == f"error: {script} needs {package}: {remedy}\n"


def test_umap_is_missed_before_minutes_of_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    for analyse in (mnist_analyse, cub_analyse):
        with pytest.raises(InputError, match=r"needs umap-learn: (give --no-umap, )?pip install umap-learn, or make"):
            analyse.Config(tmp_path).check()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what an installation reads."""
    folder, left_out = tmp_path_factory.mktemp("checkout"), shutil.ignore_patterns("__pycache__", "*.png", "*.json")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "explore.py", "reproduce.py"):
        shutil.copy(ROOT / name, folder)
    for package in (path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"):
        shutil.copytree(package, folder / package.name, ignore=left_out)
    return folder


@pytest.mark.slow
def test_a_copy_in_site_packages_is_refused(checkout, tmp_path):
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", tmp_path / "site"]
    command = [sys.executable, "-m", "pip", "install", *options, checkout]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 1 and not (tmp_path / "site").exists()
    assert "multimodal-vaes is used from its checkout: pip install --editable PATH-OF-THE-CHECKOUT\n" in done.stdout


@pytest.mark.slow
def test_packages_of_the_same_names_and_this_checkout_do_not_hide_each_other(checkout, tmp_path):
    """PyPI's mnist beside the checkout, and a project with a folder common of its own."""
    build = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    for package in (site / "mnist", tmp_path / "project" / "common"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()

    def imported(folder):
        (folder / "probe.py").write_text("import common, mnist\nprint(common.__file__, mnist.__file__)")
        command = [tmp_path / "venv" / "bin" / "python", "probe.py"]
        given = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        said = subprocess.run(command, cwd=folder, env=given, check=True, stdout=subprocess.PIPE, text=True).stdout
        return [Path(file).parents[1] for file in said.split()]

    (tmp_path / "other").mkdir()
    assert imported(checkout / "mnist") == imported(checkout / "vhe") == imported(tmp_path / "other") == [checkout] * 2
    assert imported(tmp_path / "project") == [tmp_path / "project", site]
