"""Checkpoints: atomic saving, safe loading, and the original authors' files."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.errors import InputError, require
from common.io import DAMAGE, write_atomically

MVAE_EXPERIMENTS = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19")
MMVAE_EXPERIMENTS = {"mnist_svhn": "mnist_svhn", "cubIS": "cub", "cubISft": "cub"}  # by the authors' --model
# the module that builds each experiment's model; never a script, which runs under another name
EXPERIMENTS = {
    name: f"{name}.model" for name in (*MVAE_EXPERIMENTS, *MMVAE_EXPERIMENTS.values(), "vhe", "vision", "translation")
}
EXPERIMENTS |= {"halves": "mnist.parts.model", "pixels": "mnist.parts.model"}
LAST, BEST = "checkpoint.pth.tar", "model_best.pth.tar"
# what the MMVAE authors' code leaves in a run's folder: parameters, options, and the options as a pickled object
MMVAE_MODEL, MMVAE_OPTIONS, MMVAE_PICKLE = "model.rar", "args.json", "args.rar"
MMVAE_REMEDY = (
    f"reading that pickle could run code, so make {MMVAE_OPTIONS} from it yourself. In its folder, in the authors' "
    f"environment (torch 1.3): python -c \"import json, torch; json.dump(vars(torch.load('{MMVAE_PICKLE}')), "
    f"open('{MMVAE_OPTIONS}', 'w'))\""
)
MISFIT = (RuntimeError, TypeError, AttributeError, ValueError, KeyError)  # what parameters of other networks raise


class Trained(NamedTuple):
    """What a checkpoint holds.

    experiment: the name of its experiment.
    config: the options that its model was trained with.
    state_dict: our model -> the checkpoint's parameters under our names, in the shapes of that model.
    """

    experiment: str
    config: dict[str, Any]
    state_dict: Callable[[nn.Module], Mapping[str, Tensor]]


def save(path: Path, checkpoint: dict) -> None:
    """Save tensors and plain containers atomically."""
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path) -> dict:
    """Load a checkpoint's tensors and plain containers; nothing else is unpickled.

    Raises:
        InputError: the file is missing, truncated, damaged, not a checkpoint, or holds code.
    """
    require(path.is_file(), f"{path} is missing: give a checkpoint, or the folder of a run (train.py writes {BEST})")
    try:
        if zipfile.is_zipfile(path):  # torch does not verify the checksums of its archives
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            require(damaged is None, f"{path} is damaged (in {damaged}): use another checkpoint of that run")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise InputError(f"{path} is refused: it holds {foreign[1]}, and loading that could run code") from error
        raise InputError(
            f"{path} is truncated, damaged or not a checkpoint: use another checkpoint of that run"
        ) from error
    kind = type(checkpoint).__name__
    require(isinstance(checkpoint, dict), f"{path} is not a model's checkpoint: it holds a {kind}, not a dict")
    return checkpoint


def load_model(
    path: str | Path, experiment: str | None = None, build: Callable[[SimpleNamespace], nn.Module] | None = None
) -> nn.Module:
    """Load the model of a checkpoint, in evaluation mode: our own file, or the original authors'.

    Args:
        path: the file, or a save-dir (its best model), or a folder of the MMVAE authors' code.
        experiment: the only experiment to accept; by default any.
        build: makes the model from its options, as attributes of a namespace. Needed if the experiment is not in
            `EXPERIMENTS`; by default the `build` of the experiment's module.

    Returns:
        a MultimodalVAE, or a VHE if the experiment is vhe.

    Raises:
        InputError: the file is unusable (see `load`), of another experiment, or needs `build`.
    """
    path = _file(path)
    trained = _read(path, experiment)
    name = trained.experiment
    require(
        build is not None or name in EXPERIMENTS,
        f"{path} holds a model of the experiment {name!r}, which is none of {', '.join(EXPERIMENTS)}: load it in "
        "Python with load_model(path, build=BUILD), where BUILD makes its model from its options",
    )
    try:
        build = build or import_module(EXPERIMENTS[name]).build
        model = build(SimpleNamespace(**trained.config))
        model.load_state_dict(trained.state_dict(model))
    except MISFIT as error:
        raise InputError(f"{path} does not fit the networks of {name}: {_one_line(error)}") from error
    _require_finite(model, path)
    return model.eval()


def start_from(path: str | Path, model: nn.Module, experiment: str, config: Mapping[str, Any]) -> None:
    """Copy a checkpoint's parameters into a model of the same experiment (--pre-trained).

    An experiment's module may have `ANEW`, {option: prefix of parameters}: these parameters are not copied if the two
    runs differ in the option.

    Args:
        path: as for `load_model`.
        config: the options that the model was built with.

    Raises:
        InputError: the file is unusable, of another experiment, or its networks or the meaning of its parameters
            differ.
    """
    trained = _read(_file(path), experiment)
    # parameters that have the same shapes could still mean something else
    for name in ("model", "fusion", "posterior", "prior_and_posterior", "likelihood", "n_vmfs"):
        was, asked = trained.config.get(name, config.get(name)), config.get(name)
        require(was == asked, f"{path} has {name.replace('_', ' ')} {was}, not {asked}: its parameters would not fit")
    anew = getattr(import_module(EXPERIMENTS[experiment]), "ANEW", {}) if experiment in EXPERIMENTS else {}
    prefixes = tuple(prefix for name, prefix in anew.items() if trained.config.get(name) != config.get(name))
    try:
        copied = {name: x for name, x in trained.state_dict(model).items() if not name.startswith(prefixes)}
        kept = {name: x for name, x in model.state_dict().items() if name.startswith(prefixes)}
        model.load_state_dict(copied | kept)
    except MISFIT as error:
        raise InputError(f"{path} has other networks: {_one_line(error)}") from error
    _require_finite(model, path)


def load_config(path: str | Path, experiment: str | None = None) -> dict[str, Any]:
    """The options that a checkpoint's model was trained with.

    Args:
        path, experiment: as for `load_model`.

    Raises:
        InputError: the file is unusable or of another experiment.
    """
    return _read(_file(path), experiment).config


def experiment_of(path: str | Path) -> str:
    """The name of a checkpoint's experiment.

    Args:
        path: as for `load_model`.

    Raises:
        InputError: the file is unusable.
    """
    return _read(_file(path)).experiment


def _file(path: str | Path) -> Path:
    """The checkpoint itself, or the best one of a folder."""
    path = Path(path)
    if path.is_dir():
        return path / next((name for name in (BEST, MMVAE_MODEL) if (path / name).is_file()), BEST)
    return path


def _read(path: Path, experiment: str | None = None) -> Trained:
    """What a file holds: a checkpoint of ours, of the MVAE authors' or of the MMVAE authors'."""
    require(path.name != MMVAE_PICKLE, f"{path} holds a run's options, not its model: give the folder. {MMVAE_REMEDY}")
    checkpoint = load(path)
    if "experiment" in checkpoint:
        trained = _ours(checkpoint, path)
    elif path.name == MMVAE_MODEL:
        trained = _of_mmvae_authors(checkpoint, path)
    else:
        trained = _of_mvae_authors(checkpoint, path)
    name = trained.experiment
    require(experiment in (None, name), f"{path} is a checkpoint of {name}, not of {experiment}: use {name}'s scripts")
    return trained


def _ours(checkpoint: dict, path: Path) -> Trained:
    """What a checkpoint of this repository's training loop holds."""
    lacking = [key for key in ("config", "state_dict") if key not in checkpoint]
    remedy = "use another checkpoint of that run"
    require(not lacking, f"{path} is incomplete, it lacks {' and '.join(lacking)}: {remedy}")
    name, config = checkpoint["experiment"], checkpoint["config"]
    named = isinstance(name, str) and isinstance(config, dict)
    require(named, f"{path} does not fit any experiment, its name or its options are damaged: {remedy}")
    if name in MVAE_EXPERIMENTS and "model" not in config and "fusion" not in config:  # older than --model there
        config = import_module(f"{name}.model").AUTHORS_OPTIONS | config
    return Trained(name, config, lambda model: checkpoint["state_dict"])


