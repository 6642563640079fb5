"""Checkpoints: atomic saving, safe loading, and the original authors' files."""

import io
import json
import re
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import InputError, require
from common.io import DAMAGE, write_atomically
from common.multimodal_vae import MultimodalVAE

OF_MVAE = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19")
OF_MMVAE = {"mnist_svhn": "mnist_svhn", "cubIS": "cub", "cubISft": "cub"}  # by the name of their --model
# the module that builds the model of each: none of the scripts, which run under another name
EXPERIMENTS = {name: f"{name}.model" for name in (*OF_MVAE, *OF_MMVAE.values(), "vhe")}
EXPERIMENTS |= {"vision": "vision.model", "halves": "mnist.parts.model", "pixels": "mnist.parts.model"}
LAST, BEST = "checkpoint.pth.tar", "model_best.pth.tar"
MMVAE = "model.rar", "args.json"  # what the MMVAE authors' code leaves in a run's folder


def save(path: Path, checkpoint: dict) -> None:
    """Save tensors and plain containers atomically."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path) -> dict:
    """Load tensors and plain containers; nothing else is unpickled.

    Raises:
        InputError: missing, truncated, not a checkpoint, or one that holds code.
    """
    require(path.is_file(), f"{path} is missing: give a checkpoint, or the folder of a run (train.py writes {BEST})")
    try:
        if zipfile.is_zipfile(path):  # torch does not look at the checksums of its archives
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            require(damaged is None, f"{path} is damaged (in {damaged}): use another one of that run")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise InputError(f"{path} is refused: it holds {foreign[1]}, and loading that could run code") from error
        raise InputError(f"{path} is truncated, damaged or no checkpoint: use another one of that run") from error
    require(isinstance(checkpoint, dict), f"{path} is not a model's checkpoint: it holds a {type(checkpoint).__name__}")
    return checkpoint


def load_model(path: str | Path, experiment: str | None = None) -> nn.Module:
    """The model of a checkpoint, in evaluation mode: ours, or the original authors' own file.

    Args:
        path: the file, or a save-dir (its best model); also the MMVAE authors' folder.
        experiment: the only experiment that is welcome; any by default.

    Returns:
        a MultimodalVAE, of vhe a VHE.

    Raises:
        InputError: the file is unusable (see `load`), or of another experiment.
    """
    path = _file(path)
    checkpoint = load(path)
    name, config, convert = _read(checkpoint, path, experiment)
    try:
        model = import_module(EXPERIMENTS[name]).build(SimpleNamespace(**config))
        model.load_state_dict(convert(checkpoint, model))
    except (RuntimeError, TypeError, AttributeError, ValueError, KeyError) as error:
        raise InputError(f"{path} does not fit the networks of {name}: {' '.join(str(error).split())[:300]}") from error
    broken = [key for key, x in model.state_dict().items() if not x.isfinite().all()]
    require(not broken, f"{path} holds values that are not finite, in {', '.join(broken[:3])}: use another one")
    return model.eval()


def start_from(path: Path, model: nn.Module, experiment: str, config: dict[str, Any]) -> None:
    """Give a model of a configuration the parameters of a checkpoint of the experiment (see `load_model`)."""
    trained = load_config(path, experiment)
    anew = getattr(import_module(EXPERIMENTS[experiment]), "ANEW", {})  # {option: prefix of what begins anew with it}
    others = tuple(prefix for name, prefix in anew.items() if trained.get(name) != config.get(name))
    # other meanings of parameters that may have the same shapes
    for name in ("model", "fusion", "posterior", "prior_and_posterior", "likelihood"):
        was, asked = trained.get(name, config.get(name)), config.get(name)
        require(was == asked, f"{path} has {name.replace('_', ' ')} {was}, not {asked}: its parameters would not fit")
    try:
        own = {name: x for name, x in model.state_dict().items() if name.startswith(others)}
        theirs = load_model(path, experiment).state_dict()
        model.load_state_dict({name: x for name, x in theirs.items() if not name.startswith(others)} | own)
    except RuntimeError as error:
        raise InputError(f"{path} has other networks: {' '.join(str(error).split())[:300]}") from error


def load_config(path: str | Path, experiment: str | None = None) -> dict[str, Any]:
    """The options that a checkpoint's model was trained with; as `load_model`."""
    path = _file(path)
    return _read(load(path), path, experiment)[1]


