"""Checkpoints: models from our files and from the original authors'."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import msgspec
import torch
from torch import Tensor, nn

from common import tensor_files
from common.errors import InputError, brief, require
from common.schemas import check, read_json

T = TypeVar("T")
Name = Annotated[str, msgspec.Meta(max_length=100)]
Size, Depth = Annotated[int, msgspec.Meta(ge=1, le=10**6)], Annotated[int, msgspec.Meta(ge=1, le=1000)]
FORMAT = 1

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
REMEDY = "use another checkpoint of that run"
UNUSABLE = (RuntimeError, TypeError, AttributeError, ValueError, LookupError)  # what building from odd options raises


class Trained(NamedTuple):
    """What a checkpoint holds.

    experiment: the name of its experiment.
    config: the options that its model was trained with.
    state_dict: our model -> the checkpoint's parameters under our names, in the shapes of that model.
    """

    experiment: str
    config: dict[str, Any]
    state_dict: Callable[[nn.Module], Mapping[str, Tensor]]


class Saved(msgspec.Struct):
    """What every checkpoint of ours holds; see also `common.training.resuming.Last`.

    config: the options of the run.
    format: of the file; 1 so far.
    """

    experiment: Name
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    format: int = FORMAT


class MmvaeArgs(msgspec.Struct):
    """The options of the MMVAE authors' code that determine a model or its likelihoods (args.json)."""

    model: Literal[tuple(MMVAE_EXPERIMENTS)]
    latent_dim: Size
    learn_prior: bool
    llik_scaling: float
    num_hidden_layers: Depth = 1
    obj: str | None = None
    K: int | None = None
    looser: bool | None = None
    batch_size: int | None = None
    epochs: int | None = None

    def config(self) -> dict[str, Any]:
        """The options that all experiments have, under our names."""
        training = {name: getattr(self, name) for name in ("obj", "K", "looser", "batch_size", "epochs")}
        if self.obj == "elbo":  # theirs draws one sample, whatever K and looser are
            training |= {"obj": "elbo-importance", "K": 1, "looser": False}
        model = {"n_latents": self.latent_dim, "learn_prior": self.learn_prior, "llik_scaling": self.llik_scaling}
        return model | {name: value for name, value in training.items() if value is not None}


class NetworkOptions(msgspec.Struct):
    """The options of checkpoints that scripts or networks read; others may hold anything plain."""

    n_latents: Size = 1
    num_hidden_layers: Depth = 1
    hidden: Size = 1
    layers: Depth = 1
    n_vmfs: Size = 1
    embed_dim: Size | None = None
    model: Name | None = None
    fusion: Name | None = None
    posterior: Name | None = None
    prior_and_posterior: Name | None = None
    likelihood: Name | None = None
    layout: Name | None = None
    decoder: Name | None = None
    learn_prior: bool | None = None
    teacher_forcing: bool | None = None
    llik_scaling: float | None = None
    likelihood_scale: float | None = None
    vocabulary: list[str] | None = None
    feature_network: dict[str, Any] | None = None
    test_alphabets: list[str] = []
    k_shot: Size = 1


