"""Trained models on disk: from our files and from the original authors'."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from common.authors_files import MMVAE_EXPERIMENTS, MmvaeArgs, Size
from common.errors import InputError, brief, flag, install, option, require
from common.io import as_type, load_tensors, read_json, reading

import msgspec
import torch
from torch import Tensor, nn

T = TypeVar("T")
Name = Annotated[str, msgspec.Meta(max_length=100)]
FORMAT = 1
LAST, BEST = "checkpoint.pth.tar", "model_best.pth.tar"
PUBLISHED, OPTIONS = "model.safetensors", "config.json"  # of `tools.publish`
REMEDY = "give a whole checkpoint, or the folder of a run"
UNUSABLE = (RuntimeError, TypeError, AttributeError, ValueError, LookupError)  # what building from odd options raises
# the modules that build the experiments' models; none of them is a script
MVAE_EXPERIMENTS = ("mnist", "fashionmnist", "multimnist", "celeba", "celeba19")
OTHERS = ("mnist_svhn", "polymnist", "cub", "vhe", "vision", "translation", "mfeat")
EXPERIMENTS = {name: f"{name}.model" for name in (*MVAE_EXPERIMENTS, *OTHERS)}
EXPERIMENTS |= {"halves": "mnist.parts.model", "pixels": "mnist.parts.model", "estimator": "tools.estimator"}
# what the MMVAE authors' code leaves in a run's folder: parameters, options, and the options as a pickled Namespace
MMVAE_MODEL, MMVAE_OPTIONS, MMVAE_PICKLE = "model.rar", "args.json", "args.rar"
MMVAE_REMEDY = f"{MMVAE_MODEL} needs it, copy it from the authors' run"


class PublishedOptions(msgspec.Struct):
    """The config.json of a published model.

    config: the options of the run.
    format: of the file; 1 so far.
    """

    experiment: Name
    config: dict[str, Any]
    format: int = FORMAT


class ModelCheckpoint(PublishedOptions, kw_only=True):
    """What every checkpoint of ours holds; see also `training.runs.ResumeCheckpoint`."""

    state_dict: dict[str, Tensor]


class TrainedModel(NamedTuple):
    """What a checkpoint holds.

    experiment: the name of its experiment.
    config: the options that its model was trained with.
    state_dict: our model -> the checkpoint's parameters under our names, in the shapes of that model.
    """

    experiment: str
    config: dict[str, Any]
    state_dict: Callable[[nn.Module], Mapping[str, Tensor]]


class NetworkOptions(msgspec.Struct):
    """The options that scripts or networks read, whose types are checked when a file is loaded; no others are checked.

    An experiment that reads more has a subclass `Options` in its module.
    """

    FIXED: ClassVar = ("model", "fusion", "posterior", "n_latents", "n_private")
    """what --pre-trained cannot change: parameters would have other shapes, or mean something else"""
    REINITIALISED: ClassVar[Mapping[str, str]] = {}
    """{option: prefix of parameters}; these are not copied from a run where the option differs"""

    n_latents: Size = 1
    n_private: Size | list[Size] | None = None  # a list has one number for each modality
    n_clusters: Size | None = None
    rho: float | None = None
    model: Name | None = None
    fusion: Name | None = None
    posterior: Name | None = None
    learn_prior: bool | None = None
    llik_scaling: float | None = None


def module_of(experiment: str) -> ModuleType:
    """The module of an experiment, a key of EXPERIMENTS."""
    return import_module(EXPERIMENTS[experiment])


def _options_of(experiment: str) -> type[NetworkOptions]:
    """The options that an experiment's networks read; for one outside `EXPERIMENTS` the common ones."""
    return getattr(module_of(experiment), "Options", NetworkOptions) if experiment in EXPERIMENTS else NetworkOptions


def load(path: Path, kind: type[T] = dict) -> T:
    """Load a checkpoint's tensors and plain containers; see `common.io.load_tensors`."""
    written = f"train.py writes {BEST} after the first epoch that it validates"
    return load_tensors(path, kind, f"give a checkpoint, or the folder of a run ({written})", REMEDY)


