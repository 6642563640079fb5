"""The options that scripts share, and how a command line and files write them."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from common.errors import option, require
from common.objectives import registry
from common.objectives.registry import OBJECTIVES, summaries


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


class Unset(int):
    """A default of True that the user did not set; saved as null."""

    def __str__(self) -> str:
        return "True"


ObjectiveName = Literal[tuple(OBJECTIVES)]


@dataclasses.dataclass(kw_only=True)
class ObjectiveOptions:
    """The options of objectives; `common.objectives.registry` says which objective takes which."""

    obj: Annotated[ObjectiveName | None, tyro.conf.arg(help=summaries())] = None
    K: int | None = None
    """importance samples of each component of the posterior (of all of an ebm posterior). Default: 30 (MMVAE's paper;
    its script: 20)"""
    looser: bool = Unset(True)
    """take the mean over a mixture's components outside the logarithm (MMVAE's paper)"""
    dreg: Literal["exact", "stop-all", "published"] | None = None
    """which gradient of dreg. exact, the default: unbiased for mixtures too; stop-all: the paper's rule; published: the
    one in its code"""
    max_memory: float | None = None
    """decode only as many samples at a time as fit into this many GiB with their gradients: the same numbers in less
    memory"""
    approx_m: int = 0
    """number of random subsets, of two modalities to all but one, whose ELBOs --obj mvae adds for each batch"""

    OF_THE_OBJECTIVE: ClassVar = ("K", "looser", "dreg", "approx_m")  # a run with another --obj does not take them over

    def objective_name(self, exists: Sequence[str]) -> str:
        """The objective's name: the default is the first one that exists."""
        return self.obj or exists[0]

    def check_objective(self, model: str, exists: Sequence[str], fusion: str, posterior: str) -> None:
        """Refuse fusions, objectives and options that do not exist for a model.

        Args:
            model: the option that names the model ("--model mvae").
            exists: names of the model's objectives, the default first.
            fusion, posterior: of the model's experts (`common.models.FUSIONS`, `FAMILIES`).

        Raises:
            InputError: says why, and what exists.
        """
        from common.models import FAMILIES, FUSIONS, check_fusion  # needs torch, which --help does without

        check_fusion(fusion, posterior)
        obj, has_density = self.objective_name(exists), FAMILIES[posterior].has_density
        registry.check_objective(obj, tuple(exists), model, has_density)
        registry.check_options(obj, self._given_options(obj))
        require(
            FUSIONS[fusion].is_mixture or isinstance(self.looser, Unset) or not self.looser,
            f"--looser takes the mean over a mixture's components, and {model} is no mixture: leave it out",
        )
        for name in ("K", "max_memory"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        require(self.approx_m >= 0, f"--approx-m must not be negative, it is {self.approx_m}")
        require(
            has_density or obj != "iwae" or self.K != 1,
            "--K 1 with --posterior ebm: --obj elbo is the bound with one sample, without the noise of choosing it",
        )

    def _given_options(self, obj: str) -> dict[str, object]:
        """The options that ask for something; one sample is what every objective takes."""
        asks = {
            "K": self.K not in (None, 1),
            "looser": bool(self.looser) and not isinstance(self.looser, Unset),
            "dreg": self.dreg is not None,
            "max_memory": self.max_memory is not None,
            "approx_m": self.approx_m != 0,
        }
        return {name: getattr(self, name) for name, asked in asks.items() if asked}


@dataclasses.dataclass
class ModelConfig:
    """The options that all sample.py, loglike.py and analyse.py share."""

    model: tyro.conf.Positional[Path]
    """a checkpoint, or the folder of a run (its best model); also the original authors' file"""
    data_dir: Path = Path("data")
    """the dataset in its original format"""
    demo: bool = False
    """use the folder's built-in data: no files"""
    download: bool = False
    """fetch what is missing from the dataset's mirrors, checksummed, resumable"""
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


def as_json(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, as config.json and the checkpoints hold it."""
    plain = {Path: str, Unset: lambda _: None}
    return {
        name: next((convert(value) for kind, convert in plain.items() if isinstance(value, kind)), value)
        for name, value in vars(config).items()
    }