def experiment_of(path: str | Path) -> str:
    """The experiment that a checkpoint is of; as `load_model`."""
    path = _file(path)
    return _read(load(path), path, None)[0]


def _file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        return path / next((name for name in (BEST, MMVAE[0]) if (path / name).is_file()), BEST)
    return path


def _read(checkpoint: dict, path: Path, experiment: str | None) -> tuple[str, dict[str, Any], Callable]:
    """The experiment, its configuration, and what makes a state dict of the checkpoint for a model."""
    read = _ours if "experiment" in checkpoint else _mmvae if path.name == MMVAE[0] else _authors
    name, config, convert = read(checkpoint, path)
    require(name in EXPERIMENTS, f"{path} is of the experiment {name!r}; known are {', '.join(EXPERIMENTS)}")
    require(experiment in (None, name), f"{path} is a checkpoint of {name}, not of {experiment}: use {name}'s scripts")
    return name, config, convert


def _ours(checkpoint: dict, path: Path) -> tuple[str, dict[str, Any], Callable]:
    lacking = [key for key in ("config", "state_dict") if key not in checkpoint]
    require(
        not lacking, f"{path} is no whole checkpoint, it lacks {' and '.join(lacking)}: use another one of that run"
    )
    return checkpoint["experiment"], checkpoint["config"], lambda checkpoint, model: checkpoint["state_dict"]


def _authors(checkpoint: dict, path: Path) -> tuple[str, dict[str, Any], Callable]:
    """The MVAE authors' dict (state_dict, n_latents, best_loss, optimizer).

    It is recognised by its parameters' names. An experiment's `AUTHORS` maps each of our parameters to theirs, which
    are concatenated; `AUTHORS_OPTIONS` are those of our `build` that give their model.
    """
    theirs = checkpoint.get("state_dict")
    for name in OF_MVAE:
        module = import_module(f"{name}.model")
        names = {key for keys in module.AUTHORS.values() for key in keys}
        # batch norm counted its batches only after the authors' time; nothing looks at the count
        if isinstance(theirs, dict) and "n_latents" in checkpoint and _without_counts(theirs) == names:
            config = {"n_latents": checkpoint["n_latents"], **module.AUTHORS_OPTIONS}
            return name, config, lambda checkpoint, model, module=module: _rename(theirs, module.AUTHORS, model)
    raise InputError(f"{path} is no checkpoint of this repository, nor of an experiment it knows")


def _mmvae(checkpoint: dict, path: Path) -> tuple[str, dict[str, Any], Callable]:
    """The MMVAE authors' state dict, whose options lie beside it. Copies that nothing uses are left out."""
    options = path.with_name(MMVAE[1])
    try:
        args = json.loads(options.read_text())
        name = OF_MMVAE[args["model"]]
        config, layout = import_module(f"{name}.model").authors(args)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{options}, which {path.name} needs beside it, is missing or no options of MMVAE's"
        ) from error
    return name, config, lambda checkpoint, model: _rename(checkpoint, layout, model)


def _rename(theirs: dict[str, Tensor], layout: dict[str, tuple[str, ...]], model: MultimodalVAE) -> dict[str, Tensor]:
    """Our state dict: the entries of theirs that belong together, concatenated, in our shapes."""
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    return {ours: torch.cat([theirs[key] for key in keys]).reshape(shapes[ours]) for ours, keys in layout.items()}


def _without_counts(state_dict: dict) -> set:
    return {key for key in state_dict if not str(key).endswith("num_batches_tracked")}
