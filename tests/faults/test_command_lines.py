"""Odd command lines: every option of every script, with values that nobody should give."""

import random
import sys
from functools import partial
from importlib import import_module

from common.errors import option
from tests.faults.attack import GIB, attack, scaled
from tests.faults.test_kills import FOLDERS
from tests.helpers.scripts import run_script

import pytest

ODD = [
    *("", " ", "x", "x" * 5000, "ü\n", "-", "--", "None", "True", "[]", "{}", "../x", "/dev/null", "/dev/zero"),
    *("0", "-1", "1", "2", "7", "300000", "1000000", str(2**31), str(2**63), "99999999999999999999", "-" + "9" * 30),
    *("nan", "inf", "-inf", "1e38", "1e-38", "1e400", "0.5", "-0.5", "1e6"),
]
TINY = ("--demo", "--epochs", "1", "--annealing-epochs", "1", "--batch-size", "10", "--n-latents", "4", "--limit", "12")
IMPORTANCE_WEIGHTED = ("cub.train", "mnist_svhn.train")  # with 30 samples by default, which take a minute
SCRIPTS = [f"{folder}.train" for folder in FOLDERS]


def odd_lines(module, n, seed):
    """n command lines of a short training with one or two odd options more."""
    rng = random.Random(seed)
    names = sorted({option(name) for name in module.Config.__dataclass_fields__} - {"--download", "--epochs"})
    for i in range(n):
        odd = [word for _ in range(rng.choice([1, 1, 2])) for word in (rng.choice(names), rng.choice(ODD))]
        few = ["--K", "2"] if module.__name__ in IMPORTANCE_WEIGHTED else []
        yield [*TINY, *few, "--save-dir", f"run{i}", *odd]


def run(module, args):
    sys.argv = [module.__file__, *args]
    run_script(module, args)


@pytest.mark.parametrize("name", SCRIPTS)
def test_odd_options_end_in_one_line_or_a_training(name, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    module = import_module(name)
    lines = odd_lines(module, scaled(5), SCRIPTS.index(name))
    calls = ((" ".join(args)[:300], partial(run, module, args)) for args in lines)
    attack("odd command lines", calls, memory=2 * GIB, trains=True)
