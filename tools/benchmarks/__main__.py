"""Speed of all experiments beside plain code like the originals', the package multivae, and the hardware's limit.

    python -m tools.benchmarks                        all experiments; `make bench` also runs tools.benchmarks.vhe
    python -m tools.benchmarks mnist celeba           only these
    python -m tools.benchmarks mnist --precision bf16 --cuda    on a GPU, ours with bfloat16 networks

Plain: the losses of reference/, with one pass of all networks for each term, and an unfused Adam (`benchmarks.plain*`).
multivae: the package on our networks (`pip install -e ".[bench]"`, `benchmarks.package`). Both repeat one batch in
memory; "end to end" is plain with the originals' loader, which opens each image separately. Ours always takes its
batches out of a split in memory. Implementations alternate, each in its own process; figures are medians, and the range
of the ratios. Numbers below 1e-38 count as zero in all of them.

The limit: the operations of the matrix products and convolutions that our step runs, at the rate of a large product or
convolution in our precision, whichever is faster. A step with importance weights decodes all samples without gradients,
on a CPU, and those that count again with them. "Share of the limit": what ours reaches of it, in training and in
log-likelihoods.
"""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

from common.errors import require_positive
from common.execution import devices
from tools.benchmarks.experiments import EXPERIMENTS, loaded_turn, n_steps, our_turn, package_turn, plain_turn
from tools.benchmarks.race import machine, operations, peak, race, ratio, timed
from training import run_from_command_line

import torch
import tyro
from tqdm import tqdm

ROOT = Path(__file__).parents[2]
MIXED = "cub, images"  # experts of two families, which the package lacks
FIRST_STEP = """
import runpy, sys
from training.steps import Step
step = Step.__call__
def only_step(*args, **options):
    step(*args, **options)
    sys.exit()
Step.__call__ = only_step
sys.argv[0] = "train.py"
runpy.run_path("train.py", run_name="__main__")
sys.exit("train.py took no step")
"""  # the code of a process that ends after the first step of the train.py in its folder
Row = dict[str, str]


@dataclass
class Config:
    """The options of the benchmark."""

    experiments: tyro.conf.Positional[
        Annotated[tuple[Literal[tuple(EXPERIMENTS)], ...], tyro.conf.arg(metavar="EXPERIMENT")]
    ] = tuple(EXPERIMENTS)
    """folders to measure"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of our networks"""
    rounds: int = 6
    """turns of each implementation, alternating; the first turn is a warm-up that does not count"""
    images: int = 10
    """examples whose log-likelihoods are estimated"""
    n_samples: int = 1000
    """importance samples for each example"""
    cuda: bool = False
    """run everything on a GPU: ours with captured steps, the others one step at a time"""


def main(config: Config) -> None:
    """Print the tables."""
    require_positive(config, "images", "n_samples")
    device = devices.select(config.cuda)
    rate = peak(device, config.precision)
    print(f"{machine(device.type == 'cuda')}; ours and limit in {config.precision}: {rate / 1e9:,.0f} GFLOP/s\n")
    if not find_spec("multivae"):
        print('the package multivae is not installed (pip install --editable ".[bench]"): its columns stay empty\n')
    table(partial(training, rate=rate), config, device)
    print()
    table(partial(others, rate=rate), config, device)
    torch_start_up = start_up([sys.executable, "-c", "import torch"], ROOT)
    print(
        f"\nfirst step: `train.py --demo` until its first step is done, {torch_start_up:.1f} s of it for `import torch`"
    )


def table(row_of: Callable[[str, Config, torch.device], Row], config: Config, device: torch.device) -> None:
    """Print each experiment's row as soon as it is measured, since the whole table takes long."""
    with tqdm(config.experiments, unit=" experiments") as bar:
        for i, name in enumerate(bar):
            bar.set_postfix_str(name)
            row = {"": name} | row_of(name, config, device)
            with bar.external_write_mode():
                if i == 0:
                    print(f"| {' | '.join(row)} |\n{'|---' * len(row)}|")
                print(f"| {' | '.join(row.values())} |", flush=True)


