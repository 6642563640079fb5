"""The options that scripts share, in the groups in which --help shows them."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from common.errors import flags, option, require, require_positive, require_seed
from common.io import check_writable, folder_of
from common.training.objective_options import Unset

if TYPE_CHECKING:
    from common.metrics import Evaluation
    from common.multimodal_vae import MultimodalVAE

LATENT_NAMES = tyro.conf.arg(aliases=["--latent-dim", "--latent-dimension"])
LatentsOption = Annotated[int, LATENT_NAMES]
OptimizerName = Literal["adam", "amsgrad", "adamw", "sgd"]


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
    """amsgrad: the variant of Adam by Reddi et al. 2018; adamw: with a decoupled weight decay of 0.01; sgd: with a
    momentum of 0.9"""
    lr_schedule: Literal["constant", "linear", "cosine", "step"] = "constant"
    """how the learning rate falls, minibatch by minibatch, from --lr after the warm-up until the last epoch. linear,
    cosine: to 0; step: to a tenth after half of the way, to a hundredth after three quarters"""
    warmup_epochs: int = 0
    """epochs over which the learning rate first rises from 0 to --lr, minibatch by minibatch"""
    max_grad_norm: float | None = None
    """scale the gradient of a step down to this norm if it is longer. Default: never"""
    beta: float = 1.0
    """weight of the KL after annealing; in importance weights, of log p(z) - log q(z|x). Default: as in the papers"""
    valid: int | None = None
    """select the best model on the last N training examples (counted after --limit), and do not train on them. 0: no
    validation, the last model counts as the best. Default: the last sixth"""
    eval_interval: int = 1
    """score the model on the validation examples after every Nth epoch and the last, to find the best one. A run that
    is resumed with more --epochs keeps the score of its former last epoch"""
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
    ALWAYS_PAIRED: ClassVar[str] = ""  # why --paired-fraction must be 1, if it must

    n_latents: LatentsOption
    """dimensions of z"""
    save_dir: Path = Path("trained_models")
    """folder for checkpoints, config.json, metrics.jsonl and samples/"""
    experiment: str = ""
    """name of the run: a subfolder of the save-dir"""
    settings: Literal["recommended", "paper"] = "recommended"
    """defaults of the other options. recommended: this repository's"""
    config: Path | None = None
    """take the defaults of all options from the config.json of another run of this experiment; options given here
    override them, and defaults that depend on these change with them. With --save-dir alone the run is repeated"""
    pre_trained: Path | None = None
    """start from the weights and options of this checkpoint, or of the best one in this run's folder; options given
    here override them. The original authors' files work too"""
    resume: bool = False
    """continue from the last checkpoint of the save-dir as if never stopped, with its options, or start if there is
    none. Only --patience, options of speed and reporting, and with a constant --lr-schedule --epochs may change"""
    dry_run: bool = False
    """print the configuration as JSON and exit"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks; densities and losses are always float32. bf16 is fast on GPUs and on processors with
    instructions for it (AVX-512 BF16, AMX)"""
    compile: bool = False
    """compile the networks with torch.compile: takes about a minute, and needs a C++ compiler on the CPU"""
    capture: bool = True
    """on the GPU, run each training step as one CUDA graph, so that small models do not wait for kernel launches. Use
    --no-capture for networks whose operations change from batch to batch"""
    sync_batch_norm: bool = False
    """under torchrun, batch norm takes mean and variance over the rows of all processes, so that steps equal those of
    one process; otherwise over a process's own rows"""
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
        elif name == "paired_fraction" and cls.ALWAYS_PAIRED:
            text = f"must be 1: {cls.ALWAYS_PAIRED}"
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
        positive = ("epochs", "batch_size", "n_latents", "log_interval", "limit", "eval_interval", "patience", "lr")
        require_positive(self, *positive, "max_grad_norm")
        for name, value in vars(self).items():
            finite = not isinstance(value, float) or math.isfinite(value)
            require(finite, f"{option(name)} must be finite, it is {value}")
            if name.startswith("lambda_") or name in ("annealing_epochs", "warmup_epochs", "valid"):
                require(value is None or value >= 0, f"{option(name)} must not be negative, it is {value}")
        require(0 <= self.beta < math.inf, f"--beta must be a number that is not negative, it is {self.beta}")
        require_seed(self)
        name = Path(self.experiment)
        below = not name.is_absolute() and ".." not in name.parts
        require(below, f"--experiment must be a folder below the save-dir, not {self.experiment}")
        require(0 <= self.paired_fraction <= 1, f"--paired-fraction must lie in [0, 1], it is {self.paired_fraction}")
        require(
            not self.ALWAYS_PAIRED or self.paired_fraction == 1, f"{self.ALWAYS_PAIRED}: leave --paired-fraction at 1"
        )
        require(self.patience is None or self.valid != 0, "--patience needs validation examples: leave out --valid 0")
        interval = self.eval_interval
        require(interval == 1 or self.valid != 0, "--eval-interval needs validation examples: leave out --valid 0")
        require(
            self.patience is None or interval <= self.patience,
            f"--patience {self.patience} is shorter than --eval-interval {interval}: raise it to {interval}",
        )


@dataclasses.dataclass
class ModelArgument:
    """The trained model; a class of its own, so that it stays the first argument of all configs."""

    model: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="MODEL")]] = None
    """a checkpoint, or a run's folder for its best model. The original authors' files work too"""
    save_dir: Path | None = dataclasses.field(default=None, kw_only=True)
    """the model, in place of MODEL, as in the MMVAE authors' scripts"""

    def __post_init__(self) -> None:
        """Move a --save-dir to `model`; raise InputError unless exactly one of the two is given."""
        require(
            self.model is not None or self.save_dir is not None,
            "no model is given: add a checkpoint or a run's folder, as MODEL or as --save-dir DIR",
        )
        require(
            self.model is None or self.save_dir is None,
            f"{self.model} and --save-dir {self.save_dir} both name a model: give one of them",
        )
        self.model, self.save_dir = self.model or self.save_dir, None


