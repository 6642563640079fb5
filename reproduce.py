"""Train, evaluate and compare: the papers' tables beside measured ones.

    python reproduce.py mvae-table2 --experiments mnist fashionmnist --seeds 0 1 2 --data-dir ../shared/data --cuda
    python reproduce.py vhe-table --budget 3 --data-dir ../shared/data     fewer epochs, three hours of training
    python reproduce.py all --demo --seeds 0                               all folders on built-in data
    python reproduce.py all --cluster slurm --parameters timeout_min=1440 cpus_per_task=8 slurm_partition=gpu --cuda
    python reproduce.py all --tables-only --results-dir results            from results that are there

Each run has a folder of its own below the save-dir. The same command goes on where it was stopped, and repeats
nothing that is finished; what fails stops no other run, is named at the end, and is tried again by the same command.
Results, one JSON file a run, and tables go into the results-dir, report.html into the save-dir.
"""

import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from common.errors import option, require
from common.io import write_atomically
from common.training import devices, run_from_command_line
from reproduction import report, tables
from reproduction.plans import TABLES, Plan
from reproduction.scheduler import Pool, Work
from reproduction.work import RESULT, Chain, Preparation, Run, Where


@dataclass
class Config:
    table: tyro.conf.Positional[Literal[*TABLES, "all"]]
    """table to reproduce"""
    experiments: tuple[str, ...] = ()
    """only these folders of the table. Default: all"""
    models: tuple[str, ...] = ()
    """only these models of the table. Default: all"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run for each seed"""
    demo: bool = False
    """use the folders' built-in data, with small and short runs, to check that everything works"""
    budget: float | None = None
    """hours for all trainings together, without the evaluations. Each run gets the number of epochs that fits its
    share, and the table says how many"""
    jobs: int | None = None
    """runs at once, each in a process. Default: one per core; with --cuda one per GPU"""
    cuda: bool = False
    """use the GPUs"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of the networks in training"""
    data_dir: Path = Path("data")
    """folder of the datasets mnist, fashionmnist, celeba, cub, omniglot, mnist_svhn, each in its original format"""
    save_dir: Path = Path("reproduced")
    """folder for the runs"""
    results_dir: Path | None = None
    """folder for results and tables. Default: results/ in the save-dir"""
    tables_only: bool = False
    """run nothing: make tables and report from the results so far"""
    readme: Path | None = None
    """write one table of all experiments into this file, between the markers that README.md has"""
    cluster: Literal["local", "slurm"] = "local"
    """where the runs are. local: processes on this machine; slurm: Slurm jobs"""
    parameters: tuple[str, ...] = ()
    """parameters of the cluster's jobs as KEY=VALUE, with submitit's names: timeout_min, cpus_per_task,
    slurm_partition, ..."""

    def check(self) -> None:
        require(0 < len(set(self.seeds)) == len(self.seeds), f"--seeds must name each once, not {self.seeds}")
        for name in ("jobs", "budget"):
            value = getattr(self, name)
            require(value is None or value > 0, f"{option(name)} must be positive, not {value}")
        require(not (self.demo and self.results_dir), "--demo keeps its results in the save-dir: no --results-dir")
        needed = {"timeout_min", "cpus_per_task"} - set(self.cluster_parameters()) if self.cluster == "slurm" else ()
        require(not needed, f"--cluster slurm needs --parameters {' '.join(f'{name}=N' for name in sorted(needed))}")

    def cluster_parameters(self) -> dict[str, str | int]:
        """By submitit's names.

        Raises:
            InputError: one is no KEY=VALUE.
        """
        for text in self.parameters:
            require(re.fullmatch(r"\w+=\S+", text), f"--parameters are KEY=VALUE, not {text!r}")
        pairs = (text.split("=", 1) for text in self.parameters)
        return {key: int(value) if value.isdigit() else value for key, value in pairs}

    def plans(self) -> dict[str, list[Plan]]:
        """By table, those that are asked for.

        Raises:
            InputError: there is no such experiment, or model.
        """
        asked = TABLES if self.table == "all" else {self.table: TABLES[self.table]}
        for name, of in (("experiments", "experiment"), ("models", "model")):
            known = list(dict.fromkeys(getattr(plan, of) for table in asked.values() for plan in table.plans))
            for value in getattr(self, name):
                require(value in known, f"{option(name)} {value}: {self.table} has {', '.join(known)}")
        chosen = {
            name: [
                plan
                for plan in table.plans
                if (not self.experiments or plan.experiment in self.experiments)
                and (not self.models or plan.model in self.models)
                and (plan.demo or not self.demo)
            ]
            for name, table in asked.items()
        }
        require(any(chosen.values()), f"{self.table} has no such model of these --experiments")
        return {name: plans for name, plans in chosen.items() if plans}


