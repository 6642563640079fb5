"""The options that scripts share, and how a command line and files write them."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from common.errors import require


@dataclasses.dataclass
class RunConfig:
    """The options that all train.py share.

    An experiment's Config adds n_latents, batch_size, epochs, annealing_epochs, lr, and its own.
    """

    data_dir: Path = Path("data")
    """the dataset in its original format"""
    download: bool = False
    """fetch what is missing from the dataset's mirrors, checksummed, resumable"""
    demo: bool = False
    """train on the folder's built-in data: no download, no files"""
    save_dir: Path = Path("trained_models")
    """where checkpoints, config.json, metrics.jsonl and samples/ go"""
    experiment: str = ""
    """a name for the run: a folder of that name inside the save-dir"""
    pre_trained: Path | None = None
    """start from the weights of this checkpoint, or the best ones of this run, and take up its options but for those
    given here; also the original authors' file"""
    resume: bool = False
    """go on from the last checkpoint of the save-dir, as if never stopped; only --epochs, --patience and the
    options of speed and reporting may change. Starts anew where there is no checkpoint yet"""
    dry_run: bool = False
    """print the configuration and exit"""
    beta: float = 1.0
    """weight of the KL, of log p(z) - log q(z|x) in importance weights, after annealing (papers: 1)"""
    valid: int | None = None
    """hold out the last N training examples and select the best model on them; default: the last sixth
    (10,000 of MNIST). 0: none, the last model counts as the best"""
    patience: int | None = None
    """stop when the best epoch lies this many epochs back; default: never"""
    limit: int | None = None
    """use the first N examples of each split (before --valid takes its part)"""
    paired_fraction: float = 1.0
    """weak supervision: only this fraction of the training examples keeps its pairing. A batch then has as many
    pairs, which are repeated, as examples of each modality alone. Those held out for --valid all keep theirs,
    so choose the last model (--valid 0) where labels are few"""
    seed: int = 0
    """of initialisation, order of the data, pairing and latent samples"""
    cuda: bool = False
    """use the GPU"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """of the networks; densities and losses are float32 in any case"""
    compile: bool = False
    """compile the networks with torch.compile (a minute at the start; needs a C++ compiler on the CPU)"""
    capture: bool = True
    """on the GPU: run each training step as one CUDA graph, since small models otherwise wait for its launches. For
    networks of your own that do not do the same for every batch: --no-capture"""
    log_interval: Annotated[int, tyro.conf.arg(aliases=["--print-freq"])] = 10
    """batches between updates of the progress bar and checks that the loss is finite"""

    def check(self) -> None:
        """Raise InputError for values that no run can have."""
        require(self.n_latents < 10**6, f"--n-latents {self.n_latents} is more than any memory holds")
        for name in ("epochs", "batch_size", "n_latents", "log_interval", "limit", "patience", "lr"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        for name, value in vars(self).items():
            if name.startswith("lambda_") or name in ("annealing_epochs", "valid"):
                require(value is None or value >= 0, f"{option(name)} must not be negative, it is {value}")
        require(0 <= self.beta < math.inf, f"--beta must be a number that is not negative, it is {self.beta}")
        require(0 <= self.seed < 2**32, f"--seed must lie between 0 and 2^32, it is {self.seed}")
        require(0 <= self.paired_fraction <= 1, f"--paired-fraction must lie in [0, 1], it is {self.paired_fraction}")
        require(self.patience is None or self.valid != 0, "--patience needs validation examples: leave out --valid 0")


@dataclasses.dataclass
class ModelConfig:
    """The options that all sample.py, loglike.py and analyse.py share."""

    model: tyro.conf.Positional[Path]
    """a checkpoint, or the folder of a run (its best model); also the original authors' file"""
    data_dir: Path = Path("data")
    """the dataset in its original format"""
    demo: bool = False
    """use the folder's built-in data: no files"""
    limit: int | None = None
    """use the first N test examples"""
    seed: int = 0
    """of every random draw"""
    cuda: bool = False
    """use the GPU"""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        for name in ("limit", "n_samples"):
            value = getattr(self, name, None)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        require(0 <= self.seed < 2**32, f"--seed must lie between 0 and 2^32, it is {self.seed}")
        json = getattr(self, "json", None)
        require(json is None or json.parent.is_dir(), f"--json {json}: there is no such folder")


@dataclasses.dataclass
class LoglikeConfig(ModelConfig):
    """The options of all loglike.py."""

    n_samples: Annotated[int, tyro.conf.arg(aliases=["--iwae-samples"])] = 1000
    """importance samples an example (paper: 1000)"""
    json: Path | None = None
    """write the estimates to this file too"""


def option(field: str) -> str:
    return "--" + field.replace("_", "-")


def flag(field: str, value: object) -> str:
    """How the command line gives an option's value."""
    if isinstance(value, bool):
        return option(field if value else f"no_{field}")
    return f"{option(field)} {value}"


class Unsaid(int):
    """True by default, where nobody said so: none in files, and no contradiction to what has no use for it."""

    def __str__(self) -> str:
        return "as the objective has it"


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, as config.json and the checkpoints hold it."""
    plain = {Path: str, Unsaid: lambda _: None}
    return {
        name: next((convert(value) for kind, convert in plain.items() if isinstance(value, kind)), value)
        for name, value in vars(config).items()
    }
