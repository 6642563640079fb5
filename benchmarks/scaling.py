"""Speed of a run shared by several processes, started by torchrun, at the same batch size.

    python -m benchmarks.scaling                                            mnist, on one and two cores
    python -m benchmarks.scaling --experiment celeba --limit 400
    python -m benchmarks.scaling --layouts 1x1 2x1 4x1 8x1 --cuda           one GPU for each process

Runs the experiment's train.py on built-in data, alternating between the layouts, and takes the examples/s of each run's
last epoch.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from benchmarks.race import machine
from common.checkpoints import load_model
from common.errors import require
from common.training import run_from_command_line

ROOT = Path(__file__).parents[1]


@dataclass
class Config:
    """The options of the benchmark."""

    experiment: Literal[
        "mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision", "mnist_svhn", "cub", "vhe"
    ] = "mnist"
    """folder of the experiment"""
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


def main(config: Config) -> None:
    """Print the table."""
    for layout in config.layouts:
        require(re.fullmatch("[1-9][0-9]*x[1-9][0-9]*", layout), f"--layouts are PROCESSESxTHREADS, not {layout!r}")
    rates: dict[str, list[float]] = {layout: [] for layout in config.layouts}
    with tempfile.TemporaryDirectory() as folder, tqdm(total=config.rounds * len(rates), unit=" runs") as bar:
        for r in range(config.rounds):
            for layout in rates:
                save_dir = Path(folder) / f"{layout}_{r}"
                rates[layout].append(rate(config, layout, save_dir))
                bar.update()
        n_parameters = sum(x.numel() for x in load_model(save_dir).parameters())
    print(f"{machine()}\n\n{config.experiment}, batch {config.batch_size}: {n_parameters:,} parameters, ", end="")
    print(f"{4e-6 * n_parameters:.1f} MB of gradients a step; median of {config.rounds} runs\n")
    print("| processes x threads | examples/s | range | ratio |\n|---|---|---|---|")
    first = statistics.median(rates[config.layouts[0]])
    for layout, measured in rates.items():
        median = statistics.median(measured)
        print(f"| {layout} | {median:,.0f} | {min(measured):,.0f} to {max(measured):,.0f} | {median / first:.2f} |")


def rate(config: Config, layout: str, save_dir: Path) -> float:
    """Examples/s of a run's last epoch."""
    processes, threads = layout.split("x")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
    length = ["--epochs", str(config.epochs), "--annealing-epochs", "1"]
    size = ["--limit", str(config.limit), "--batch-size", str(config.batch_size)]
    # --no-capture, since several processes capture no steps, and one process is to be comparable
    gpu = ["--cuda", "--no-capture"] if config.cuda else []
    options = ["--demo", *size, *length, *gpu, "--save-dir", str(save_dir)]
    environment = os.environ | {"OMP_NUM_THREADS": threads}
    command = [*torchrun, f"{config.experiment}/train.py", *options]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    *_, last = (save_dir / "metrics.jsonl").read_text().splitlines()
    return json.loads(last)["examples_per_second"]


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
