"""Speed of a run shared by several processes, started by torchrun, at the same batch size.

    python -m tools.benchmarks.scaling                                            mnist, on one and two cores
    python -m tools.benchmarks.scaling mnist celeba --limit 400 --out-dir DIR     also a chart, processes.png, in DIR
    python -m tools.benchmarks.scaling --layouts 1x1 2x1 4x1 8x1 --cuda           one GPU for each process

Runs the experiments' train.py on built-in data, alternating between the layouts, and takes the examples/s of each run's
last epoch. The chart shows the time of a step by the number of processes with one thread each. The exponent is the
slope of log time over log processes: -1 where twice the processes take half the time.
"""

import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from common.checkpoints import load_model
from common.errors import require, require_positive
from reports import plots
from tools.benchmarks.growth import legend
from tools.benchmarks.race import machine
from training import run_from_command_line

ROOT = Path(__file__).parents[2]
EXPERIMENTS = tuple(sorted(path.parent.name for path in ROOT.glob("*/train.py")))


@dataclass
class Config:
    """The options of the benchmark."""

    experiments: tyro.conf.Positional[
        Annotated[tuple[Literal[EXPERIMENTS], ...], tyro.conf.arg(metavar="EXPERIMENT")]
    ] = ("mnist",)
    """folders of the experiments"""
    layouts: tuple[str, ...] = ("1x1", "1x2", "2x1")
    """processes x threads; the others are compared with the first"""
    limit: int = 1500
    """use only the first N examples of each split"""
    batch_size: int = 100
    """batch size of all processes together"""
    epochs: int = 3
    """passes over the training examples"""
    rounds: int = 3
    """runs of each layout, alternating"""
    cuda: bool = False
    """one GPU for each process"""
    out_dir: Path | None = None
    """folder of the chart"""


def main(config: Config) -> None:
    """Print the table, and save the chart."""
    require_positive(config, "limit", "batch_size", "epochs", "rounds")
    for layout in config.layouts:
        require(re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", layout), f"--layouts are PROCESSESxTHREADS, not {layout!r}")
    require(
        not config.out_dir or any(layout.endswith("x1") for layout in config.layouts),
        "--out-dir is for a chart of processes with one thread each: give --layouts such as 1x1 2x1, or leave it out",
    )
    rates = {experiment: {layout: [] for layout in config.layouts} for experiment in config.experiments}
    parameters = {}
    n_runs = config.rounds * len(set(config.layouts)) * len(rates)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=n_runs, unit=" runs") as bar:
        for experiment in rates:
            for r, layout in itertools.product(range(config.rounds), rates[experiment]):
                save_dir = Path(folder) / f"{experiment}_{layout}_{r}"
                rates[experiment][layout].append(rate(config, experiment, layout, save_dir))
                bar.update()
            parameters[experiment] = sum(x.numel() for x in load_model(save_dir).parameters())
    print(f"{machine()}, batch {config.batch_size}; median of {config.rounds} runs\n")
    print("| | parameters | processes x threads | examples/s | range | ratio |\n|---|---|---|---|---|---|")
    for experiment, by_layout in rates.items():
        first = statistics.median(by_layout[config.layouts[0]])
        for layout, measured in by_layout.items():
            median, ends = statistics.median(measured), f"{min(measured):,.0f} to {max(measured):,.0f}"
            start = f"| {experiment} | {parameters[experiment]:,} | {layout}"
            print(f"{start} | {median:,.0f} | {ends} | {median / first:.2f} |")
    if config.out_dir:
        save_chart(config.out_dir / "processes.png", rates, config.batch_size)


def save_chart(path: Path, rates: Mapping[str, Mapping[str, Sequence[float]]], batch_size: int) -> None:
    """Save the milliseconds of a step by the number of processes, of the layouts with one thread a process."""
    ms = {
        experiment: {
            int(layout.removesuffix("x1")): 1e3 * batch_size / statistics.median(measured)
            for layout, measured in by_layout.items()
            if layout.endswith("x1")
        }
        for experiment, by_layout in rates.items()
    }
    curves = {legend(experiment, times): [(t, 0.0) for t in times.values()] for experiment, times in ms.items()}
    processes = next(iter(ms.values()))
    plots.error_bars(path, [*processes], curves, ("processes", "ms per step"), log=True)


def rate(config: Config, experiment: str, layout: str, save_dir: Path) -> float:
    """Examples/s of a run's last epoch."""
    processes, threads = layout.split("x")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    length = ["--epochs", str(config.epochs), "--annealing-epochs", "1"]
    size = ["--limit", str(config.limit), "--batch-size", str(config.batch_size)]
    # --no-capture, since several processes capture no steps, and one process is to be comparable
    gpu = ["--cuda", "--no-capture"] if config.cuda else []
    options = ["--demo", *size, *length, *gpu, "--save-dir", str(save_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": threads}
    command = [*torchrun, f"{experiment}/train.py", *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    *_, last = (save_dir / "metrics.jsonl").read_text().splitlines()
    return json.loads(last)["examples_per_second"]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
