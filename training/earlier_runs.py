"""The options of an earlier run, as --resume and --pre-trained take them up."""

import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from common.data.schemas import read_json
from common.errors import InputError, brief, flag, require
from training.objective_options import Unset
from training.option_groups import choices_of
from training.options import RunConfig

NOT_TAKEN_OVER = {"save_dir", "experiment", "resume", "settings"}  # by a resumed run
# may differ from the resumed run's options; paths are included, since a folder has many names
NOT_OF_THE_RUN = NOT_TAKEN_OVER | {"data_dir", "cache_dir", "download", "pre_trained", "vocab"}
OF_THIS_EXPERIMENT = "give the file of a run of this experiment"


class About(msgspec.Struct):
    """The fields that config.json must have; see also `Run.about`."""

    experiment: str
    config: dict[str, Any]
    started: str = ""


def options_of(given: RunConfig) -> dict[str, Any]:
    """The options of the run that --resume continues, else of the one that --pre-trained names."""
    config, before = type(given), given.save_dir / given.experiment / "config.json"
    if given.resume and before.exists():
        options = read_json(before, About, "choose another --save-dir").config
        options = {name: value for name, value in options.items() if name not in NOT_TAKEN_OVER}
        return taken_up(config, options, before, "choose another --save-dir")
    if not given.pre_trained:
        return {}
    from common.checkpoints import load_config  # needs torch, which --help does without

    names = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda"}
    options = {name: value for name, value in load_config(given.pre_trained).items() if name in names}
    return without_derived(config, taken_up(config, options, given.pre_trained, OF_THIS_EXPERIMENT))


def without_derived(config: type, options: dict[str, Any]) -> dict[str, Any]:
    """The options without those that a config derives from the others, so that these follow when others change."""
    completed = config(**options)
    for field in dataclasses.fields(config):
        if field.default is None or isinstance(field.default, Unset):
            fewer = {name: value for name, value in options.items() if name != field.name}
            if config(**fewer) == completed:
                options = fewer
    return options


def taken_up(config: type, options: dict[str, Any], source: Path, remedy: str) -> dict[str, Any]:
    """The options of another run, as config.json and checkpoints hold them, with the types of a config.

    Options that are None are left out.

    Args:
        source, remedy: where the options were read, and what to do if they do not fit, for messages.

    Raises:
        InputError: `config` lacks an option, or does not allow its value.
    """
    hints = get_type_hints(config)
    unknown = [name for name in options if name not in config.__dataclass_fields__]
    require(not unknown, f"{source} has options that this script lacks, {', '.join(unknown[:3])}: {remedy}")
    taken = {name: value for name, value in options.items() if value is not None}
    for name, value in taken.items():
        try:
            taken[name] = msgspec.convert(value, hints[name], dec_hook=lambda kind, text: kind(text))
        except msgspec.ValidationError as error:
            choices = ", ".join(map(str, choices_of(config, name)))
            allowed = f"this script has {choices}" if choices else brief(error)
            raise InputError(f"{source} was trained with {flag(name, value)}, {allowed}: {remedy}") from error
    return taken
