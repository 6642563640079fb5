"""What one process does: train a plan's models, measure them, and write down what came of it.

A run's folder is a save-dir of train.py with log.txt, what everything printed, a JSON file of each measure, and, when
all is done, result.json. Whatever is there already is not done again.
"""

import contextlib
import fcntl
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from submitit.helpers import DelayedSubmission

from common.checkpoints import LAST, load
from common.io import write_atomically
from common.training.runs import NOT_OF_THE_RUN, git_commit
from reproduction.plans import Plan, Setting

ROOT = Path(__file__).parents[1]
RESULT, LOG, PROBE, EPOCHS = "result.json", "log.txt", "probe", "epochs.json"


class Failed(Exception):
    """A script did not do what it was called for."""


@dataclass(frozen=True)
class Where:
    """What all runs of a call have in common; folders are absolute."""

    save_dir: Path
    data_dir: Path
    demo: bool
    cuda: bool
    precision: str
    hours: float | None
    """that the training of a run may take"""
    threads: int
    """of a process"""

    def data(self, dataset: str) -> Path:
        """The dataset's files, linked, since what the scripts make of them is written beside."""
        return self.save_dir / "data" / dataset

    def folder(self, run: "Run") -> Path:
        return self.save_dir / run.name

    def setting(self, run: "Run") -> Setting:
        return run.plan.demo if self.demo else run.plan.full


@dataclass(frozen=True)
class Run:
    """A plan's training with one seed, for a table."""

    table: str
    plan: Plan
    seed: int

    @property
    def name(self) -> str:
        return f"{self.table}/{self.plan.experiment}/{slug(self.plan.model)}_seed{self.seed}"


def slug(model: str) -> str:
    """A model's name as that of a folder."""
    return re.sub(r"[^\w-]+", "_", model)


@dataclass(frozen=True)
class Chain:
    """Runs of which each but the first starts from the one before: the work of one process."""

    runs: tuple[Run, ...]
    where: Where

    @property
    def name(self) -> str:
        return self.runs[-1].name

    @property
    def preparation(self) -> "Preparation":
        plan = self.runs[-1].plan
        return Preparation(plan.data, plan.prepare, self.where)

    def __call__(self) -> str | None:
        """
        Returns:
            why it failed, if it did.
        """
        try:
            for run, before in zip(self.runs, (None, *self.runs), strict=False):
                perform(run, before, self.where)
        except Failed as failure:
            return str(failure)

    def finished(self) -> bool:
        """Whether all is there, and as long as it is to be."""
        return all((self.where.folder(run) / RESULT).exists() and not cut_short(run, self.where) for run in self.runs)

    def progress(self) -> str:
        """How far the run is that is under way."""
        run = next((run for run in self.runs if not (self.where.folder(run) / RESULT).exists()), self.runs[-1])
        file = self.where.folder(run) / "metrics.jsonl"
        done = len(file.read_text().splitlines()) if file.exists() else 0
        return f"{run.plan.experiment} {run.plan.model} {done} epochs"

    def checkpoint(self) -> DelayedSubmission:
        """What is put back into the queue where the process has to make room: the same, which goes on."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Preparation:
    """Making what is missing of a dataset: commands, one after the other."""

    dataset: str
    commands: tuple[str, ...]
    where: Where

    @property
    def name(self) -> str:
        made = " and ".join(dict.fromkeys(command.split()[0] for command in self.commands))
        return f"data of {self.dataset}" + (f" by {made}" if made else "")

    def __call__(self) -> str | None:
        """
        Returns:
            why it failed, if it did.
        """
        try:
            self.make()
        except Failed as failure:
            return str(failure)

    def make(self) -> None:
        folder = self.where.data(self.dataset)
        folder.mkdir(parents=True, exist_ok=True)
        source = self.where.data_dir / self.dataset
        made = any("{root}" in command for command in self.commands)
        if not (made or source.is_dir()):
            raise Failed(
                f"there is no {source}: put the dataset there, or name its place by --data-dir; what can be fetched, "
                "a folder's train.py fetches with --download"
            )
        for file in () if made else sorted(source.iterdir()):
            with contextlib.suppress(FileExistsError):  # linked before, or by another that prepares it too
                (folder / file.name).symlink_to(file)
            linked = (folder / file.name).resolve()
            if linked != file.resolve():
                raise Failed(f"{folder} was made of {linked.parent}, not of {source}: choose another --save-dir")
        for command in self.commands:
            done = folder / f"{slug(command)}.done"
            if not done.exists():
                said = {"data": folder, "root": self.where.data_dir, "cuda": "--cuda" if self.where.cuda else ""}
                words = [made for word in shlex.split(command) if (made := word.format(**said))]
                log = self.where.save_dir / "preparations" / slug(self.name)
                log.mkdir(parents=True, exist_ok=True)
                call([sys.executable, "-m", *words], log, self.where.threads)
                done.touch()

    def progress(self) -> str:
        return self.name

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(self)


def perform(run: Run, before: Run | None, where: Where) -> None:
    folder, plan = where.folder(run), run.plan
    folder.mkdir(parents=True, exist_ok=True)
    if cut_short(run, where):
        raise Failed(f"{folder} is of another --budget: give one, or choose another --save-dir")
    if (folder / RESULT).exists():
        return
    setting = where.setting(run)
    data = ["--demo"] if where.demo else ["--data-dir", str(where.data(plan.data))]
    data += ["--cuda"] * where.cuda

    def training(epochs: int, annealing: int, save_dir: Path) -> list[str]:
        start = ["--pre-trained", str(where.folder(before))] if before else []
        length = ["--epochs", str(epochs), "--annealing-epochs", str(annealing), "--precision", where.precision]
        goes_on = ["--seed", str(run.seed), "--resume"]
        once = ["--seeds", str(run.seed), "--jobs", "1"] if plan.writes else goes_on
        options = [*shlex.split(setting.options), *length, *start, *once, *data, "--save-dir", str(save_dir)]
        return module(plan, plan.train, options)

    epochs, annealing = within(setting, training, folder, where)
    commands = [training(epochs, annealing, folder)]
    call(commands[0], folder, where.threads)
    written = [*plan.writes]
    for measure in plan.measures:
        options = measure.demo if where.demo else measure.options
        if options is not None:
            file = folder / f"{measure.name}.json"
            commands.append(module(plan, measure.script, [str(folder), *options.split(), *data, "--json", str(file)]))
            if not file.exists():
                call(commands[-1], folder, where.threads)
            written.append(measure.name)
    content = {
        "table": run.table,
        "experiment": plan.experiment,
        "model": plan.model,
        "seed": run.seed,
        "demo": where.demo,
        "epochs": {"planned": setting.epochs, "given": epochs},
        "commands": [shlex.join(["python", *command[1:]]).replace(f"{where.save_dir}/", "") for command in commands],
        "commit": git_commit(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name() if where.cuda else processor(),
        "threads": where.threads,
        **trained(folder),
        "measured": {name: json.loads((folder / f"{name}.json").read_text()) for name in written},
    }
    write_atomically(folder / RESULT, json.dumps(content, indent=1).encode())


def module(plan: Plan, script: str, options: list[str]) -> list[str]:
    """The command that runs an experiment's script; `script` may say what it is to do."""
    name, *what = script.split()
    return [sys.executable, "-m", f"{plan.experiment}.{name}", *what, *options]


