"""The tables of results/ are what results/*.json make."""

import filecmp
import shutil

import reproduce
from tests.helpers.scripts import ROOT, run_script


def test_the_tables_are_those_of_the_results(tmp_path):
    results = shutil.copytree(ROOT / "results", tmp_path / "results", ignore=shutil.ignore_patterns("*.md", "*.svg"))
    shutil.copy(ROOT / "results" / "README.md", results)
    args = f"all --tables-only --results-dir {results} --page {results / 'README.md'} --save-dir {tmp_path / 'runs'}"
    run_script(reproduce, args.split())
    made = [path.name for path in results.glob("*") if path.suffix in (".md", ".svg")]
    assert sorted(made) == sorted(path.name for path in (ROOT / "results").glob("*") if path.suffix in (".md", ".svg"))
    _, different, unreadable = filecmp.cmpfiles(ROOT / "results", results, made, shallow=False)
    assert not different and not unreadable, "make tables"