def main(config: Config) -> list[Path]:
    """
    Returns:
        the files of the tables, and the report.

    Raises:
        InputError: some runs failed; what was measured is written nevertheless.
    """
    config.check()
    chosen = config.plans()
    runs_dir = config.save_dir.resolve() / ("demo" if config.demo else ".")
    results_dir = config.results_dir or runs_dir / "results"
    failed = {} if config.tables_only else run(config, chosen, runs_dir, results_dir)
    results = tables.load(results_dir)
    measured = {x["table"] for x in results}
    require(failed or measured & set(chosen), f"{results_dir} has no results of {config.table}")
    files = []
    for name in chosen:
        if name in measured:
            text = tables.markdown(name, TABLES[name], results)
            files.append(results_dir / f"{name}.md")
            write_atomically(files[-1], text.encode())
            print(f"\n{text}")
    if config.readme:
        write_atomically(config.readme, tables.put_in(config.readme, results).encode())
    files.append(runs_dir / "report.html")
    runs_dir.mkdir(parents=True, exist_ok=True)
    report.write(files[-1], results, runs_dir)
    print(*files, sep="\n")
    for name, error in failed.items():
        print(f"{name}: {error}", file=sys.stderr)
    require(not failed, f"{len(failed)} of these failed, as said above; the same command tries them again")
    return files


def run(config: Config, chosen: dict[str, list[Plan]], runs_dir: Path, results_dir: Path) -> dict[str, str]:
    """Train and measure.

    Returns:
        what failed, and why.
    """
    chained = [chain for name, plans in chosen.items() for seed in config.seeds for chain in chains(name, plans, seed)]
    pool = pool_of(config, len(chained))
    where = Where(
        runs_dir,
        config.data_dir.resolve(),
        config.demo,
        pool.cuda,
        config.precision,
        config.budget and config.budget * pool.jobs / sum(map(len, chained)),
        pool.threads,
    )
    return perform(pool, [Chain(chain, where) for chain in chained], results_dir)


def pool_of(config: Config, n: int) -> Pool:
    """As many jobs at a time, n at most, as there are cores, or GPUs; all of them on a cluster."""
    local = config.cluster == "local"
    cuda = devices.select(config.cuda).type == "cuda" if local else config.cuda
    slots = (torch.cuda.device_count() if cuda else os.cpu_count()) if local else n
    jobs = min(config.jobs or slots, n)
    parameters = config.cluster_parameters()
    threads = parameters.get("cpus_per_task", max(1, os.cpu_count() // jobs))
    return Pool(config.save_dir.resolve() / "jobs", config.cluster, jobs, threads, cuda, parameters)


def chains(table: str, plans: Sequence[Plan], seed: int) -> list[tuple[Run, ...]]:
    """Runs of plans, each after that which it starts from."""
    known = {(plan.experiment, plan.model): plan for plan in TABLES[table].plans}
    begun = {(plan.experiment, plan.starts_from) for plan in plans}
    found = []
    for end in plans:
        if (end.experiment, end.model) not in begun:
            chain = [end]
            while chain[0].starts_from:
                chain.insert(0, known[chain[0].experiment, chain[0].starts_from])
            found.append(tuple(Run(table, plan, seed) for plan in chain))
    return found


def perform(pool: Pool, todo: Sequence[Chain], results_dir: Path) -> dict[str, str]:
    """Prepare the data, run, and keep the results.

    Returns:
        what failed, and why.
    """
    failed = {}
    left = [chain for chain in todo if not chain.finished()]
    if left and not left[0].where.demo:
        needed = list(dict.fromkeys(chain.preparation for chain in left))
        failed = {work.name: error for work, error in watched(pool, needed, "datasets") if error}
    possible = [chain for chain in left if chain.preparation.name not in failed]
    finished = ((chain, None) for chain in todo if chain not in left)
    for chain, error in itertools.chain(finished, watched(pool, possible, "runs")):
        for run in chain.runs:
            file = chain.where.folder(run) / RESULT
            if file.exists():
                kept = results_dir / f"{run.name}.json"
                kept.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(kept, file.read_bytes())
        if error:
            failed[chain.name] = error
    return failed


def watched(pool: Pool, todo: Sequence[Work], unit: str) -> Iterator[tuple[Work, str | None]]:
    """`pool.execute` with a progress bar."""
    with tqdm(total=len(todo), unit=f" {unit}", disable=None) as bar:
        show = partial(progress, bar)
        for work, error in pool.execute(todo, show):
            bar.update()
            bar.write(f"{work.name}: {'failed: ' + error if error else 'done'}")
            yield work, error


def progress(bar: tqdm, under_way: Sequence[Chain | Preparation]) -> None:
    bar.set_postfix_str(", ".join(work.progress() for work in under_way))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
