"""The configuration that each command of each README means, the originals' commands beside ours among them."""

import importlib
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from common.errors import InputError
from tests.golden import check
from tests.helpers.scripts import run_script
from tests.repository.test_readmes import READMES, readme_commands, tabulated_commands, translated_commands
from training.options import as_json

import pytest
import tyro


def meant(module, args: list[str]) -> Any:
    """The config of a command; of one that names a run, its options without those of the run, which is not there."""
    found = []
    try:
        run_script(module, args, found.append)
    except SystemExit:
        assert "--pre-trained" in args, args
        found.append(tyro.cli(module.Config, args=args, config=(tyro.conf.DisallowNone,)))
    return found[0]


def defaults(config: type) -> dict[str, Any]:
    """The options of a script that is called without any but those that it needs."""
    needed = [Path(x.name) for x in fields(config) if x.default is x.default_factory is MISSING]
    try:
        return as_json(config(*needed))
    except InputError:
        return as_json(config(Path("model")))


@pytest.mark.parametrize("readme", [readme for readme in READMES if readme != "multivae_api/README.md"])
def test_commands_mean_the_same_configurations(readme):
    found = {}
    commands = (*readme_commands(readme), *translated_commands(readme), *tabulated_commands(readme))
    for folder, (script, *args) in dict.fromkeys((folder, tuple(command)) for folder, command in commands):
        if {"-h", "--help"} & set(args):
            continue
        module = importlib.import_module(".".join([*folder.parts, script.removesuffix(".py")]))
        given, name = meant(module, list(args)), str(folder / script)
        of_none = defaults(type(given))
        found.setdefault(f"{name} {args[0]}" if hasattr(module, "Command") else name, of_none)
        changed = {key: value for key, value in as_json(given).items() if value != of_none.get(key)}
        found[f"{name} {' '.join(args)}"] = changed
    check(f"commands/{Path(readme).parent.name or 'README'}", found)
