"""A model in a folder, as MultiVae saves it: `model_config.json` and `model.pt`, without any code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.errors import InputError, brief, require
from common.io import as_type, load_tensors, read_json, save_tensors, write_atomically
from multivae_api.config import HINTS, MMVAEConfig, Options

import msgspec
from torch import Tensor

CONFIG, PARAMETERS = "model_config.json", "model.pt"
GIVE = "give a folder that model.save made"
NAME = MMVAEConfig.__name__  # by which MultiVae recognises the configuration


def write(folder: Path, config: MMVAEConfig, parameters: Mapping[str, Tensor]) -> None:
    """Write a model's configuration and parameters; the folder is made if it does not exist.

    Raises:
        InputError: a likelihood is a function, or the folder cannot be written.
    """
    functions = [name for name, dist in (config.decoders_dist or {}).items() if callable(dist)]
    require(
        not functions,
        f"decoders_dist of {', '.join(functions)} is a function, which no file keeps: save model.state_dict() instead",
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} could not be made ({error.strerror}): give another folder") from error
    write_atomically(folder / CONFIG, json.dumps({"name": NAME} | asdict(config), indent=4).encode())
    save_tensors(folder / PARAMETERS, {"model_state_dict": dict(parameters)})


class Saved(msgspec.Struct):
    """The file of parameters."""

    model_state_dict: dict[str, Tensor]


def read_config(folder: Path) -> MMVAEConfig:
    """Read the configuration of a folder's model.

    Raises:
        InputError: the file is missing or damaged, or belongs to another model.
    """
    path = folder / CONFIG
    options = read_json(path, dict[str, Any], GIVE)
    name = options.pop("name", None)
    require(name == NAME, f"{path} is the configuration of {str(name)[:100]}, not of {NAME}: {GIVE}")
    unknown = set(options) - set(HINTS)
    require(not unknown, brief(f"{path} has the unknown options {', '.join(sorted(unknown))}") + f": {GIVE}")
    require("n_modalities" in options, f"{path} has no n_modalities: {GIVE}")
    return MMVAEConfig(**as_type(options, Options, str(path), GIVE))


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """Read the parameters of a folder's model; nothing but tensors is unpickled.

    Raises:
        InputError: the file is missing or damaged, or holds anything else.
    """
    return load_tensors(folder / PARAMETERS, Saved, GIVE, GIVE).model_state_dict
