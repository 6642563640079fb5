"""The tool for mutation testing: what it changes, and that it sees which tests notice."""

import ast
import re
import subprocess
import sys

import pytest

from tests.helpers.mutants import mutants
from tests.mutations import ROOT

SOURCE = '''
"""A docstring of 1 - 2."""
def f(x: int = 1, *, dim: int | None = None) -> float:
    require(x > 0, f"x must be above {0 + 1}")
    x = x.detach().sum(dim=0)
    return -x if not dim else min(x, 2.0)
'''


def test_operators_constants_conditions_and_statements_change_and_messages_do_not():
    tree = ast.parse(SOURCE)
    found = {str(mutant) for mutant in mutants(tree)}
    assert found == {
        "1 -> 2",
        "x > 0 -> x >= 0",
        "0 -> 1",
        "require(x > 0, f'x must be above {0 + 1}') -> pass",
        "x = x.detach().sum(dim=0) -> pass",
        "x.detach().sum -> x.detach().mean",
        "x.detach() -> x",
        "-x -> x",
        "not dim -> dim",
        "min -> max",
        "2.0 -> 4.0",
    }
    assert ast.unparse(tree) == ast.unparse(ast.parse(SOURCE)), "the tree is as it was"


@pytest.mark.slow
def test_mutants_of_a_module_die_by_its_tests_and_not_by_others(tmp_path):
    command = [sys.executable, "-m", "tests.mutations", "common/data/records.py"]
    results = {}
    for test, path in {"test_records": "data/test_records.py", "test_subsets": "test_subsets.py"}.items():
        options = ["--tests", f"tests/common/{path}", "--log", tmp_path / test]
        run = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
        results[test] = re.findall(r"^common/data/records.py: .*", run.stdout, re.MULTILINE)
    assert results == {
        "test_records": ["common/data/records.py: 3 mutants, 3 killed, 0 survived"],
        "test_subsets": ["common/data/records.py: 3 mutants, 0 killed, 3 survived"],
    }
