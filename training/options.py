"""The options that all train.py share, in the groups in which --help shows them."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from common.errors import flags, option, require, require_positive, require_seed
from training.objective_options import Unset

if TYPE_CHECKING:
    from common.multimodal_vae import MultimodalVAE

LATENT_NAMES = tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])
LatentsOption = Annotated[int, LATENT_NAMES]
OptimizerName = Literal["adam", "amsgrad"]
LrSchedule = Literal["constant", "cosine"]


@dataclasses.dataclass(kw_only=True)
class DataOptions:
    """The data, for scripts that train and for those that evaluate."""

    GROUP: ClassVar = "data"

    data_dir: Path = Path("data")
    """folder of the dataset in its original format"""
    demo: bool = False
    """use the folder's built-in data: no files, no download"""
    download: bool = False
    """download missing files from the dataset's mirrors; resumes, and verifies checksums"""
    limit: int | None = None
    """use only the first N examples of each split"""


@dataclasses.dataclass(kw_only=True)
class TrainingOptions:
    """The training loop. Each experiment sets the defaults of the first three."""

    GROUP: ClassVar = "training"

    epochs: int
    """passes over the training examples"""
    batch_size: int
    """examples in a batch"""
    lr: float
    """learning rate"""
    annealing_epochs: int | None = None
    """epochs over which the weight of the KL rises from 0 to --beta"""
    optimizer: OptimizerName = "adam"
    """amsgrad: the variant of Adam by Reddi et al. 2018"""
    lr_schedule: LrSchedule = "constant"
    """how the learning rate falls, minibatch by minibatch. cosine: from --lr to 0 at the end of the last epoch"""
    max_grad_norm: float | None = None
    """scale the gradient of a step down to this norm if it is longer. Default: never"""
    beta: float = 1.0
    """weight of the KL after annealing; in importance weights, of log p(z) - log q(z|x). Default: as in the papers"""
    valid: int | None = None
    """select the best model on the last N training examples (counted after --limit), and do not train on them. 0: no
    validation, the last model counts as the best. Default: the last sixth"""
    eval_interval: tyro.conf.Suppress[int] = 1
    patience: int | None = None
    """stop after this many epochs without a better model. Default: never"""
    paired_fraction: float = 1.0
    """weak supervision: the fraction of the training examples that stay paired. A batch then holds equal numbers of
    pairs, which are repeated, and of unpaired examples of each modality. Validation examples all stay paired, so with
    few pairs choose the last model (--valid 0)"""


@dataclasses.dataclass(kw_only=True)
class ComputeOptions:
    """Random draws and the device, for scripts that train and for those that evaluate."""

    GROUP: ClassVar = "run"

    seed: int = 0
    """seed of all random draws"""
    cuda: bool = False
    """use the GPU"""


@dataclasses.dataclass
class RunConfig(ComputeOptions, TrainingOptions, DataOptions):
    """The options that all train.py share.

    An experiment's Config adds its own, and sets the defaults that are missing here. --help shows its own in the
    group "model", or in the group that GROUPS, {group: options}, names for them.
    """

    GROUP: ClassVar = "run"
    GROUPS: ClassVar = {"model": ("n_latents",)}
    SET_BY_EXPERIMENTS: ClassVar = ("epochs", "batch_size", "lr", "n_latents")  # options without a default here
    DEFAULTS_FROM: ClassVar[str] = ""  # where their defaults come from, for --help
    ANNEALING: ClassVar[float] = 0.0  # the share of --epochs that --annealing-epochs is by default
    PAPER: ClassVar[dict[str, Any] | None] = None  # defaults with --settings paper; None: no paper has settings
    DEMO: ClassVar[dict[str, Any]] = {}  # defaults with --demo

    n_latents: LatentsOption
    """dimensions of z"""
    save_dir: Path = Path("trained_models")
    """folder for checkpoints, config.json, metrics.jsonl and samples/"""
    experiment: str = ""
    """name of the run: a subfolder of the save-dir"""
    settings: Literal["recommended", "paper"] = "recommended"
    """defaults of the other options. recommended: this repository's"""
    pre_trained: Path | None = None
    """start from the weights and options of this checkpoint, or of the best one in this run's folder; options given
    here override them. The original authors' files work too"""
    resume: bool = False
    """continue from the last checkpoint of the save-dir as if never stopped, with its options, or start if there is
    none. Only paths, --patience, options of speed and reporting, and with a constant --lr-schedule --epochs may
    change"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks; densities and losses are always float32. bf16 is fast on GPUs and on processors with
    instructions for it (AVX-512 BF16, AMX)"""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """also write options and metrics for these trackers, into folders of their names in the save-dir. Default: none"""
    log_interval: Annotated[int, tyro.conf.arg(aliases=["--print-freq"])] = 10
    """batches between updates of the progress bar and checks that the loss is finite"""

    def __post_init__(self) -> None:
        """Make --annealing-epochs a number."""
        if self.annealing_epochs is None:
            self.annealing_epochs = max(1, round(self.ANNEALING * self.epochs)) if self.ANNEALING else 0

    @classmethod
    def explained(cls, name: str, value: Any, text: str, source: str) -> tuple[str, str]:  # noqa: ANN401 (any default)
        """An option's help, and the source of its default: those given, with what holds for this experiment."""
        if name == "annealing_epochs" and value is None:
            source = f"{100 * cls.ANNEALING:.3g}% of --epochs" if cls.ANNEALING else "no annealing"
        elif name == "settings":
            text += f". paper: {'not known' if cls.PAPER is None else flags(cls.PAPER) or 'the same'}"
        elif name == "demo" and cls.DEMO:
            text += f". The defaults are then {flags(cls.DEMO)}"
        elif name in RunConfig.SET_BY_EXPERIMENTS:
            source = source or cls.DEFAULTS_FROM
        return text, source

    def weights(self, model: "MultimodalVAE") -> dict[str, float]:
        """lambda by modality, from the options lambda_NAME; modalities without one keep the model's weight."""
        given = {name: getattr(self, f"lambda_{name}", None) for name in model.modalities}
        return {name: weight for name, weight in given.items() if weight is not None}

    def check(self) -> None:
        """Raise InputError for values that no run can have."""
        require(
            self.n_latents < 10**6,
            f"--n-latents {self.n_latents} is more than any memory holds: give less than 1,000,000",
        )
        positive = ("epochs", "batch_size", "n_latents", "log_interval", "limit", "patience", "lr")
        require_positive(self, *positive, "max_grad_norm")
        for name, value in vars(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            require(finite, f"{option(name)} must be finite, it is {value}")
            if name.startswith("lambda_") or name in ("annealing_epochs", "valid"):
                require(value is None or value >= 0, f"{option(name)} must not be negative, it is {value}")
        require(0 <= self.beta < math.inf, f"--beta must be a number that is not negative, it is {self.beta}")
        require_seed(self)
        name = Path(self.experiment)
        below = not name.is_absolute() and ".." not in name.parts
        require(below, f"--experiment must be a folder below the save-dir, not {self.experiment}")
        require(0 <= self.paired_fraction <= 1, f"--paired-fraction must lie in [0, 1], it is {self.paired_fraction}")
        require(self.patience is None or self.valid != 0, "--patience needs validation examples: leave out --valid 0")


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, as config.json and the checkpoints hold it."""
    plain = {Path: str, Unset: lambda _: None, tuple: list}
    return {
        name: next((convert(value) for kind, convert in plain.items() if isinstance(value, kind)), value)
        for name, value in vars(config).items()
    }
