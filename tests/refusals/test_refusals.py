"""What scripts refuse: a table for each folder, FOLDER.txt, has commands and the one line in which each of them ends.

    $ sample.py run --demo --condition-on-text 12
    error: --condition-on-text: a class is a number from 0 to 9, not '12'

A command runs beside `run`, a trained model of the folder (those of other folders are `run_FOLDER`), and the files of
`FILES`. It has to exit with 2, print nothing else and change no file. A line "# ..." is a comment.
`GOLDEN=write python -m pytest tests/refusals` writes the lines anew; then read `git diff tests/refusals`.
"""

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

from common.progress import print_once
from tests.golden import WRITES
from tests.helpers.scripts import run_script

import pytest
from PIL import Image

TABLES = sorted(Path(__file__).parent.glob("*.txt"))


def files():
    """What commands are given beside the trained models."""
    Path("empty").mkdir()
    Path("text.txt").write_text("no picture")
    for name, line in {"damaged": "1,x", "narrow": "1,2"}.items():
        Path(name).mkdir()
        (Path(name) / "mfeat-fou.csv").write_text(f"0,1\n{line}\n")
    Image.new("L", (28, 28), "white").save("blank.png")


@pytest.mark.parametrize("table", TABLES, ids=[path.stem for path in TABLES])
def test_what_scripts_refuse(table, trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files()
    text, found, wrong = table.read_text(), [], []
    asked = "\n".join(line for line in text.splitlines() if line.startswith("$"))
    for other in {*re.findall(r"\brun_(\w+)", asked), *([table.stem] if re.search(r"\brun\b", asked) else [])}:
        shutil.copytree(trained(other), "run" if other == table.stem else f"run_{other}")
    before = snapshot()
    for line in text.splitlines():
        if line.startswith(("#", "$")):
            found.append(line)
        if not line.startswith("$"):
            continue
        script, *args = shlex.split(line[2:])
        ending = outcome(importlib.import_module(module_of(table.stem, script)), script, args, monkeypatch, capsys)
        found.append(ending)
        if not re.fullmatch(r"2: (error|.*\.py): [^\n]+", ending):
            wrong.append(f"{line}\nends in {ending}")
        if snapshot() != before:
            changed = {path for path, _ in snapshot().items() ^ before.items()}
            wrong.append(f"{line}\nchanges {sorted(changed)[:3]}")
    found = "\n".join(line.removeprefix("2: ") for line in found) + "\n"
    assert not wrong, "\n".join(wrong)
    if WRITES:
        table.write_text(found)
    assert table.read_text() == found


def module_of(folder, script):
    name = script.removesuffix(".py").replace("/", ".")
    return name if folder == "root" else f"{folder}.{name}"


def outcome(module, script, args, monkeypatch, capsys):
    """The exit status and what a command prints; without an exit "none"."""
    monkeypatch.setattr(sys, "argv", [script, *args])
    print_once.cache_clear()
    capsys.readouterr()
    try:
        run_script(module, args)
        status = "none"
    except SystemExit as end:
        status = end.code
    printed = capsys.readouterr()
    return f"{status}: {printed.out}{printed.err}".removesuffix("\n")


def snapshot():
    """What lies in the working directory: {path: (size, time of the last change)}, of a folder that it exists.

    Locks and the folders that hold them alone do not count.
    """
    paths = [path for path in Path().rglob("*") if path.name != ".lock"]
    paths = [path for path in paths if path.is_file() or [x.name for x in path.iterdir()] != [".lock"]]
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else () for path in paths}
