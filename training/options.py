"""The options that all train.py share, those that scripts on trained models share with them, and their defaults.

Defaults come from the Config's class, --settings, --demo, or the earlier run of --resume or --pre-trained.
"""

import copy
import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_type_hints

from common.checkpoints import load_config
from common.errors import InputError, brief, flag, option, require, require_positive, require_seed
from common.execution import devices
from common.io import read_json
from common.multimodal_vae import MultimodalVAE
from common.progress import print_once

import msgspec
import torch
import tyro

NOT_TAKEN_OVER = {"save_dir", "experiment", "resume"}  # by a resumed run
# may differ from the resumed run's options; paths are included, since a folder has many names
NOT_OF_THE_RUN = NOT_TAKEN_OVER | {"settings", "data_dir", "cache_dir", "download", "pre_trained", "vocab"}
OF_THIS_EXPERIMENT = "give the file of a run of this experiment"
OTHER_FOLDER = "choose another --save-dir"
NOT_NEGATIVE = ("annealing_epochs", "valid", "beta", "alpha", "approx_m", "log_interval")
LATENT_NAMES = tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])
LatentsOption = Annotated[int, LATENT_NAMES]
OptimizerName = Literal["adam", "amsgrad"]
LrSchedule = Literal["constant", "cosine"]


def share(fraction: float, epochs: int) -> int:
    """A fraction of the epochs, at least one."""
    return max(1, round(fraction * epochs))


@dataclass(kw_only=True)
class DataOptions:
    """The data, for scripts that train and for those that evaluate."""

    data_dir: Path = Path("data")
    """folder of the dataset in its original format"""
    demo: bool = False
    """use the folder's built-in data: no files, no download"""
    download: bool = False
    """download missing files from the dataset's mirrors; resumes, and verifies checksums"""
    limit: int | None = None
    """use only the first N examples of each split"""


@dataclass(kw_only=True)
class ComputeOptions:
    """Random draws and the device, for scripts that train and for those that evaluate."""

    seed: int = 0
    """seed of all random draws"""
    cuda: bool = False
    """use the GPU"""