def training(name: str, config: Config, device: torch.device, rate: float) -> Row:
    """The row of training: the step by itself, and end to end."""
    experiment = EXPERIMENTS[name]
    ours = partial(our_turn, precision=config.precision)
    makers = {"plain": plain_turn, "loaded": loaded_turn, "ours": ours}
    if find_spec("multivae") and name != MIXED:
        makers["package"] = package_turn
    times = race({key: partial(make, name, device) for key, make in makers.items()}, config.rounds)
    n = n_steps(name, device) * experiment.batch_size
    speed = {key: rounded(n / t.median) for key, t in times.items()} | {"-": "-"}
    ratios = {key: "{:.2f} ({:.2f} to {:.2f})".format(*ratio(t, times["ours"])) for key, t in times.items()}
    needed = [operations(turn) for turn in (plain_turn(name), our_turn(name))]
    limit = experiment.steps * experiment.batch_size * rate / needed[1]
    package = "package" if "package" in times else "-"
    return {
        "plain, examples/s": speed["plain"],
        "end to end": speed["loaded"],
        "multivae": speed[package],
        "ours": speed["ours"],
        "ours / plain (range)": ratios["plain"],
        "operations, plain / ours": f"{needed[0] / needed[1]:.2f}",
        "ours / plain, end to end (range)": ratios["loaded"],
        "ours / multivae (range)": ratios.get(package, "-"),
        "limit": rounded(limit),
        "share of the limit": f"{n / times['ours'].median / limit:.0%}",
        "plain, GiB": f"{times['loaded'].memory:.1f}",
        "ours, GiB": f"{times['ours'].memory:.1f}",
    }


def others(name: str, config: Config, device: torch.device, rate: float) -> Row:
    """The row of log-likelihoods, samples, and the time to start."""
    experiment = EXPERIMENTS[name]
    model = devices.prepare(experiment.build(), device, config.precision).eval()
    examples, n = experiment.examples(config.images).to(device), 500
    model.generate(n)
    sampling = statistics.median(timed(lambda: model.generate(n)) for _ in range(config.rounds))
    ours = partial(experiment.evaluate, model, examples, n_samples=config.n_samples)
    needed, seconds = operations(ours), timed(ours)
    plain = "-"
    if experiment.plain_evaluate:
        in_fp32 = experiment.build().to(device).eval()
        plain = rounded(config.images / timed(partial(experiment.plain_evaluate, in_fp32, examples, config.n_samples)))
    folder = name.split(",")[0]
    options = [*["--cuda"] * config.cuda, *(["--model", name.split(", ")[1]] if folder == "cub" else [])]
    return {
        f"log-likelihoods, {config.n_samples} samples, plain, examples/s": plain,
        "ours": rounded(config.images / seconds),
        "share of the limit": f"{needed / seconds / rate:.0%}",
        "generated, examples/s": rounded(n / sampling),
        "--help, s": f"{start_up([sys.executable, 'train.py', '--help'], ROOT / folder):.1f}",
        "first step, s": f"{first_step(folder, options):.1f}",
    }


def rounded(x: float) -> str:
    """A number with three significant digits."""
    return f"{float(f'{x:.3g}'):,.9g}"


def first_step(folder: str, options: list[str]) -> float:
    """Seconds until train.py has done its first step, on the demo's first 200 examples."""
    with tempfile.TemporaryDirectory() as save_dir:
        demo = ["--demo", "--limit", "200", "--save-dir", save_dir]
        return start_up([sys.executable, "-c", FIRST_STEP, *demo, *options], ROOT / folder)


def start_up(command: list[str], folder: Path) -> float:
    """Seconds that a command takes: the median of three runs."""
    run = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True, env=os.environ)
    return statistics.median(timed(run) for _ in range(3))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
