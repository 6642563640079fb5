"""The work of one process: train a plan's models, measure them, and write the results.

A run's folder is a save-dir of train.py, with log.txt (all output), a JSON file for each measure, and at the end
result.json. Steps whose files exist are not repeated.
"""

import contextlib
import json
import math
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import lock_descriptor
from submitit.helpers import DelayedSubmission
from tqdm import tqdm

from common import schemas
from common.checkpoints import LAST, load
from common.errors import InputError
from common.io import check_writable, write_atomically
from common.training.runs import git_commit, read_metrics
from reproduction.plans import Plan, Setting
from reproduction.results import DELETE, Result, read_epochs, read_training

ROOT = Path(__file__).parents[1]
RESULT, LOG, PROBE, EPOCHS = "result.json", "log.txt", "probe", "epochs.json"


class Failed(Exception):
    """A script failed; the message says why."""


class TooLong(Failed):
    """A script took longer than it may."""


@dataclass(frozen=True)
class Site:
    """What all runs of one command share: folders (absolute) and options."""

    save_dir: Path
    data_dir: Path
    demo: bool
    cuda: bool
    precision: str
    hours: float | None
    """hours that the training of a run may take; None: no limit"""
    threads: int
    """threads of each process"""

    def data(self, dataset: str) -> Path:
        """The folder of links to a dataset's files; the scripts write what they derive beside the links."""
        return self.save_dir / "data" / dataset

    def folder(self, run: "Run") -> Path:
        """The folder of a run."""
        return self.save_dir / run.name

    def setting(self, run: "Run") -> Setting:
        """The options of a run's training."""
        return run.plan.demo if self.demo else run.plan.full


@dataclass(frozen=True)
class Run:
    """One model of a table, trained with one seed."""

    table: str
    plan: Plan
    seed: int

    @property
    def name(self) -> str:
        """The run's folder, relative to the save-dir."""
        return f"{self.table}/{self.plan.experiment}/{slug(self.plan.model)}_seed{self.seed}"


def training_progress(folder: Path) -> str:
    """How far the training in a folder is: epoch, examples/s, time left; empty before it begins."""
    if not (folder / EPOCHS).exists():
        return ""
    total, _ = read_epochs(folder / EPOCHS)
    lines = read_metrics(folder)
    if not lines:
        return f"epoch 1/{total}"
    last = lines[-1]
    if last["epoch"] >= total:
        return "is being measured"
    left = tqdm.format_interval((total - last["epoch"]) * last["seconds"])
    return f"epoch {last['epoch'] + 1}/{total}, {last['examples_per_second']:,.0f} examples/s, {left} left"


def slug(model: str) -> str:
    """A model's name as the name of a folder."""
    return re.sub(r"[^\w-]+", "_", model)


