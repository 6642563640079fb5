"""The work of one process: train a plan's models, measure them, and write the results.

A run's folder is a save-dir of train.py, with log.txt (all output), a JSON file for each measure, and at the end
result.json. Steps whose files exist are not repeated.
"""

import contextlib
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from common.checkpoints import BEST, LAST, load
from common.errors import InputError
from common.io import as_type, read_json, write_atomically
from tools.reproduction.commands import (
    Failed,
    Run,
    Site,
    TooLong,
    call,
    following_commands,
    measure_commands,
    slug,
    training_command,
)
from tools.reproduction.records import Setting
from tools.reproduction.results import DELETE, Result, read_epochs, read_training
from training.provenance import processor, provenance

import torch
from submitit.helpers import DelayedSubmission

# what scripts keep beside a dataset; scripts write no links, so a table has its own
CACHES = {".json", ".lock", ".npy", ".npz", ".part", ".pt", ".tmp"}
RESULT, PROBE, EPOCHS = "result.json", "probe", "epochs.json"


class Resumable:
    """Work that goes on where it was stopped."""

    def checkpoint(self) -> DelayedSubmission:
        """What submitit puts back into the queue if the job is preempted: the same work."""
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Chain(Resumable):
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
                train_and_measure(run, before, self.site)
        except (Failed, InputError) as failure:
            return str(failure)

    def finished(self) -> bool:
        """Whether all results are there, with all epochs that are asked for."""
        return all((self.site.folder(run) / RESULT).exists() and not cut_short(run, self.site) for run in self.runs)


@dataclass(frozen=True)
class Preparation(Resumable):
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
        for file in sorted(x for x in source.iterdir() if x.suffix not in CACHES):
            place = folder / file.name
            with contextlib.suppress(FileExistsError):  # linked before, or by another process
                place.symlink_to(file)
            if place.is_symlink() and place.resolve() != file.resolve():
                raise Failed(f"{folder} links to {place.resolve().parent}, not to {source}: choose another --save-dir")


def train_and_measure(run: Run, before: Run | None, site: Site) -> None:
    """Train and measure a run, and write its results, unless they exist.

    Args:
        before: the run whose model this one starts from, if there is one.

    Raises:
        Failed: a command failed, or the run was started with a --budget and now has none.
    """
    folder = site.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    if cut_short(run, site):
        raise Failed(f"{folder} was started with a --budget: give one, or choose another --save-dir")
    if (folder / RESULT).exists():
        return
    training = partial(training_command, run, before, site)
    epochs, annealing = epochs_within(site.setting(run), training, folder, site)
    train, following = training(epochs, annealing, folder), following_commands(run, site)
    measures = measure_commands(run, site)
    call(train, folder, site.threads)
    for command, after in zip(following, run.plan.then, strict=True):
        done = folder / f"{slug(after)}.done"
        if not done.exists() or done.stat().st_mtime < (folder / BEST).stat().st_mtime:  # of an earlier model
            call(command, folder, site.threads)
            done.touch()
    for name, command in measures.items():
        if not (folder / f"{name}.json").exists():
            call(command, folder, site.threads)
    commands = [shlex.join(["python", *command[1:]]) for command in (train, *following, *measures.values())]
    content = result_of(run, site, epochs, commands)
    as_type(content, Result, f"the result of {run.name}", "delete the damaged files of its folder")
    text = json.dumps(content, indent=1, ensure_ascii=False).replace(f"{site.save_dir}/", "")  # paths of any machine
    write_atomically(folder / RESULT, text.encode())


def result_of(run: Run, site: Site, epochs: int, commands: list[str]) -> dict[str, Any]:
    """The result of a run that is trained and measured, as plain values of a `Result`.

    Args:
        epochs: those that were trained.
        commands: the training's, then the others, in order.
    """
    folder, plan = site.folder(run), run.plan
    return {
        "table": run.table,
        "experiment": plan.experiment,
        "model": plan.model,
        "seed": run.seed,
        "demo": site.demo,
        "epochs": {"planned": site.setting(run).epochs, "given": epochs},
        "commands": commands,
        "date": datetime.now().date().isoformat(),
        **provenance(),
        "device": torch.cuda.get_device_name() if site.cuda and torch.cuda.is_available() else processor(),
        "threads": site.threads,
        "examples": None if plan.writes else load(folder / LAST)["n_train"],
        **read_training(folder),
        "measured": {
            name: read_json(folder / f"{name}.json", dict[str, Any], DELETE)
            for name in (*plan.writes, *measure_commands(run, site))
        },
    }


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
    shutil.rmtree(probe, ignore_errors=True)  # of a start that was killed: --resume would train, and time, nothing
    try:
        call(training(1, 0, probe), folder, site.threads, allowed)
        taken = time.monotonic() - started
        epoch = read_training(probe)["seconds"]
    except TooLong as error:
        raise Failed(f"one epoch takes longer than the {allowed:.0f} s of the run: raise --budget") from error
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    once = taken - epoch  # starting and drawing, which the training does again
    epochs = int((allowed - taken - once) / epoch)
    if epochs < 1:
        raise Failed(
            f"the run has {math.floor(allowed)} s, measuring and training one epoch take "
            f"{math.ceil(2 * taken)} s: raise --budget"
        )
    return epochs


def cut_short(run: Run, site: Site) -> bool:
    """Whether a run was started with fewer epochs, for a --budget, and there is none now."""
    epochs_file = site.folder(run) / EPOCHS
    if site.hours is not None or not epochs_file.exists():
        return False
    return read_epochs(epochs_file)[0] < site.setting(run).epochs
