"""What tests of scripts share: the repository's root, a call of a script in this process, the README's Python."""

import re
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[2]


def call(script, *args):
    """A script's main on parsed arguments, in this process."""
    return script.main(tyro.cli(script.Config, args=[str(arg) for arg in args]))


def python_of_the_readme():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