@dataclass(frozen=True)
class Chain:
    """Runs of one process, in order; each but the first starts from the model of the run before."""

    runs: tuple[Run, ...]
    site: Site

    @property
    def name(self) -> str:
        """The name of the last run."""
        return self.runs[-1].name

    @property
    def preparation(self) -> "Preparation":
        """The work that makes the data of the runs."""
        plan = self.runs[-1].plan
        return Preparation(plan.data, plan.prepare, self.site, plan.generated)

    def __call__(self) -> str | None:
        """Train and measure the runs; returns the error if one fails."""
        try:
            for run, before in zip(self.runs, (None, *self.runs), strict=False):
                perform(run, before, self.site)
        except (Failed, InputError) as failure:
            return str(failure)

    def finished(self) -> bool:
        """Whether all results are there, with all epochs that are asked for."""
        return all((self.site.folder(run) / RESULT).exists() and not cut_short(run, self.site) for run in self.runs)

    def progress(self) -> str:
        """How far the current run is, for the progress bar."""
        run = next((run for run in self.runs if not (self.site.folder(run) / RESULT).exists()), self.runs[-1])
        several = run.plan.writes  # trainings, in folders below
        how_far = "" if several else training_progress(self.site.folder(run))
        return f"{run.plan.experiment} {run.plan.model} {how_far}".rstrip()

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue if the job is preempted: the same work, which then resumes."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Preparation:
    """Commands, one after the other, that make the missing files of a dataset."""

    dataset: str
    commands: tuple[str, ...]
    site: Site
    generated: bool = False
    """there are no files to link"""

    @property
    def name(self) -> str:
        """The preparation's name in messages."""
        modules = " and ".join(dict.fromkeys(command.split()[0] for command in self.commands))
        return f"data of {self.dataset}" + (f" by {modules}" if modules else "")

    def __call__(self) -> str | None:
        """Make the files; returns the error if that fails."""
        try:
            self.make()
        except (Failed, InputError) as failure:
            return str(failure)

    def make(self) -> None:
        """Link the dataset's files, and run the commands that have not run yet.

        Raises:
            Failed: the dataset is missing, the folder links to another one, or a command failed.
        """
        folder = self.site.data(self.dataset)
        folder.mkdir(parents=True, exist_ok=True)
        made = self.generated or any("{root}" in command for command in self.commands)  # all files, by the commands
        if not made:
            self._link(folder)
        for command in self.commands:
            done = folder / f"{slug(command)}.done"
            if not done.exists():
                values = {"data": folder, "root": self.site.data_dir, "cuda": "--cuda" if self.site.cuda else ""}
                words = [filled for word in shlex.split(command) if (filled := word.format(**values))]
                log = self.site.save_dir / "preparations" / slug(self.name)
                log.mkdir(parents=True, exist_ok=True)
                call([sys.executable, "-m", *words], log, self.site.threads)
                done.touch()

    def _link(self, folder: Path) -> None:
        source = self.site.data_dir / self.dataset
        if not source.is_dir():
            raise Failed(
                f"there is no {source}: put the dataset there, or give its place by --data-dir; train.py --download "
                "in the experiment's folder fetches what can be downloaded"
            )
        for file in sorted(source.iterdir()):
            with contextlib.suppress(FileExistsError):  # linked before, or by another process
                (folder / file.name).symlink_to(file)
            linked = (folder / file.name).resolve()
            if linked != file.resolve():
                raise Failed(f"{folder} links to {linked.parent}, not to {source}: choose another --save-dir")

    def progress(self) -> str:
        """The preparation's name, for the progress bar."""
        return self.name

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue if the job is preempted."""
        return DelayedSubmission(self)


def perform(run: Run, before: Run | None, site: Site) -> None:
    """Train and measure a run, and write its results, unless they exist.

    Args:
        before: the run whose model this one starts from, if there is one.

    Raises:
        Failed: a command failed, or the run was started with a --budget and now has none.
    """
    folder, plan = site.folder(run), run.plan
    folder.mkdir(parents=True, exist_ok=True)
    if cut_short(run, site):
        raise Failed(f"{folder} was started with a --budget: give one, or choose another --save-dir")
    if (folder / RESULT).exists():
        return
    training = partial(training_command, run, before, site)
    epochs, annealing = epochs_within(site.setting(run), training, folder, site)
    train, measures = training(epochs, annealing, folder), measure_commands(run, site)
    call(train, folder, site.threads)
    for name, command in measures.items():
        if not (folder / f"{name}.json").exists():
            call(command, folder, site.threads)
    commands = [shlex.join(["python", *command[1:]]) for command in (train, *measures.values())]
    content = {
        "table": run.table,
        "experiment": plan.experiment,
        "model": plan.model,
        "seed": run.seed,
        "demo": site.demo,
        "epochs": {"planned": site.setting(run).epochs, "given": epochs},
        "commands": commands,
        "commit": git_commit(),
        "date": datetime.now().date().isoformat(),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name() if site.cuda else processor(),
        "threads": site.threads,
        "examples": None if plan.writes else load(folder / LAST)["n_train"],
        **read_training(folder),
        "measured": {
            name: schemas.read_json(folder / f"{name}.json", dict[str, Any], DELETE)
            for name in (*plan.writes, *measures)
        },
    }
    schemas.check(content, Result, f"the result of {run.name}", "delete the damaged files of its folder")
    text = json.dumps(content, indent=1, ensure_ascii=False).replace(f"{site.save_dir}/", "")  # paths of any machine
    write_atomically(folder / RESULT, text.encode())


def training_command(
    run: Run, before: Run | None, site: Site, epochs: int, annealing: int, save_dir: Path
) -> list[str]:
    """The command that trains a run's model, and resumes if it was stopped."""
    start = ["--pre-trained", str(site.folder(before))] if before else []
    length = ["--epochs", str(epochs), "--annealing-epochs", str(annealing), "--precision", site.precision]
    seed = ["--seeds", str(run.seed), "--jobs", "1"] if run.plan.writes else ["--seed", str(run.seed), "--resume"]
    options = shlex.split(site.setting(run).options)
    options += [*length, *start, *seed, *data_options(run, site), "--save-dir", str(save_dir)]
    return module_command(run.plan, run.plan.train, options)