def load_model(
    path: str | Path, experiment: str | None = None, build: Callable[[SimpleNamespace], nn.Module] | None = None
) -> nn.Module:
    """Load the model of a checkpoint, in evaluation mode: our own file, a published one, or the original authors'.

    Args:
        path: the file, or a save-dir (its best model), or a folder of `tools.publish` or of the MMVAE authors' code.
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
    unknown = f"{path} holds a model of the experiment {name!r}, which is none of {', '.join(EXPERIMENTS)}"
    how = "add it to OTHERS in common/checkpoints.py, or load it in Python with load_model(path, build=BUILD)"
    require(build is not None or name in EXPERIMENTS, f"{unknown}: {how}")
    remedy = f"{REMEDY}, and the build that it was trained with" if build else REMEDY
    try:
        older = {} if build else msgspec.structs.asdict(_options_of(name)())  # older files lack newer options
        options = SimpleNamespace(**older | trained.config)
        build = build or module_of(name).build
        with torch.device("meta"):  # allocates nothing: the options may ask for too much memory
            sizes = build(options)
        parameters = trained.state_dict(sizes)
    except (*UNUSABLE, InputError) as error:
        raise InputError(f"{path} does not fit the networks of {name}: {brief(error)}") from error
    check_fit(parameters, sizes, f"{path} does not fit the networks of {name}", remedy)
    model = build(options)
    model.load_state_dict(parameters)
    return model.eval()


def start_from(path: str | Path, model: nn.Module, experiment: str, config: Mapping[str, Any]) -> None:
    """Copy a checkpoint's parameters into a model of the same experiment (--pre-trained).

    Args:
        path: as for `load_model`.
        config: the options that the model was built with.

    Raises:
        InputError: the file is unusable, of another experiment, or its networks or the meaning of its parameters
            differ.
    """
    trained, options = to_start_from(path, experiment, config), _options_of(experiment)
    prefixes = tuple(
        prefix for name, prefix in options.REINITIALISED.items() if trained.config.get(name) != config.get(name)
    )
    try:
        parameters = trained.state_dict(model)
    except UNUSABLE as error:
        raise InputError(f"{path} has other networks: {brief(error)}") from error
    copied = {name: x for name, x in parameters.items() if not name.startswith(prefixes)}
    kept = {name: x for name, x in model.state_dict().items() if name.startswith(prefixes)}
    check_fit(copied | kept, model, f"{path} has other networks", REMEDY)
    model.load_state_dict(copied | kept)


def to_start_from(path: str | Path, experiment: str, config: Mapping[str, Any]) -> TrainedModel:
    """What the checkpoint of --pre-trained holds; see `start_from`, before the model is there.

    Raises:
        InputError: the file is unusable, of another experiment, or has other options that cannot change.
    """
    trained = _read(_file(path), experiment)
    for name in _options_of(experiment).FIXED:
        was, asked = trained.config.get(name, config.get(name)), config.get(name)
        difference = f"{path} was trained with {flag(name, was)}, not {flag(name, asked)}"
        require(was == asked, f"{difference}: --pre-trained cannot change it, leave out {option(name)}")
    return trained


def load_config(path: str | Path, experiment: str | None = None) -> dict[str, Any]:
    """The options that a checkpoint's model was trained with; args and errors as those of `load_model`."""
    return _read(_file(path), experiment).config


def experiment_of(path: str | Path) -> str:
    """The name of a checkpoint's experiment; InputError if the file is unusable."""
    return _read(_file(path)).experiment


def _file(path: str | Path) -> Path:
    """The checkpoint itself, or the best one of a folder."""
    path = Path(path)
    if path.is_dir():
        return path / next((name for name in (BEST, MMVAE_MODEL, PUBLISHED) if (path / name).is_file()), BEST)
    return path


def _read(path: Path, experiment: str | None = None) -> TrainedModel:
    """What a file holds: a checkpoint of ours, of the MVAE authors' or of the MMVAE authors'."""
    require(path.name != MMVAE_PICKLE, f"{path} holds a run's options, not its model: give the folder")
    checkpoint = _published(path) if path.suffix == ".safetensors" else load(path)
    if "experiment" in checkpoint:
        ours = as_type(checkpoint, ModelCheckpoint, str(path), REMEDY)
        newer = f"{path} has format {ours.format}, this version of the repository knows {FORMAT}: update it"
        require(ours.format <= FORMAT, newer)
        trained = TrainedModel(ours.experiment, ours.config, lambda model: ours.state_dict)
    elif path.name == MMVAE_MODEL:
        trained = _read_mmvae(checkpoint, path)
    else:
        trained = _read_mvae(checkpoint, path)
    name = trained.experiment
    if name in EXPERIMENTS:  # other experiments define their own options
        as_type(trained.config, _options_of(name), f"{path}, config,", REMEDY)
    require(
        experiment in (None, name), f"{path} is a checkpoint of {name}, not of {experiment}: give one of {experiment}"
    )
    return trained


