"""Train, evaluate and compare: the papers' tables beside measured ones.

    python reproduce.py mvae-table2 --experiments mnist fashionmnist --seeds 0 1 2 --data-dir data --cuda
    python reproduce.py vhe-table --budget 3 --data-dir data     fewer epochs, three hours of training
    python reproduce.py all --demo --seeds 0                               all folders on built-in data
    python reproduce.py all --cluster slurm --parameters timeout_min=1440 cpus_per_task=8 slurm_partition=gpu --cuda
    python reproduce.py all --tables-only --results-dir results            from existing results

Each run has its own folder below the save-dir. The same command continues where it was stopped and repeats nothing
that is finished. A run that fails stops no other run; it is named at the end, and the same command tries it again.
Results (one JSON file for each run) and tables go into the results-dir, report.html into the save-dir.
"""

import itertools
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from common.errors import InputError, install, option, require, require_different, require_positive

if find_spec("submitit") is None and __name__ == "__main__":
    print(f"error: reproduce.py needs submitit: {install('submitit')}", file=sys.stderr)
    sys.exit(2)

from common.execution import devices
from common.io import MIB, read_bounded, write_atomically
from common.progress import progress_bar
from tools.reproduction import charts, report, tables
from tools.reproduction.commands import Run, Site
from tools.reproduction.plans import TABLES
from tools.reproduction.records import Plan
from tools.reproduction.results import DELETE
from tools.reproduction.scheduler import Pool, Work
from tools.reproduction.work import RESULT, Chain
from training import run_from_command_line
from training.parallel import threads_each

import torch
import tyro
from joblib import cpu_count


@dataclass
class Config:
    """The options of reproduce.py."""

    table: tyro.conf.Positional[Literal[*TABLES, "all"]]
    """table to reproduce"""
    experiments: tuple[str, ...] = ()
    """only these folders of the table. Default: all"""
    models: tuple[str, ...] = ()
    """only these models of the table. Default: all"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run for each seed"""
    demo: bool = False
    """use the folders' built-in data, with small and short runs of some models, to check that everything works"""
    budget: float | None = None
    """hours for all training runs together, without the evaluations.
    Each run gets the number of epochs that fits its share, and the table says how many"""
    jobs: int | None = None
    """runs at once, each in a process. None: one per core; with --cuda one per GPU"""
    cuda: bool = False
    """use the GPUs"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks in training"""
    data_dir: Path = Path("data")
    """folder of the datasets mnist, fashionmnist, celeba, cub, omniglot, mnist_svhn, each in its original format.
    MultiMNIST, PolyMNIST and the synthetic SVHN are made from mnist, vision's views from celeba"""
    save_dir: Path = Path("reproduced")
    """folder for the runs"""
    results_dir: Path | None = None
    """folder for results and tables. None: results/ in the save-dir"""
    tables_only: bool = False
    """run nothing: make tables and report from the results so far"""
    page: Path | None = None
    """write one table of all experiments into this file, between the markers that results/README.md has"""
    cluster: Literal["local", "slurm"] = "local"
    """where the runs are. local: processes on this machine; slurm: Slurm jobs"""
    parameters: tuple[str, ...] = ()
    """parameters of the cluster's jobs as KEY=VALUE, by submitit's names: timeout_min, slurm_partition, ..."""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        require_different(self, "seeds")
        for seed in self.seeds:
            require(0 <= seed < 2**32, f"--seeds must lie between 0 and 2^32 - 1, not {seed}")
        require_positive(self, "jobs", "budget")
        of_all = self.table == "all" and not self.demo
        require(of_all or not self.page, "--page holds the results of all tables: give it with all, not --demo")
        require(not (self.demo and self.results_dir), "--demo writes results to the save-dir: leave out --results-dir")
        needed = {"timeout_min", "cpus_per_task"} - self.cluster_parameters().keys()
        missing = " ".join(f"{name}=N" for name in sorted(needed))
        require(self.cluster == "local" or not needed, f"--cluster slurm needs --parameters {missing}")

    def cluster_parameters(self) -> dict[str, str | int]:
        """The parameters of the cluster's jobs, by submitit's names.

        Raises:
            InputError: a parameter is not KEY=VALUE.
        """
        for text in self.parameters:
            require(re.fullmatch(r"\w+=\S+", text), f"--parameters are KEY=VALUE, not {text!r}")
        pairs = (text.split("=", 1) for text in self.parameters)
        return {key: int(value) if re.fullmatch("[0-9]+", value) else value for key, value in pairs}

    def plans(self) -> dict[str, list[Plan]]:
        """The plans that the options select, by table.

        Raises:
            InputError: there is no such experiment or model.
        """
        possible = {name: table.plans for name, table in TABLES.items() if self.table in (name, "all")}
        possible = {name: [x for x in plans if x.demo or not self.demo] for name, plans in possible.items()}
        for field, attribute in (("experiments", "experiment"), ("models", "model")):
            known = list(dict.fromkeys(getattr(plan, attribute) for plans in possible.values() for plan in plans))
            given = getattr(self, field)
            for value in given:
                there = f"{self.table}{' --demo' * self.demo} has {shlex.join(known)}"
                require(value in known, f"{option(field)} {shlex.quote(value)}: {there}")
            possible = {
                name: [plan for plan in plans if not given or getattr(plan, attribute) in given]
                for name, plans in possible.items()
            }
        return {name: plans for name, plans in possible.items() if plans}