def call(command: list[str], folder: Path, threads: int) -> None:
    """Run a command from the repository's root; what it prints goes to the folder's log.

    Interrupted, it is told to stop, which a training does after a batch and a checkpoint.

    Raises:
        Failed: its last words; or another is at work in that folder.
    """
    with open(folder / LOG, "a+") as log:
        try:
            # held as long as the command has the log open, also where this process is killed
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Failed(f"another process is at work in {folder}") from error
        print(f"$ {shlex.join(command)}", file=log, flush=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait()
        if process.returncode < 0:
            raise Failed(f"it was stopped by {signal.Signals(-process.returncode).name} ({folder / LOG})")
        if process.returncode:
            log.seek(0)
            raise Failed(f"{log.read().strip().splitlines()[-1]} ({folder / LOG})")


def within(
    setting: Setting, training: Callable[[int, int, Path], list[str]], folder: Path, where: Where
) -> tuple[int, int]:
    """Epochs, and epochs of annealing in proportion, that take the hours a run has, by the time that one takes.

    A run that goes on has those it began with.
    """
    begun = folder / EPOCHS
    if not begun.exists():
        epochs = setting.epochs
        if where.hours is not None:
            probe = folder / PROBE
            call(training(1, 0, probe), folder, where.threads)
            epochs = max(1, min(epochs, int(where.hours * 3600 / trained(probe)["seconds"])))
            shutil.rmtree(probe)
        write_atomically(begun, json.dumps([epochs, round(setting.annealing * epochs / setting.epochs)]).encode())
    epochs, annealing = json.loads(begun.read_text())
    return epochs, annealing


def cut_short(run: Run, where: Where) -> bool:
    """Whether a run was begun with a budget, and now is to have all its epochs."""
    begun = where.folder(run) / EPOCHS
    return where.hours is None and begun.exists() and json.loads(begun.read_text())[0] < where.setting(run).epochs


def trained(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its training: options, examples, seconds, and the curves of its bound."""
    lines = {
        file.parent: [json.loads(line) for line in file.read_text().splitlines()]
        for file in folder.rglob("metrics.jsonl")
    }
    own = lines.get(folder, [])
    config = json.loads((folder / "config.json").read_text())["config"] if own else {}
    return {
        "config": {name: value for name, value in config.items() if name not in NOT_OF_THE_RUN},
        "examples": load(folder / LAST)["n_train"] if own else None,
        "seconds": round(sum(line["seconds"] for run in lines.values() for line in run), 1),
        "curves": {
            split: [round(line[split]["bound"], 3) for line in own if split in line] for split in ("train", "valid")
        },
    }


def processor() -> str:
    """The name of the CPU, as far as the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