@dataclass(kw_only=True)
class RunConfig(ComputeOptions, DataOptions):
    """The options that all train.py share. An experiment's Config sets the first four's defaults, and adds its own."""

    n_latents: LatentsOption
    """dimensions of z"""
    epochs: int
    """passes over the training examples"""
    batch_size: int
    """examples in a batch"""
    lr: float
    """learning rate"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta. None: 0, no annealing"""
    beta: float = 1.0
    """weight of the KL after annealing; in importance weights, of log p(z) - log q(z|x); 1 in most papers"""
    optimizer: OptimizerName = "adam"
    """amsgrad: the variant of Adam by Reddi et al. 2018"""
    lr_schedule: LrSchedule = "constant"
    """how the learning rate falls, minibatch by minibatch. cosine: from --lr to 0 at the end of the last epoch"""
    max_grad_norm: float | None = None
    """scale the gradient of a step down to this norm if it is longer"""
    valid: int | None = None
    """select the best model on the last N training examples (counted after --limit), and do not train on them.
    0: no validation, the last model counts as the best. None: the last sixth"""
    eval_interval: tyro.conf.Suppress[int] = 1
    patience: int | None = None
    """stop after this many epochs without a better model"""
    paired_fraction: float = 1.0
    """weak supervision: the fraction of the training examples that stay paired.
    A batch then holds equal numbers of pairs, which are repeated, and of unpaired examples of each modality.
    Validation examples all stay paired, so with few pairs choose the last model (--valid 0)"""
    save_dir: Path = Path("trained_models")
    """folder for checkpoints, config.json, metrics.jsonl and samples/"""
    experiment: str = ""
    """name of the run: a subfolder of the save-dir"""
    settings: Literal["recommended", "paper"] = "recommended"
    """defaults of the other options: this repository's, or the authors'"""
    pre_trained: Path | None = None
    """start from the weights and options of this checkpoint, or of the best one in this run's folder;
    options given here override them. The original authors' files work too"""
    resume: bool = False
    """continue from the last checkpoint of the save-dir as if never stopped, or start if there is none.
    Only paths, --patience, options of speed and reporting, and with a constant rate --epochs may change"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks; densities and losses are always float32.
    bf16 is fast on GPUs and on processors with instructions for it (AVX-512 BF16, AMX)"""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """also write options and metrics for these trackers, into folders of their names in the save-dir"""
    log_interval: Annotated[int, tyro.conf.arg(aliases=["--print-freq"])] = 10
    """batches between updates of the progress bar and checks that the loss is finite.
    0: no bar, and a check at the end of an epoch"""

    def __post_init__(self) -> None:
        """Fill in what the other options imply; an experiment's Config fills in its own before."""
        self.fill(annealing_epochs=0)

    def fill(self, **implied: Any) -> None:  # noqa: ANN401 (values of options)
        """Set those of the options that are None."""
        for name, value in implied.items():
            if getattr(self, name) is None:
                setattr(self, name, value)

    def select_device(self) -> torch.device:
        """Where the run computes."""
        return devices.select(self.cuda)

    def weights(self, model: MultimodalVAE) -> dict[str, float]:
        """lambda by modality, from the options lambda_NAME; modalities without one keep the model's weight."""
        given = {name: getattr(self, f"lambda_{name}", None) for name in model.modalities}
        return {name: weight for name, weight in given.items() if weight is not None}

    def check(self) -> None:
        """Raise InputError for values that no run can have."""
        require(
            self.n_latents < 10**6,
            f"--n-latents {self.n_latents} is more than any memory holds: give less than 1,000,000",
        )
        positive = ("epochs", "batch_size", "n_latents", "limit", "patience", "lr")
        require_positive(self, *positive, "max_grad_norm")
        for name, value in vars(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            require(finite, f"{option(name)} must be finite, it is {value}")
            if name.startswith("lambda_") or name in NOT_NEGATIVE:
                require(value is None or value >= 0, f"{option(name)} must not be negative, it is {value}")
        require_seed(self)
        name = Path(self.experiment)
        below = not name.is_absolute() and ".." not in name.parts
        require(below, f"--experiment must be a folder below the save-dir, not {self.experiment}")
        require(0 <= self.paired_fraction <= 1, f"--paired-fraction must lie in [0, 1], it is {self.paired_fraction}")
        require(self.patience is None or self.valid != 0, "--patience needs validation examples: leave out --valid 0")


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, as config.json and the checkpoints hold it."""
    return {name: msgspec.to_builtins(value, enc_hook=str) for name, value in vars(config).items()}


class ConfigFile(msgspec.Struct):
    """The fields that config.json must have; see also `Run.about`."""

    experiment: str
    config: dict[str, Any]


def resumed(given: RunConfig) -> RunConfig | None:
    """The config of the run that --resume continues; None if there is none."""
    before = given.save_dir / given.experiment / "config.json"
    if not given.resume or not before.exists():
        return None
    options = read_json(before, ConfigFile, OTHER_FOLDER).config
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
        for name in ("demo", "pre_trained"):
            alone = not getattr(given, name)
            require(alone, f"--settings paper and {option(name)} set the same defaults: leave one out")
    if given.pre_trained:
        config = type(given)
        names = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda"}
        options = {name: value for name, value in load_config(given.pre_trained).items() if name in names}
        return underived(config(**taken_up(config, options, given.pre_trained, OF_THIS_EXPERIMENT)))
    if given.settings == "paper" and not changed_by(paper):
        print_once("--settings paper changes nothing: the defaults are the authors' settings")
    named = paper if given.settings == "paper" else demo if given.demo else None
    return named and underived(named)


def changed_by(named: RunConfig) -> dict[str, Any]:
    """The options that --settings paper or --demo sets to other values than the defaults, with these."""
    ours, theirs = vars(underived(type(named)())), vars(underived(named))
    return {name: value for name, value in theirs.items() if value != ours[name] and name not in ("settings", "demo")}


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
