"""The tables of results/, and README.md's of them, are what results/*.json make."""

import filecmp
import shutil

import reproduce
from tests.helpers.scripts import ROOT, run_script


def test_the_tables_are_those_of_the_results(tmp_path):
    results = shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.md", "*.svg"))
    readme = shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    args = f"all --tables-only --results-dir {results} --readme {readme} --save-dir {tmp_path / 'runs'}".split()
    run_script(reproduce, args)
    made = [path.relative_to(results) for path in results.rglob("*") if path.suffix in (".md", ".svg")]
    assert sorted(made) == sorted(
        path.relative_to(ROOT / "results") for path in (ROOT / "results").rglob("*") if path.suffix in (".md", ".svg")
    )
    _, different, unreadable = filecmp.cmpfiles(ROOT / "results", results, made, shallow=False)
    assert not different and not unreadable, "make tables"
    assert filecmp.cmp(ROOT / "README.md", readme, shallow=False), "make tables"
