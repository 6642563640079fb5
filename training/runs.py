"""A run: its command line, its save-dir, and what it writes there."""

import contextlib
import json
import math
import shlex
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from common.checkpoints import BEST, FORMAT, LAST, load_config
from common.errors import InputError, flag, flags, require
from common.execution import processes
from common.io import (
    check_writable,
    load_tensors,
    locked,
    read_json,
    read_json_lines,
    remove_leftovers,
    write_atomically,
)
from training.optimizers import Count, OptimizerState
from training.options import NOT_OF_THE_RUN, ConfigFile, RunConfig, as_json, taken_up
from training.provenance import provenance

import msgspec
from torch import Tensor

REMEDY = "train anew in another --save-dir"  # for a damaged checkpoint
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
METRICS, CURVES = "metrics.jsonl", "loss.png"
SPEED = {"cuda", "precision"}
REPORTING = {"log_interval", "track", "analytics", "logp"}
MAY_CHANGE = SPEED | REPORTING | {"epochs", "patience"}  # by a resumed run; epochs: with a constant learning rate


class Progress(msgspec.Struct, kw_only=True):
    """How far a training has come.

    epoch: epochs that are finished.
    batch: batches of the next epoch that are finished.
    sums, n: the bound and its terms in nats, summed over the n examples of these batches.
    seconds: what these batches took.
    best, best_epoch: the highest score of an epoch, and that epoch.
    n_train: training examples.
    """

    epoch: Count = 0
    batch: Count = 0
    sums: dict[str, Finite] = {}
    n: Count = 0
    seconds: Finite = 0.0
    best: float = -math.inf
    best_epoch: Count = 0
    n_train: Count

    def end_epoch(self, score: float) -> bool:
        """Count the epoch under way as finished; whether its score is the best so far, which is then remembered."""
        self.epoch += 1
        self.batch, self.sums, self.n, self.seconds = 0, {}, 0, 0.0
        is_best = score > self.best
        if is_best:
            self.best, self.best_epoch = score, self.epoch
        return is_best


class ResumeCheckpoint(Progress):
    """What training resumes from; command to resumed_from: see `Run.about`.

    rng: the random states of each process, by device.
    """

    state_dict: dict[str, Tensor]
    rng: list[dict[str, Tensor]]
    optimizer: OptimizerState
    command: str
    started: str
    commit: str | None
    resumed_from: list[dict[str, str | None]]


class Epoch(TypedDict):
    """A line of metrics.jsonl: means over the examples in nats, beta, learning rate and speed."""

    epoch: int
    train: dict[str, float]
    beta: float
    lr: float
    seconds: float
    examples_per_second: float
    valid: NotRequired[dict[str, float]]


Callback = Callable[["Run", Epoch], None]  # called after each epoch, with the run and its line of metrics.jsonl


def check_same(options: dict[str, Any], model: Path) -> None:
    """Raise InputError if a checkpoint, or the best one of a folder, was trained with other options."""
    trained = load_config(model)  # the authors' checkpoints lack some options
    different = [name for name, value in options.items() if value != trained.get(name, value)]
    names = ["demo", *different] if trained.get("demo") else different
    trained_with = flags({name: trained[name] for name in names})
    require(not different, f"{model} was trained with {trained_with}: give the same options")


