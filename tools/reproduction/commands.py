"""The commands that train and measure a run, and how they are called."""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common.io import check_writable
from tools.reproduction.records import Plan, Setting

from filelock import lock_descriptor

ROOT = Path(__file__).parents[2]
LOG = "log.txt"


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


def slug(model: str) -> str:
    """A model's name as the name of a folder."""
    return re.sub(r"[^\w-]+", "_", model)


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


def following_commands(run: Run, site: Site) -> list[list[str]]:
    """The commands between a run's training and its measures."""
    options, folder = data_options(run, site), str(site.folder(run))
    return [
        [sys.executable, "-m", *(x.format(run=folder) for x in shlex.split(command)), *options]
        for command in run.plan.then
    ]


def measure_commands(run: Run, site: Site) -> dict[str, list[str]]:
    """The commands that measure a run's model, by the measure's name."""
    commands, folder = {}, site.folder(run)
    for measure in run.plan.measures:
        chosen = measure.demo if site.demo else measure.options
        if chosen is not None:
            output = ["--json", str(folder / f"{measure.name}.json")]
            options = [str(folder), *chosen.split(), *data_options(run, site), *output]
            commands[measure.name] = module_command(run.plan, measure.script, options)
    return commands


def data_options(run: Run, site: Site) -> list[str]:
    """The options of data and device that all scripts take."""
    files = [] if run.plan.generated else ["--data-dir", str(site.data(run.plan.data))]
    return files + ["--demo"] * site.demo + ["--cuda"] * site.cuda


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
