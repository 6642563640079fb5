"""A script whose output nobody reads to its end."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_reader_that_has_enough_ends_the_script_quietly():
    command = [sys.executable, "loglike.py", "--help"]
    with subprocess.Popen(command, cwd=ROOT / "mnist", stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141
