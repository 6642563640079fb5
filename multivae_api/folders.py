"""A model in a folder, as MultiVae saves it: `model_config.json` and `model.pt`, without any code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from common import checkpoints
from common.errors import InputError, require
from common.io import write_atomically
from multivae_api.config import MMVAEConfig

CONFIG, PARAMETERS = "model_config.json", "model.pt"
NAME = MMVAEConfig.__name__  # what MultiVae tells the configurations of its models by


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
    checkpoints.save(folder / PARAMETERS, {"model_state_dict": dict(parameters)})


def read_config(folder: Path) -> MMVAEConfig:
    """Read the configuration of a folder's model.

    Raises:
        InputError: the file is missing or damaged, or belongs to another model.
    """
    path = folder / CONFIG
    require(path.is_file(), f"{path} is missing: give a folder that model.save made")
    try:
        options = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): save the model again") from error
    name = options.pop("name", None) if isinstance(options, dict) else None
    require(name == NAME, f"{path} is the configuration of {name}, not of {NAME}: give a folder of an MMVAE")
    unknown = set(options) - set(MMVAEConfig.__dataclass_fields__)
    require(not unknown, f"{path} has the unknown options {', '.join(sorted(unknown))}: save the model again")
    require("n_modalities" in options, f"{path} has no n_modalities: save the model again")
    if options.get("input_dims"):
        options["input_dims"] = {name: tuple(shape) for name, shape in options["input_dims"].items()}
    return MMVAEConfig(**options)


def read_parameters(folder: Path) -> dict[str, Tensor]:
    """Read the parameters of a folder's model; nothing but tensors is unpickled.

    Raises:
        InputError: the file is missing or damaged, or holds anything else.
    """
    path = folder / PARAMETERS
    require(path.is_file(), f"{path} is missing: give a folder that model.save made")
    parameters = checkpoints.load(path).get("model_state_dict")
    require(isinstance(parameters, dict), f"{path} has no model_state_dict: give a folder that model.save made")
    return parameters