@dataclasses.dataclass
class ModelConfig(ComputeOptions, DataOptions, ModelArgument):
    """The options that all sample.py, loglike.py and analyse.py share."""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        require_positive(self, *(name for name in ("limit", "n_samples") if hasattr(self, name)))
        require_seed(self)


@dataclasses.dataclass
class SamplesConfig(ModelConfig):
    """The options of scripts that write pictures or texts."""

    GROUP: ClassVar = "run"

    out_dir: Path | None = dataclasses.field(default=None, kw_only=True)
    """folder to write to. Default: samples/ beside the model"""

    @property
    def samples_dir(self) -> Path:
        """The folder to write to."""
        return self.out_dir or folder_of(self.model) / "samples"


@dataclasses.dataclass
class PriorSamplesConfig(SamplesConfig):
    """The options of scripts that draw from the prior.

    CONDITIONS: the options with which they draw nothing from it.
    """

    GROUP: ClassVar = ""
    CONDITIONS: ClassVar[tuple[str, ...]] = ()

    mixture: int = dataclasses.field(default=0, kw_only=True)
    """draw z from a mixture of this number of Gaussians, fitted to latents of training examples, and not from the
    prior"""

    def check(self) -> None:
        super().check()
        require(self.mixture >= 0, f"--mixture must not be negative, it is {self.mixture}")
        if self.mixture:
            self.check_draws_from_prior("mixture")

    def check_draws_from_prior(self, in_its_place: str) -> None:
        """Raise InputError for an option in the prior's place beside one that draws nothing from the prior."""
        for name in self.CONDITIONS:
            is_given = getattr(self, name) not in (None, False, ())
            draws_nothing = f"from which {option(name)} draws nothing: leave one of them out"
            require(not is_given, f"{option(in_its_place)} stands in for the prior, {draws_nothing}")


@dataclasses.dataclass
class ClusterSamplesConfig(PriorSamplesConfig):
    """The options of sample.py in folders whose models include CMVAE."""

    cluster: int | None = dataclasses.field(default=None, kw_only=True)
    """draw z from this cluster of the prior alone, 0 to C - 1 (models of --model cmvae)"""

    def check(self) -> None:
        super().check()
        if self.cluster is not None:
            require(not self.mixture, "--mixture and --cluster both stand in for the prior: leave out one of them")
            self.check_draws_from_prior("cluster")


@dataclasses.dataclass
class ScoresConfig(ModelConfig):
    """The options of scripts that score a model."""

    GROUP: ClassVar = "run"

    json: Path | None = dataclasses.field(default=None, kw_only=True)
    """also write the figures to this file"""

    def check(self) -> None:
        super().check()
        if self.json is not None:
            folder = self.json.parent
            require(folder.is_dir(), f"--json {self.json}: there is no folder {folder}, make it or give another file")
            check_writable(self.json)


@dataclasses.dataclass
class LoglikeConfig(ScoresConfig):
    """The options of all loglike.py."""

    n_samples: Annotated[int, tyro.conf.arg(aliases=["--iwae-samples"])] = 1000
    """importance samples for each example. Default: as in the papers"""
    tolerance: float | None = None
    """stop sampling an example when the standard errors of its estimates are below this number of nats; --n-samples is
    then the maximum. This lowers the estimates, by more than the square of that number where weights have heavy tails.
    Default: take all samples"""

    @property
    def sampling(self) -> dict[str, float | None]:
        """The arguments of `common.estimators.importance_estimates` that these options give."""
        return {"n_samples": self.n_samples, "tolerance": self.tolerance}

    def check(self) -> None:
        super().check()
        require_positive(self, "tolerance")


@dataclasses.dataclass
class SubsetLikelihoodsConfig(LoglikeConfig):
    """The options of loglike.py for models with posteriors of many subsets of the modalities."""

    by_size: bool = dataclasses.field(default=False, kw_only=True)
    """also estimate log p(x_S) of every subset S of the modalities, and log p(x_T|x_S) of the others T: means over the
    subsets of a size, each estimate with samples of its q(z|x_S). 2^M - 1 estimates"""
    target: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """also estimate log p(TARGET|GIVEN) of these modalities, or without --given log p(TARGET). Default: with --given,
    all others"""
    given: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    """the modalities that --target is given"""

    def of_subsets(self, model: "MultimodalVAE") -> "list[Evaluation]":
        """The estimates that these options ask for, of complete examples.

        Raises:
            InputError: modalities that the model lacks, or that are both given and targets.
        """
        from common.evaluation import subset_likelihoods  # needs torch, which --help does without

        names, asked = model.modalities, (*self.target, *self.given)
        for name in asked:
            require(name in names, f"this model has no {name}: --target and --given take {', '.join(names)}")
            require(asked.count(name) == 1, f"--target and --given name {name} more than once: name it once")
        target = self.target or tuple(name for name in names if name not in self.given)
        require(bool(target), "--given names all modalities: leave one to be the target")
        chosen = [subset_likelihoods.likelihoods_by_size] if self.by_size else []
        if asked:
            chosen.append(partial(subset_likelihoods.likelihood_given, target=target, given=self.given))
        return [partial(estimate, **self.sampling) for estimate in chosen]


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, as config.json and the checkpoints hold it."""
    plain = {Path: str, Unset: lambda _: None, tuple: list}
    return {
        name: next((convert(value) for kind, convert in plain.items() if isinstance(value, kind)), value)
        for name, value in vars(config).items()
    }
