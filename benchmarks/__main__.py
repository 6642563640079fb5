"""Speed of all experiments beside the originals' manner, the package multivae, and what the arithmetic allows.

    python -m benchmarks                        all experiments (or `make bench`, which runs the other benchmarks too)
    python -m benchmarks mnist celeba           some
    python -m benchmarks mnist --precision bf16           ours with bfloat16 networks, beside the others' float32

Plain: a pass of all networks for each term of the objective, an unfused Adam (`benchmarks.plain*`); multivae: the
package on our networks (`pip install .[bench]`, `benchmarks.package`). Both get a batch that is at hand; "end to end"
is plain with the originals' loader, which opens each image by itself. Ours always takes its batches out of a split in
memory. Implementations alternate, each in a process of its own: medians, and the least and the most of the ratios.

The limit: the operations of products and convolutions that our step needs, forward and backward (each network once,
and decoders for what is scored), at the rate of the faster one of a large convolution and a large product.
"""

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import tyro
from tqdm import tqdm

from benchmarks.experiments import EXPERIMENTS, loaded_turn, our_turn, package_turn, plain_turn
from benchmarks.race import machine, operations, peak, race, ratio, timed
from common import devices

ROOT = Path(__file__).parents[1]
MIXED = "cub, images"  # experts of two families, which the package lacks
Row = dict[str, str]


@dataclass
class Config:
    experiments: tyro.conf.Positional[tuple[Literal[tuple(EXPERIMENTS)], ...]] = tuple(EXPERIMENTS)
    precision: Literal["fp32", "bf16"] = "fp32"
    """of our networks"""
    rounds: int = 6
    """turns of each implementation, alternating; the first of each warms up and is not counted"""
    images: int = 20
    """examples whose log-likelihoods are estimated"""
    n_samples: int = 1000
    """importance samples of each"""


def main(config: Config) -> None:
    devices.select(cuda=False)
    rate = peak()
    print(
        f"{machine()}; a large convolution or product reaches {rate / 1e9:.0f} GFLOP/s in fp32; ours {config.precision}"
    )
    tables = [[], [], []]
    with tqdm(config.experiments, unit=" experiments") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            rows = *training(name, config, rate), others(name, config)
            for table, row in zip(tables, rows, strict=True):
                table.append({"": name} | row)
    for table in tables:
        print(f"\n| {' | '.join(table[0])} |\n{'|---' * len(table[0])}|")
        print("\n".join(f"| {' | '.join(row.values())} |" for row in table))
    of_torch = started([sys.executable, "-c", "import torch"], ROOT)
    print(f"\nstart-up: `train.py --dry-run`, beside {of_torch:.1f} s for `import torch` alone")


def training(name: str, config: Config, rate: float) -> tuple[Row, Row]:
    """Of the step, and from end to end."""
    experiment = EXPERIMENTS[name]
    makers = {"plain": plain_turn, "loaded": loaded_turn, "ours": partial(our_turn, precision=config.precision)}
    if find_spec("multivae") and name != MIXED:
        makers["package"] = package_turn
    times = race({key: partial(make, name) for key, make in makers.items()}, config.rounds)
    n = experiment.steps * experiment.batch_size
    speed = {key: f"{n / of.median:,.4g}" for key, of in times.items()} | {"-": "-"}
    beside = {key: "{:.2f} ({:.2f} to {:.2f})".format(*ratio(of, times["ours"])) for key, of in times.items()}
    needed = [operations(turn) for turn in (plain_turn(name), our_turn(name, "fp32"))]
    limit = n * rate / needed[1]
    package = "package" if "package" in times else "-"
    step = {
        "plain, examples/s": speed["plain"],
        "multivae": speed[package],
        "ours": speed["ours"],
        "ours / plain (range)": beside["plain"],
        "operations": f"{needed[0] / needed[1]:.2f}",
        "ours / multivae (range)": beside.get(package, "-"),
        "limit": f"{limit:,.4g}",
        "reached": f"{n / times['ours'].median / limit:.0%}",
    }
    end_to_end = {
        "plain, end to end, examples/s": speed["loaded"],
        "ours": speed["ours"],
        "ours / plain (range)": beside["loaded"],
        "plain, GiB": f"{times['loaded'].memory:.1f}",
        "ours, GiB": f"{times['ours'].memory:.1f}",
    }
    return step, end_to_end


def others(name: str, config: Config) -> Row:
    """Log-likelihoods, samples, and the time to start."""
    experiment = EXPERIMENTS[name]
    devices.select(cuda=False)
    model = devices.prepare(experiment.build(), torch.device("cpu"), config.precision, compile=False).eval()
    examples, n = experiment.examples(config.images), 500
    model.generate(n)
    sampling = statistics.median(timed(lambda: model.generate(n)) for _ in range(config.rounds))
    rates = []
    for evaluate in (experiment.plain_evaluate, experiment.evaluate):
        seconds = evaluate and timed(partial(evaluate, model, examples, config.n_samples))
        rates.append(f"{config.images / seconds:,.3g}" if seconds else "-")
    folder = name.split(",")[0]
    options = ["--dry-run", *(["--model", name.split(", ")[1]] if folder == "cub" else [])]
    start_up = started([sys.executable, "train.py", *options], ROOT / folder)
    return {
        f"log-likelihoods, {config.n_samples} samples, plain, examples/s": rates[0],
        "ours": rates[1],
        "generated, examples/s": f"{n / sampling:,.3g}",
        "start-up, s": f"{start_up:.1f}",
    }


def started(command: list[str], folder: Path) -> float:
    """Seconds that a command takes, the median of three."""
    run = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True, env=os.environ)
    return statistics.median(timed(run) for _ in range(3))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