class Run(contextlib.ExitStack):
    """A save-dir, open and locked until the end of a `with`. Several processes share a run; only the first one writes.

    Args:
        experiment: the experiment's name, kept in config.json and in every checkpoint.
        config: the run's configuration.

    Attributes:
        dir, samples: the save-dir, and the folder of pictures in it.
        about: what config.json and every checkpoint hold about the run: its configuration, command, versions, ...
        checkpoint: the last checkpoint of the run that is resumed, or None.
        metrics: lines of metrics.jsonl, one an epoch.
        writes: whether this process writes.

    Raises:
        InputError: the save-dir holds a run and `resume` is off, or another experiment's run, or a run with other
            options (those in MAY_CHANGE may differ); or another process is at work in it.
    """

    def __init__(self, experiment: str, config: RunConfig) -> None:
        super().__init__()
        self.experiment = experiment
        self.writes = processes.rank() == 0
        self.config = as_json(config)
        self.dir = config.save_dir / config.experiment
        self.samples = self.dir / "samples"
        self.metrics_file = self.dir / METRICS
        with contextlib.ExitStack() as lock:
            if self.writes:
                lock.enter_context(locked(self.dir))
            self.checkpoint = None
            if check_save_dir(experiment, config):
                self.checkpoint = load_tensors(self.dir / LAST, ResumeCheckpoint, REMEDY, REMEDY)
            if config.resume and not self.checkpoint:
                print(f"{self.dir} holds no checkpoint to resume from: a new run starts")
            if self.writes:
                self._prepare()
            self.about = self._about()
            epochs_done = self.checkpoint.epoch if self.checkpoint else 0
            self.metrics = [line for line in read_metrics(self.dir) if line["epoch"] <= epochs_done]
            if self.writes:
                write_atomically(self.dir / "config.json", json.dumps(self.about, indent=2, allow_nan=False).encode())
                write_atomically(self.metrics_file, "".join(json.dumps(line) + "\n" for line in self.metrics).encode())
            self.push(lock.pop_all())  # an error above this line unlocks the save-dir

    def log(self, line: Epoch) -> None:
        """Append an epoch to metrics.jsonl."""
        self.metrics.append(line)
        if not self.writes:
            return
        try:
            with open(self.metrics_file, "a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            remedy = "free disk space, then --resume"
            raise InputError(f"{self.metrics_file} could not be written ({error.strerror}): {remedy}") from error

    def was_killed_while_drawing(self) -> bool:
        """Whether the pictures of a run with a last checkpoint are older than it; False if another process draws."""
        curves, last = self.dir / CURVES, self.dir / LAST
        return self.writes and (not curves.exists() or curves.stat().st_mtime < last.stat().st_mtime)

    def _prepare(self) -> None:
        """Make the folder of pictures, check that the files can be written, and remove what a killed run left."""
        self.samples.mkdir(exist_ok=True)
        files = [self.dir / name for name in (LAST, BEST, METRICS, CURVES, "config.json")]
        for path in files:
            check_writable(path)
        remove_leftovers(files)

    def _about(self) -> dict[str, Any]:
        about = {
            "format": FORMAT,
            "experiment": self.experiment,
            "config": self.config,
            "command": shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            **provenance(),
            "resumed_from": [],
        }
        if self.checkpoint:
            earlier = {name: getattr(self.checkpoint, name) for name in ("command", "started", "commit")}
            about["resumed_from"] = [*self.checkpoint.resumed_from, earlier]
        return about


def check_save_dir(experiment: str, config: RunConfig) -> bool:
    """Whether the save-dir holds a checkpoint that training goes on from.

    Facts about the data that the config lacks yet, such as a vocabulary, are not compared.

    Raises:
        InputError: it holds a run and `resume` is off, another experiment's run, or a run with other options.
    """
    folder, other = config.save_dir / config.experiment, "choose another --save-dir"
    config_file = folder / "config.json"
    found = [name for name in (LAST, BEST) if (folder / name).exists()]
    if not config_file.exists():
        require(not found, f"{folder} holds {' and '.join(found)} without config.json: {other}")
        return False
    before = read_json(config_file, ConfigFile, other)
    require(before.experiment == experiment, f"{folder} holds a run of {before.experiment[:100]}: {other}")
    message = f"{folder} holds a run already: --resume continues it, --save-dir DIR starts another"
    require(config.resume or not found, message)
    if LAST not in found:  # a run that was killed between the two files of its first epoch has only the best model
        return False
    _check_options(folder, config, type(config)(**taken_up(type(config), before.config, config_file, other)))
    return True


def _check_options(folder: Path, config: RunConfig, before: RunConfig) -> None:
    """Raise InputError if an option that must stay the same differs from the resumed run's."""
    schedule = config.lr_schedule
    fixed = {"settings"} if schedule == "constant" else {"settings", "epochs"}  # a schedule ends with the epochs
    for name, value in vars(config).items():
        earlier = getattr(before, name)
        is_fact = isinstance(earlier, list | dict)  # not an option, but about the data
        if name not in (MAY_CHANGE | NOT_OF_THE_RUN) - fixed and value != earlier and not (is_fact and value is None):
            difference = f"{flag(name, earlier)}, not {flag(name, value)}"
            if is_fact or isinstance(value, list | dict):
                difference = f"another {name.replace('_', ' ')}"
            why = f", since --lr-schedule {schedule} ends with them" if name == "epochs" else ""
            remedy = f"--resume needs the same{why}, or another save_dir"
            raise InputError(f"{folder} was run with {difference}: {remedy}")


def read_metrics(folder: Path) -> list[Epoch]:
    """The lines of a run's metrics.jsonl; none if there is no such file.

    A killed run can leave half a last line; its epoch is not in the checkpoint and will be run again.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / METRICS
    return read_json_lines(path, Epoch, "move it away to go on without its curves") if path.exists() else []


def report_epoch(line: Epoch, epochs: int, is_best: bool) -> None:
    """Print an epoch's metrics."""
    valid = f"  valid {line['valid']['bound']:.2f}{' *' if is_best else '  '}" if "valid" in line else ""
    means = f"bound {line['train']['bound']:.2f}{valid}  beta {line['beta']:.2f}"
    print(f"epoch {line['epoch']}/{epochs}  {means}  {line['examples_per_second']:,.0f} examples/s", flush=True)
