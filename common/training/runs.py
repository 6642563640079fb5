"""A run: its command line, its save-dir, and what it writes there."""

import json
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from common import distributed
from common.checkpoints import BEST, LAST, load, load_config
from common.errors import InputError, flag, option, require
from common.io import write_atomically
from common.training.options import RunConfig, as_json

# what a resumed run may change, and what has no part in it; paths are not compared, since one place has many names
SPEED = {"cuda", "precision", "compile", "capture", "max_memory"}
FREE = SPEED | {"epochs", "patience", "log_interval", "analytics", "logp"}
NOT_OF_THE_RUN = {"data_dir", "cache_dir", "save_dir", "experiment", "resume", "dry_run", "download", "pre_trained"}


def folder_of(model: Path) -> Path:
    """The folder of a run, given it or a checkpoint inside it."""
    return model if model.is_dir() else model.parent


def check_same(options: dict[str, Any], model: Path) -> None:
    """Raise InputError where a checkpoint, or the best one of a folder, was trained with other options."""
    trained = load_config(model)  # the authors' lacks some
    others = [name for name, value in options.items() if value != trained.get(name, value)]
    was = " ".join(flag(name, trained[name]) for name in others)
    require(not others, f"{model} was trained with {was}: give the same options")


class Run:
    """An open save-dir.

    Of several processes the first alone writes.

    Args:
        experiment: the folder's name, kept in config.json and in every checkpoint.
        config: the run's configuration.

    Raises:
        InputError: the save-dir holds a run and `resume` is off, or another experiment's run, or one with other
            options than those that may change.
    """

    def __init__(self, experiment: str, config: RunConfig) -> None:
        self.experiment = experiment
        self.writes = distributed.rank() == 0
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
        if self.writes:
            self._open()

    def _open(self) -> None:
        try:
            self.samples.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.dir} cannot be written ({error.strerror}): choose another --save-dir") from error
        write_atomically(self.dir / "config.json", json.dumps(self.about, indent=2).encode())
        write_atomically(self.metrics_file, "".join(json.dumps(line) + "\n" for line in self.metrics).encode())

    def log(self, line: dict[str, Any]) -> None:
        """Append an epoch to metrics.jsonl."""
        self.metrics.append(line)
        if not self.writes:
            return
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
            best = self.dir / BEST
            if best.exists():
                # of a run that was killed between the two files of its first epoch there is nothing to keep
                own = resume and load(best).get("started") == about.get("started", "")
                require(own, f"{self.dir} holds {BEST} without {LAST}: choose another --save-dir")
                best.unlink(missing_ok=True)
            return None
        require(resume, f"{self.dir} holds a run already: --resume goes on with it, --save-dir DIR starts another")
        for name, value in self.config.items():
            if name not in FREE | NOT_OF_THE_RUN and value != config.get(name):
                said = f"{option(name)} {config.get(name)}, not {value}"
                if isinstance(value, list | dict):  # what is known of the data
                    said = f"another {name.replace('_', ' ')}"
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
    root = Path(__file__).parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