def _published(path: Path) -> dict[str, Any]:
    """What a published file and the options beside it hold, as a checkpoint of ours."""
    try:
        from safetensors import SafetensorError
        from safetensors import torch as safetensors
    except ImportError as error:
        raise InputError(f"{path} needs safetensors: {install('safetensors')}") from error
    again = "download the published folder again"
    options = read_json(path.with_name(OPTIONS), PublishedOptions, f"{path.name} needs it, {again}")
    with reading(path, again, "a file of safetensors that this version of torch can read") as file:
        try:
            parameters = safetensors.load(file.read())
        except SafetensorError as error:
            raise ValueError(brief(error)) from error
    return msgspec.structs.asdict(options) | {"state_dict": parameters}


def _read_mvae(checkpoint: dict, path: Path) -> TrainedModel:
    """The MVAE authors' dict (state_dict, n_latents, best_loss, optimizer), recognised by its parameters' names.

    An experiment's module has `AUTHORS`, {our parameter: theirs, to be concatenated}, and `AUTHORS_OPTIONS`, the
    options with which our `build` makes their model.
    """
    parameters = checkpoint.get("state_dict")
    for name in MVAE_EXPERIMENTS:
        module = module_of(name)
        expected = {key for keys in module.AUTHORS.values() for key in keys}
        if isinstance(parameters, dict) and "n_latents" in checkpoint and without_counts(parameters) == expected:
            config = {"n_latents": checkpoint["n_latents"], **module.AUTHORS_OPTIONS}
            return TrainedModel(name, config, lambda model, layout=module.AUTHORS: _renamed(parameters, layout, model))
    raise InputError(
        f"{path} is not a checkpoint of this repository or of the authors': give the model_best.pth.tar of a run"
    )


def _read_mmvae(checkpoint: dict, path: Path) -> TrainedModel:
    """The MMVAE authors' state dict; the run's options lie beside it. Parameters that nothing uses are left out."""
    options, pickle = path.with_name(MMVAE_OPTIONS), path.with_name(MMVAE_PICKLE)
    if pickle.is_file() and not options.is_file():
        with torch.serialization.safe_globals([Namespace]):
            namespace = load_tensors(pickle, Namespace, MMVAE_REMEDY, MMVAE_REMEDY)
        args = as_type(vars(namespace), MmvaeArgs, str(pickle), MMVAE_REMEDY)
    else:
        args = read_json(options, MmvaeArgs, MMVAE_REMEDY)
    name = MMVAE_EXPERIMENTS[args.model]
    config, layout = module_of(name).authors(args)
    return TrainedModel(name, config, lambda model: _renamed(checkpoint, layout, model))


def _renamed(
    parameters: Mapping[str, Tensor], layout: Mapping[str, tuple[str, ...]], model: nn.Module
) -> dict[str, Tensor]:
    """Our state dict from the authors' parameters: those of each key of ours concatenated, in the model's shapes."""
    shapes = {key: x.shape for key, x in model.state_dict().items()}
    return {ours: torch.cat([parameters[key] for key in keys]).reshape(shapes[ours]) for ours, keys in layout.items()}


def without_counts(parameters: Mapping[str, Tensor]) -> set:
    """The names of parameters without batch norm's counters, which the authors' torch lacked and nothing uses."""
    return {key for key in parameters if not str(key).endswith("num_batches_tracked")}


def check_fit(parameters: Mapping[str, Tensor], model: nn.Module, what: str, remedy: str) -> None:
    """Raise InputError unless parameters and buffers have a model's names, shapes and types, and are finite.

    Args:
        model: may be on the meta device.
        what, remedy: the beginning and the end of the message.
    """
    ours = model.state_dict()
    lacking = [key for key in without_counts(ours) if key not in parameters]
    unknown = [str(key) for key in parameters if key not in ours]
    require(not lacking, f"{what}: it lacks {', '.join(sorted(lacking)[:3])}: {remedy}")
    require(not unknown, f"{what}: it has the unknown {brief(', '.join(sorted(unknown)[:3]))}: {remedy}")
    for key in without_counts(parameters):
        x, y = parameters[key], ours[key]
        same = x.shape == y.shape and x.is_floating_point() == y.is_floating_point()
        require(same, f"{what}: {key} is {tuple(x.shape)} of {x.dtype}, not {tuple(y.shape)} of {y.dtype}: {remedy}")
    broken = [key for key, x in parameters.items() if not x.isfinite().all()]
    require(not broken, f"{what}: values are not finite, in {', '.join(broken[:3])}: {remedy}")