def make(folder: Path) -> None:
    """Make a folder and those that it lies in; InputError if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): choose another folder") from error


def main(config: Config) -> list[Path]:
    """Run what is missing, and write tables and report; returns their files.

    Raises:
        InputError: some runs failed; tables and report are written nevertheless.
    """
    config.check()
    chosen = config.plans()
    runs_dir = config.save_dir.resolve() / ("demo" if config.demo else ".")
    results_dir = config.results_dir or runs_dir / "results"
    if config.page:
        tables.put_in(config.page, [])  # refuses a file without markers before anything runs
    for folder in () if config.tables_only else (results_dir, runs_dir):
        make(folder)
    failed = {} if config.tables_only else run(config, chosen, runs_dir, results_dir)
    results = tables.load(results_dir)
    measured = {x.table for x in results}
    nothing = f"{results_dir} has no results of {config.table}"
    require(failed or measured & set(chosen), f"{nothing}: give another --results-dir")
    make(runs_dir)  # for the report
    files = []
    for name in chosen:
        if name in measured:
            text = tables.markdown(name, TABLES[name], results)
            files.append(results_dir / f"{name}.md")
            write_atomically(files[-1], text.encode())
            print(f"\n{text}")
            for chart, (svg, _) in charts.by_size([x for x in results if x.table == name]).items():
                files.append(results_dir / f"{name}_{chart}.svg")
                write_atomically(files[-1], svg.encode())
    if config.page:
        write_atomically(config.page, tables.put_in(config.page, results).encode())
    files.append(runs_dir / "report.html")
    report.write(files[-1], results)
    print(*files, sep="\n")
    for name, error in failed.items():
        print(f"{name}: {error}", file=sys.stderr)
    require(
        not failed, f"{len(failed)} of these failed (see above); finished runs are kept: run the same command again"
    )
    return files


def run(config: Config, chosen: dict[str, list[Plan]], runs_dir: Path, results_dir: Path) -> dict[str, str]:
    """Train and measure; returns the errors of what failed, by name."""
    chained = [chain for name, plans in chosen.items() for seed in config.seeds for chain in chains(name, plans, seed)]
    pool = pool_of(config, len(chained))
    site = Site(
        runs_dir,
        config.data_dir.resolve(),
        config.demo,
        pool.cuda,
        config.precision,
        config.budget and config.budget * pool.jobs / sum(map(len, chained)),
        pool.threads,
    )
    return run_chains(pool, [Chain(chain, site) for chain in chained], results_dir)


def pool_of(config: Config, n: int) -> Pool:
    """The processes for n chains: one for each core or GPU by default; on a cluster a job for each chain."""
    local = config.cluster == "local"
    cuda = devices.select(config.cuda).type == "cuda" if local else config.cuda
    slots = (torch.cuda.device_count() if cuda else cpu_count()) if local else n
    jobs = min(config.jobs or slots, n)
    parameters = config.cluster_parameters()
    threads = parameters.get("cpus_per_task", threads_each(jobs))
    return Pool(config.save_dir.resolve() / "jobs", config.cluster, jobs, threads, cuda, parameters)


def chains(table: str, plans: Sequence[Plan], seed: int) -> list[tuple[Run, ...]]:
    """The plans' runs in chains, in which each run comes after the run that it starts from."""
    by_name = {(plan.experiment, plan.model): plan for plan in TABLES[table].plans}
    starts = {(plan.experiment, plan.starts_from) for plan in plans}
    all_chains = []
    for last in plans:
        if (last.experiment, last.model) not in starts:
            chain = [last]
            while chain[0].starts_from:
                chain.insert(0, by_name[chain[0].experiment, chain[0].starts_from])
            all_chains.append(tuple(Run(table, plan, seed) for plan in chain))
    return all_chains


def run_chains(pool: Pool, todo: Sequence[Chain], results_dir: Path) -> dict[str, str]:
    """Prepare the data, run the chains, and copy the results; returns the errors of what failed, by name."""
    failed = {}
    left = [chain for chain in todo if not chain.finished()]
    if left and not left[0].site.demo:
        needed = list(dict.fromkeys(chain.preparation for chain in left))
        failed = {work.name: error for work, error in watched(pool, needed, "datasets") if error}
    possible = [chain for chain in left if chain.preparation.name not in failed]
    finished = ((chain, None) for chain in todo if chain not in left)
    for chain, error in itertools.chain(finished, watched(pool, possible, "runs")):
        for run in chain.runs:
            file = chain.site.folder(run) / RESULT
            if file.exists():
                copy = results_dir / f"{run.name}.json"
                copy.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(copy, read_bounded(file, DELETE, 64 * MIB))
        if error:
            failed[chain.name] = error
    return failed


def watched(pool: Pool, todo: Sequence[Work], unit: str) -> Iterator[tuple[Work, str | None]]:
    """`pool.execute` with a progress bar."""
    with progress_bar(total=len(todo), unit=f" {unit}", smoothing=0) as bar:
        for work, error in pool.execute(todo):
            bar.update()
            bar.write(f"{work.name}: {'failed: ' + error if error else 'done'}", file=sys.stderr)
            yield work, error


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
