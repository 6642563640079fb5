"""--help of every script: each option once, with its help; and the configs that the command line gives."""

import dataclasses
import importlib
import re
from itertools import pairwise
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

from common.errors import option
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, objectives_of
from mnist import loglike
from tests.helpers.scripts import ROOT, scripts
from training.command_line import parse
from training.options import NOT_OF_THE_RUN, RunConfig

import pytest
import tyro

WIDTH = 100


def commands():
    """(script, command or "", config) of every script that reads its options by `run_from_command_line`."""
    for script in sorted(scripts() | {"reproduce.py"}):
        if "run_from_command_line(" in (ROOT / script).read_text():
            module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
            if hasattr(module, "Config"):
                yield module, "", module.Config
            else:
                for command in get_args(module.Command):
                    config = get_args(command)[0] if get_origin(command) is Annotated else command
                    yield module, config.__name__.lower(), config


def shown(config, args, capsys, description=None):
    with pytest.raises(SystemExit) as exit_:
        parse(config, description, [*args, "--help"])
    assert exit_.value.code == 0
    return capsys.readouterr().out


def boxes(text):
    """{title: [(flags and placeholders, lines of help)]} of what tyro prints below the description, in one column."""
    titles, lines = {}, text.split("\n")
    for line, following in pairwise(lines):
        if following.strip() and not following.strip(" -"):
            box = titles.setdefault(line.strip(), [])
        elif re.match("  [^ ]", line):
            flags, _, told = line.strip().partition("  ")
            if box and box[-1][0].count("{") > box[-1][0].count("}"):  # its choices go on
                flags = f"{box.pop()[0]}{flags}"
            box.append((flags, [told.strip()] if told else []))
        elif line.startswith("   ") and line.strip() and titles:
            box[-1][1].append(line.strip())
    return titles


def options_of(config):
    hints = get_type_hints(config, include_extras=True)
    hidden = {tyro.conf.Suppress[int].__metadata__[0], tyro.conf.Positional[int].__metadata__[0]}
    fields = [field.name for field in dataclasses.fields(config)]
    return {option(name) for name in fields if not hidden & set(getattr(hints[name], "__metadata__", ()))}


@pytest.mark.slow
def test_help_has_every_option_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for module, command, config in commands():
        whole = getattr(module, "Config", None) or module.Command
        text = shown(whole, [command] if command else [], capsys, module.__doc__)
        assert text.startswith(module.__doc__), "as it is, with its examples"
        assert "{None}" not in text and "|None" not in text and "ANNOTATED" not in text
        titles = boxes(text.removeprefix(module.__doc__))
        rows = [row for box in titles.values() for row in box]
        flags = [flag.split(" ")[0] for row, _ in rows for flag in row.split(", ")]
        assert len(flags) == len(set(flags)) and options_of(config) <= set(flags), module
        for row, told in rows:
            assert told and " ".join(told).count("(default: ") <= 1, f"{module}: {row}"


def test_the_model_is_given_as_an_argument_or_as_save_dir():
    for named in (["model"], ["--save-dir", "model"]):
        assert parse(loglike.Config, args=named) == loglike.Config(Path("model"))


def test_choices_are_told_by_the_records(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    from vision.train import Config

    rows = {row.split(" ")[0]: (row, told) for box in boxes(shown(Config, [], capsys)).values() for row, told in box}
    fusions = ("poe", "product", "moe", "mopoe", "mopoe-published")
    existing = {name for fusion in fusions for name in objectives_of(fusion)}
    assert "jmvae" not in existing
    row, told = rows["--obj"]
    assert row == f"--obj {{{','.join(name for name in OBJECTIVES if name in existing)}}}"
    for name in OBJECTIVES:
        assert (f"{name}: {OBJECTIVES[name].summary}" in " ".join(told)) == (name in existing)
    assert "poe: " + FUSIONS["poe"].summary in " ".join(rows["--fusion"][1])
    assert "own: " not in " ".join(rows["--fusion"][1])
    assert "vmf: " + FAMILIES["vmf"].summary in " ".join(rows["--posterior"][1])


def test_no_place_on_the_users_machine_is_an_option_of_the_run():
    """Paths may differ when a run is resumed, and are not published; images_dir lies in the data-dir."""
    places = {
        field.name
        for _, _, config in commands()
        if issubclass(config, RunConfig)
        for field in dataclasses.fields(config)
        if Path in (hint := get_type_hints(config)[field.name], *get_args(hint))
    }
    assert {"save_dir", "data_dir", "vocab"} <= places and places - NOT_OF_THE_RUN <= {"images_dir"}
