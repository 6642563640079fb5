"""A run: its configuration and command line, its save-dir, and what it writes there."""

import dataclasses
import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from common.checkpoints import BEST, LAST, load, load_config, write_atomically
from common.errors import InputError, require

# what a resumed run may change, and what has no part in it; paths are not compared, since one place has many names
SPEED = {"cuda", "precision", "compile", "capture", "max_memory"}
FREE = SPEED | {"epochs", "patience", "log_interval", "analytics", "logp"}
NOT_OF_THE_RUN = {"data_dir", "save_dir", "experiment", "resume", "dry_run", "download", "pre_trained"}


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
            value = getattr(self, name)
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


def command_line(
    main: Callable[[Any], object], config: type, description: str | None, args: list[str] | None = None
) -> None:
    """Run `main(config)` from the command line: exit 2 and one line for what a user can mend, 130 on Ctrl-C.

    That includes what the system refuses, such as writing a picture to a full disk.
    """
    given = tyro.cli(config, args=args, description=description)
    if type(given) is not config:  # one of several commands, which the first argument names
        config, args = type(given), (sys.argv[1:] if args is None else args)[1:]
    try:
        if getattr(given, "pre_trained", None):
            last = given.save_dir / given.experiment / LAST
            source = last if given.resume and last.exists() else given.pre_trained
            for without in ((), getattr(config, "OF_THE_OBJECTIVE", ())):
                default = taken_up(config, source, without)
                given = tyro.cli(config, args=args, description=description, default=default)
                if not without and getattr(given, "obj", None) == getattr(default, "obj", None):
                    break
        main(given)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def folder_of(model: Path) -> Path:
    """The folder of a run, given it or a checkpoint inside it."""
    return model if model.is_dir() else model.parent


def check_same(options: dict[str, Any], model: Path) -> None:
    """Raise InputError where a checkpoint, or the best one of a folder, was trained with other options."""
    trained = load_config(model)  # the authors' lacks some
    others = [name for name, value in options.items() if value != trained.get(name, value)]
    was = " ".join(flag(name, trained[name]) for name in others)
    require(not others, f"{model} was trained with {was}: give the same options")


def taken_up(config: type, path: Path, without: Sequence[str] = ()) -> RunConfig:
    """The configuration of the run that a checkpoint is of, as far as `config` has its options and they are the run's.

    Args:
        without: options that are left as they are by default.

    Raises:
        InputError: the checkpoint is unusable.
    """
    own = {field.name for field in dataclasses.fields(config)} - NOT_OF_THE_RUN - {"cuda", *without}
    return config(**{name: x for name, x in load_config(path).items() if name in own and x is not None})


class Run:
    """An open save-dir.

    Args:
        experiment: the folder's name, kept in config.json and in every checkpoint.
        config: the run's configuration.

    Raises:
        InputError: the save-dir holds a run and `resume` is off, or another experiment's run, or one with other
            options than those that may change.
    """

    def __init__(self, experiment: str, config: RunConfig) -> None:
        self.experiment = experiment
        self.config = as_json(config)
        self.dir = config.save_dir / config.experiment
        self.samples = self.dir / "samples"
        self.metrics_file = self.dir / "metrics.jsonl"
        self.checkpoint = self._previous(config.resume)
        self.about = {
            "experiment": experiment,
            "config": self.config,
            "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "commit": git_commit(),
            "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
            "threads": torch.get_num_threads(),
            "resumed_from": [],
        }
        if self.checkpoint:
            earlier = {name: self.checkpoint[name] for name in ("command", "started", "commit")}
            self.about["resumed_from"] = [*self.checkpoint["resumed_from"], earlier]
        done = self.checkpoint["epoch"] if self.checkpoint else 0
        self.metrics = [line for line in self._read_metrics() if line["epoch"] <= done]
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.dir} cannot be written ({error.strerror}): choose another --save-dir") from error
        write_atomically(self.dir / "config.json", json.dumps(self.about, indent=2).encode())
        write_atomically(self.metrics_file, "".join(json.dumps(line) + "\n" for line in self.metrics).encode())

    def log(self, line: dict[str, Any]) -> None:
        """Append an epoch to metrics.jsonl."""
        self.metrics.append(line)
        try:
            with open(self.metrics_file, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise InputError(f"{self.metrics_file} could not be written ({error.strerror})") from error

    def _previous(self, resume: bool) -> dict | None:
        """The last checkpoint of the save-dir; None where there is none yet."""
        config_file, last = self.dir / "config.json", self.dir / LAST
        if not config_file.exists():
            found = [name for name in (LAST, BEST) if (self.dir / name).exists()]
            require(not found, f"{self.dir} holds {' and '.join(found)} of something else: choose another --save-dir")
            return None
        try:
            about = json.loads(config_file.read_text())
            experiment, config = about["experiment"], about["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{config_file} is damaged: choose another --save-dir") from error
        require(experiment == self.experiment, f"{self.dir} holds a run of {experiment}: choose another --save-dir")
        if not last.exists():
            require(
                not (self.dir / BEST).exists(), f"{self.dir} holds {BEST} without {LAST}: choose another --save-dir"
            )
            return None
        require(resume, f"{self.dir} holds a run already: --resume goes on with it, --save-dir DIR starts another")
        for name, value in self.config.items():
            if name not in FREE | NOT_OF_THE_RUN and value != config.get(name):
                said = f"{option(name)} {config.get(name)}, not {value}"
                raise InputError(f"{self.dir} was run with {said}: --resume needs the same")
        checkpoint = load(last)
        lacking = [key for key in ("epoch", "n_train", "state_dict", "optimizer", "rng") if key not in checkpoint]
        require(not lacking, f"{last} lacks {' and '.join(lacking)}: it is not the last checkpoint of a run")
        return checkpoint

    def _read_metrics(self) -> list[dict]:
        if not self.metrics_file.exists():
            return []
        # a killed run can leave half a last line; its epoch is not in the checkpoint and will be run again
        try:
            return [json.loads(line) for line in self.metrics_file.read_text().split("\n")[:-1]]
        except ValueError as error:
            raise InputError(f"{self.metrics_file} is damaged: move it away to go on without its curves") from error


def git_commit() -> str | None:
    """The repository's commit, marked "+" where files differ from it; None outside a clone."""
    root = Path(__file__).parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