def _of_mvae_authors(checkpoint: dict, path: Path) -> Trained:
    """The MVAE authors' dict (state_dict, n_latents, best_loss, optimizer), recognised by its parameters' names.

    An experiment's module has `AUTHORS`, {our parameter: theirs, to be concatenated}, and `AUTHORS_OPTIONS`, the
    options with which our `build` makes their model.
    """
    parameters = checkpoint.get("state_dict")
    for name in MVAE_EXPERIMENTS:
        module = import_module(f"{name}.model")
        expected = {key for keys in module.AUTHORS.values() for key in keys}
        if isinstance(parameters, dict) and "n_latents" in checkpoint and _without_counts(parameters) == expected:
            config = {"n_latents": checkpoint["n_latents"], **module.AUTHORS_OPTIONS}
            return Trained(name, config, lambda model, layout=module.AUTHORS: _renamed(parameters, layout, model))
    raise InputError(
        f"{path} is no checkpoint of this repository nor of the original authors: give the {BEST} of a run"
    )


def _of_mmvae_authors(checkpoint: dict, path: Path) -> Trained:
    """The MMVAE authors' state dict; the run's options lie beside it. Parameters that nothing uses are left out."""
    options, pickle = path.with_name(MMVAE_OPTIONS), path.with_name(MMVAE_PICKLE)
    require(options.is_file() or not pickle.is_file(), f"{options} is missing beside {pickle}: {MMVAE_REMEDY}")
    try:
        args = json.loads(options.read_text())
        name = MMVAE_EXPERIMENTS[args["model"]]
        config, layout = import_module(f"{name}.model").authors(args)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{options}, which {path.name} needs beside it, is missing or not MMVAE's: copy it from the authors' run"
        ) from error
    return Trained(name, config, lambda model: _renamed(checkpoint, layout, model))


def _renamed(
    parameters: Mapping[str, Tensor], layout: Mapping[str, tuple[str, ...]], model: nn.Module
) -> dict[str, Tensor]:
    """Our state dict from the authors' parameters: those of each key of ours concatenated, in the model's shapes."""
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    return {ours: torch.cat([parameters[key] for key in keys]).reshape(shapes[ours]) for ours, keys in layout.items()}


def _without_counts(parameters: dict) -> set:
    """The names of parameters without batch norm's counters, which the authors' torch lacked and nothing uses."""
    return {key for key in parameters if not str(key).endswith("num_batches_tracked")}


def _require_finite(model: nn.Module, path: str | Path) -> None:
    """Raise InputError if a parameter or buffer that was loaded from a path is infinite or NaN."""
    broken = [key for key, x in model.state_dict().items() if not x.isfinite().all()]
    require(not broken, f"{path} holds values that are not finite, in {', '.join(broken[:3])}: use another checkpoint")


def _one_line(error: Exception) -> str:
    """The beginning of an error's message, without line breaks."""
    return " ".join(str(error).split())[:300]
