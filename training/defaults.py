"""Where the defaults of options come from: --settings, --demo, and the earlier run of --resume or --pre-trained."""

import copy
import dataclasses
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from common.checkpoints import load_config
from common.data.schemas import read_json
from common.errors import InputError, brief, flag, option, require
from training.options import RunConfig

NOT_TAKEN_OVER = {"save_dir", "experiment", "resume"}  # by a resumed run
# may differ from the resumed run's options; paths are included, since a folder has many names
NOT_OF_THE_RUN = NOT_TAKEN_OVER | {"settings", "data_dir", "cache_dir", "download", "pre_trained", "vocab"}
OF_THIS_EXPERIMENT = "give the file of a run of this experiment"
OTHER_FOLDER = "choose another --save-dir"


class About(msgspec.Struct):
    """The fields that config.json must have; see also `Run.about`."""

    experiment: str
    config: dict[str, Any]
    started: str = ""


def resumed(given: RunConfig) -> RunConfig | None:
    """The config of the run that --resume continues; None if there is none."""
    before = given.save_dir / given.experiment / "config.json"
    if not given.resume or not before.exists():
        return None
    options = read_json(before, About, OTHER_FOLDER).config
    options = {name: value for name, value in options.items() if name not in NOT_TAKEN_OVER}
    return type(given)(**taken_up(type(given), options, before, OTHER_FOLDER))


def default_of(given: RunConfig, paper: RunConfig | None, demo: RunConfig | None) -> RunConfig | None:
    """The config that --settings paper, --demo or --pre-trained make the default; None for that of the class.

    Args:
        paper, demo: the configs of --settings paper and --demo; None where there are none.

    Raises:
        InputError: two options set the defaults, or the run that one names cannot be read.
    """
    if given.settings == "paper":
        require(paper is not None, "--settings paper: no paper has settings for this script, leave it out")
        for name in ("demo", "pre_trained"):
            alone = not getattr(given, name)
            require(alone, f"--settings paper and {option(name)} set the same defaults: leave one out")
    if given.pre_trained:
        config = type(given)
        names = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda"}
        options = {name: value for name, value in load_config(given.pre_trained).items() if name in names}
        return underived(config(**taken_up(config, options, given.pre_trained, OF_THIS_EXPERIMENT)))
    named = paper if given.settings == "paper" else demo if given.demo else None
    return named and underived(named)


def underived(config: RunConfig) -> RunConfig:
    """A config with None for what its class derives from other options, so that it follows them when they change."""
    options = vars(config)
    for field in dataclasses.fields(config):
        fewer = options | {field.name: None}
        if field.default is None and type(config)(**fewer) == config:
            options = fewer
    copied = copy.copy(config)
    vars(copied).update(options)
    return copied


def taken_up(config: type, options: dict[str, Any], source: Path, remedy: str) -> dict[str, Any]:
    """The options of another run, as config.json and checkpoints hold them, with the types of a config.

    Args:
        source, remedy: where the options were read, and what to do if they do not fit, for messages.

    Raises:
        InputError: `config` lacks an option, or does not allow its value.
    """
    hints = get_type_hints(config)
    unknown = [name for name in options if name not in config.__dataclass_fields__]
    require(not unknown, f"{source} has options that this script lacks, {', '.join(unknown[:3])}: {remedy}")
    implied = {name for name, hint in hints.items() if NoneType in get_args(hint)}  # by other options, where it is None
    taken = {name: value for name, value in options.items() if value is not None or name not in implied}
    for name, value in taken.items():
        try:
            taken[name] = msgspec.convert(value, hints[name], dec_hook=lambda kind, text: kind(text))
        except msgspec.ValidationError as error:
            raise InputError(f"{source} has {flag(name, value)}, {brief(error)}: {remedy}") from error
    return taken