def measure_commands(run: Run, site: Site) -> dict[str, list[str]]:
    """The commands that measure a run's model, by the measure's name."""
    commands, folder = {}, site.folder(run)
    for measure in run.plan.measures:
        chosen = measure.demo if site.demo else measure.options
        output = ["--json", str(folder / f"{measure.name}.json")]
        options = [str(folder), *chosen.split(), *data_options(run, site), *output]
        commands[measure.name] = module_command(run.plan, measure.script, options)
    return commands


def data_options(run: Run, site: Site) -> list[str]:
    """The options of data and device that all scripts take."""
    data = ["--demo"] if site.demo else ["--data-dir", str(site.data(run.plan.data))]
    return data + ["--cuda"] * site.cuda


def module_command(plan: Plan, script: str, options: list[str]) -> list[str]:
    """The command that runs an experiment's script, which may be followed by a subcommand."""
    name, *subcommand = script.split()
    return [sys.executable, "-m", f"{plan.experiment}.{name}", *subcommand, *options]


def call(command: list[str], folder: Path, threads: int, seconds: float | None = None) -> None:
    """Run a command from the repository's root; its output goes to the folder's log.

    On Ctrl-C the command is interrupted too; a training then finishes its batch and saves a checkpoint.

    Args:
        seconds: kill the command if it takes longer.

    Raises:
        TooLong: it took longer.
        Failed: the command failed, with the last line that it printed, or was stopped by Ctrl-C; or another process
            works in the folder.
    """
    check_writable(folder / LOG)
    with open(folder / LOG, "a+") as log:
        # held as long as the command has the log open, even if this process is killed
        if not lock_descriptor(log.fileno(), blocking=False):
            raise Failed(f"another process is at work in {folder}")
        print(f"$ {shlex.join(command)}", file=log, flush=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        process = None
        try:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            process.wait(seconds)
        except subprocess.TimeoutExpired as timeout:
            process.kill()
            process.wait()
            raise TooLong(f"stopped after {seconds:.0f} s ({folder / LOG})") from timeout
        except KeyboardInterrupt as interrupt:
            # a second one, which submitit sends, can strike while Popen holds its lock and so block wait() for ever
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            if process:
                process.send_signal(signal.SIGINT)
                process.wait()
            signal.signal(signal.SIGINT, handler)
            raise Failed(f"stopped by Ctrl-C ({folder / LOG})") from interrupt
        if process.returncode < 0:
            raise Failed(f"stopped by {signal.Signals(-process.returncode).name} ({folder / LOG})")
        if process.returncode:
            log.seek(0)
            raise Failed(f"{log.read().strip().splitlines()[-1]} ({folder / LOG})")


def epochs_within(
    setting: Setting, training: Callable[[int, int, Path], list[str]], folder: Path, site: Site
) -> tuple[int, int]:
    """The epochs that fit into the hours of a run, and annealing epochs in proportion.

    One epoch is trained to measure its time, which counts too. A run that was started before keeps its epochs.

    Args:
        training: the command that trains, given epochs, annealing epochs and a save-dir.
        folder: the run's folder.
    """
    epochs_file = folder / EPOCHS
    if not epochs_file.exists():
        epochs = setting.epochs
        if site.hours is not None:
            epochs = min(epochs, affordable_epochs(training, folder, site))
        write_atomically(epochs_file, json.dumps([epochs, round(setting.annealing * epochs / setting.epochs)]).encode())
    return read_epochs(epochs_file)


def affordable_epochs(training: Callable[[int, int, Path], list[str]], folder: Path, site: Site) -> int:
    """The epochs that the hours of a run leave after one epoch to measure their time.

    Raises:
        Failed: there is no time for one.
    """
    probe, allowed, started = folder / PROBE, site.hours * 3600, time.monotonic()
    try:
        call(training(1, 0, probe), folder, site.threads, allowed)
        taken = time.monotonic() - started
        epoch = read_training(probe)["seconds"]
    except TooLong as error:
        raise Failed(
            f"its first epoch takes longer than the {allowed:.0f} s that --budget leaves it: raise it"
        ) from error
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    once = taken - epoch  # starting and drawing, which the training does again
    epochs = int((allowed - taken - once) / epoch)
    if epochs < 1:
        raise Failed(
            f"--budget leaves it {math.floor(allowed)} s, and to measure and train one epoch takes "
            f"{math.ceil(2 * taken)} s: raise it"
        )
    return epochs


def cut_short(run: Run, site: Site) -> bool:
    """Whether a run was started with fewer epochs, for a --budget, and there is none now."""
    epochs_file = site.folder(run) / EPOCHS
    if site.hours is not None or not epochs_file.exists():
        return False
    return read_epochs(epochs_file)[0] < site.setting(run).epochs


def processor() -> str:
    """The name of the CPU, or of its architecture if the system does not tell it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = (line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