def load(path: Path, kind: type[T] = dict) -> T:
    """Load a checkpoint's tensors and plain containers; see `common.tensor_files.load`."""
    return tensor_files.load(path, kind, f"give a checkpoint, or the folder of a run (train.py writes {BEST})", REMEDY)


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
        build, options = build or import_module(EXPERIMENTS[name]).build, SimpleNamespace(**trained.config)
        with torch.device("meta"):  # sizes without memory, which the options may ask for more than there is
            sizes = build(options)
        parameters = trained.state_dict(sizes)
    except UNUSABLE as error:
        raise InputError(f"{path} does not fit the networks of {name}: {brief(error)}") from error
    check_fit(parameters, sizes, f"{path} does not fit the networks of {name}")
    model = build(options)
    model.load_state_dict(parameters)
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
        difference = f"{name.replace('_', ' ')} {brief(str(was))}, not {asked}"
        require(was == asked, f"{path} has {difference}: its parameters would not fit")
    anew = getattr(import_module(EXPERIMENTS[experiment]), "ANEW", {}) if experiment in EXPERIMENTS else {}
    prefixes = tuple(prefix for name, prefix in anew.items() if trained.config.get(name) != config.get(name))
    try:
        parameters = trained.state_dict(model)
    except UNUSABLE as error:
        raise InputError(f"{path} has other networks: {brief(error)}") from error
    copied = {name: x for name, x in parameters.items() if not name.startswith(prefixes)}
    kept = {name: x for name, x in model.state_dict().items() if name.startswith(prefixes)}
    check_fit(copied | kept, model, f"{path} has other networks")
    model.load_state_dict(copied | kept)


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
        trained = _ours(check(checkpoint, Saved, str(path), REMEDY), path)
    elif path.name == MMVAE_MODEL:
        trained = _of_mmvae_authors(checkpoint, path)
    else:
        trained = _of_mvae_authors(checkpoint, path)
    check(trained.config, NetworkOptions, f"{path}, config,", REMEDY)
    name = trained.experiment
    require(experiment in (None, name), f"{path} is a checkpoint of {name}, not of {experiment}: use {name}'s scripts")
    return trained


def _ours(saved: Saved, path: Path) -> Trained:
    """What a checkpoint of this repository's training loop holds."""
    require(
        saved.format <= FORMAT,
        f"{path} has format {saved.format}, this version of the repository knows {FORMAT}: update it",
    )
    config = saved.config
    if saved.experiment in MVAE_EXPERIMENTS and "model" not in config and "fusion" not in config:  # before --model
        config = import_module(f"{saved.experiment}.model").AUTHORS_OPTIONS | config
    return Trained(saved.experiment, config, lambda model: saved.state_dict)


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
    args = read_json(options, MmvaeArgs, f"{path.name} needs it beside it, copy it from the authors' run")
    name = MMVAE_EXPERIMENTS[args.model]
    config, layout = import_module(f"{name}.model").authors(args)
    return Trained(name, config, lambda model: _renamed(checkpoint, layout, model))


def _renamed(
    parameters: Mapping[str, Tensor], layout: Mapping[str, tuple[str, ...]], model: nn.Module
) -> dict[str, Tensor]:
    """Our state dict from the authors' parameters: those of each key of ours concatenated, in the model's shapes."""
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    return {ours: torch.cat([parameters[key] for key in keys]).reshape(shapes[ours]) for ours, keys in layout.items()}


def _without_counts(parameters: Mapping[str, Tensor]) -> set:
    """The names of parameters without batch norm's counters, which the authors' torch lacked and nothing uses."""
    return {key for key in parameters if not str(key).endswith("num_batches_tracked")}


def check_fit(parameters: Mapping[str, Tensor], model: nn.Module, what: str) -> None:
    """Raise InputError unless parameters and buffers have a model's names, shapes and types, and are finite.

    Args:
        model: may be on the meta device.
        what: the beginning of the message.
    """
    ours = model.state_dict()
    lacking = [key for key in _without_counts(ours) if key not in parameters]
    unknown = [str(key) for key in parameters if key not in ours]
    require(not lacking, f"{what}: it lacks {', '.join(sorted(lacking)[:3])}")
    require(not unknown, brief(f"{what}: it has the unknown {', '.join(sorted(unknown)[:3])}"))
    for key in _without_counts(parameters):
        x, y = parameters[key], ours[key]
        same = x.shape == y.shape and x.is_floating_point() == y.is_floating_point()
        require(same, f"{what}: {key} is {tuple(x.shape)} of {x.dtype}, not {tuple(y.shape)} of {y.dtype}")
    broken = [key for key, x in parameters.items() if not x.isfinite().all()]
    require(not broken, f"{what}: values are not finite, in {', '.join(broken[:3])}")
