"""What tests of scripts share: root and scripts of the repository, a call in this process, the README's Python."""

import re
from pathlib import Path

from training import run_from_command_line
from training.command_line import parse

ROOT = Path(__file__).parents[2]


def scripts():
    """The paths of all scripts in the repository's folders, from its root."""
    folders = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    return {path.relative_to(ROOT).as_posix() for path in sources if '__name__ == "__main__"' in path.read_text()}


def call(script, *args):
    """A script's main on parsed arguments, in this process."""
    return script.main(parse(script.Config, args=[str(arg) for arg in args]))


def python_of_the_readme():
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def run_script(module, args, main=None, description=""):
    """Call a script as from the command line, or another function with the config that its main gets."""
    config = module.Config if hasattr(module, "Config") else module.Command
    named = {name.lower(): getattr(module, name) for name in ("PAPER", "DEMO") if hasattr(module, name)}
    run_from_command_line(main or module.main, config, description, [str(arg) for arg in args], **named)
