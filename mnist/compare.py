"""Compare models of MNIST's halves or pixels by their log-likelihoods of test images, over several seeds.

    python compare.py halves --data-dir data            posterior families and objectives
    python compare.py pixels --data-dir data            network architectures
    python compare.py halves --variants obj=mvae "posterior=vmf obj=dreg" --options "n-latents=8" --data-dir data

A variant is a set of options of `python halves.py train` or `pixels.py train`. Trains a model for each variant and
seed, and writes a table and a plot into the save-dir, where each run has its folder. A run that is there is not
repeated: the same command goes on after Ctrl-C, or adds variants and seeds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from common.checkpoints import load_model
from common.errors import require, require_different, require_positive
from common.execution import devices
from common.io import AGAIN, read_json, write_atomically
from common.progress import progress_bar
from mnist import halves, pixels
from mnist.data import MNIST
from mnist.parts import commands as parts
from reports import plots, tables
from training import options, run_from_command_line, runs
from training.command_line import parse
from training.parallel import default_jobs, in_parallel, logged

import torch
import tyro
from matplotlib.figure import Figure

SCRIPTS = {"halves": halves, "pixels": pixels}
VARIANTS = {
    "halves": (
        "posterior=gaussian",
        "posterior=vmf",
        "posterior=ebm",
        "obj=elbo",
        "obj=ar",
        "obj=iwae K=8",
        "obj=stl K=8",
        "obj=dreg K=8",
        "posterior=vmf obj=dreg K=8",
        "posterior=ebm obj=iwae K=8",
        "fusion=moe",
        "fusion=moe posterior=laplace",
        "fusion=moe posterior=vmf",
        "fusion=moe posterior=laplace obj=dreg K=8",
        "fusion=mopoe",
        "layout=vectorised",
    ),
    "pixels": (
        "fusion=poe",
        "fusion=poe layers=2",
        "fusion=poe decoder=shared",
        "fusion=poe layers=2 posterior=vmf",
        "fusion=set",
        "fusion=set layers=2",
    ),
}

REFUSED = {  # options of train that --variants and --options cannot set: the comparison sets or ignores them
    *("data-dir", "demo", "cuda", "resume", "seed", "save-dir", "experiment", "pre-trained"),
    *("settings", "download"),
}


@dataclass
class Config:
    experiment: tyro.conf.Positional[Literal["halves", "pixels"]]
    """script whose models are compared"""
    variants: tuple[str, ...] = ()
    """options of `train` as NAME=VALUE, several in quotes.
    None: posterior families and objectives for halves, networks for pixels"""
    options: str = "epochs=20"
    """options of all variants"""
    seeds: tuple[int, ...] = (0, 1, 2)
    """one run for each seed"""
    observed: str = "top"
    """part of the image: its log-likelihood, and that of the rest given it, are compared too"""
    n_test: int = 1000
    """use the first N test images"""
    n_samples: int = 1000
    """importance samples for each image"""
    jobs: int | None = None
    """runs at once, each in a process. None: one per core; one with --cuda"""
    data_dir: Path = Path("data")
    """folder of the dataset in its original format"""
    demo: bool = False
    """use the folder's built-in data: no files, no download"""
    save_dir: Path = Path("comparison")
    """folder for the runs, the table and the plot"""
    cuda: bool = False
    """use the GPU"""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        require_different(self, "seeds", *(["variants"] if self.variants else []))
        require_positive(self, "n_test", "n_samples", "jobs")
        parts.Observed(self.observed)
        halved = self.experiment == "pixels" or self.observed in ("top", "bottom")
        require(halved, f"--observed {self.observed}: models of halves need top or bottom")
        for _, run in self.runs():
            run.check()

    def runs(self) -> list[tuple[str, parts.Train]]:
        """Each variant's runs, by its options."""
        todo = []
        for variant in self.variants or VARIANTS[self.experiment]:
            settings = f"{self.options} {variant}".split()
            wrong = [setting for setting in settings if not re.fullmatch(r"[\w-]+=\S+", setting)]
            require(not wrong, f"--variants and --options are NAME=VALUE, not {' '.join(wrong)!r}")
            refused = [setting for setting in settings if setting.split("=")[0].replace("_", "-") in REFUSED]
            require(not refused, f"--variants and --options cannot set {', '.join(refused)}: leave these out")
            args = [arg for setting in settings for arg in _arguments(*setting.split("=", 1))]
            run = parse(SCRIPTS[self.experiment].Train, args=args)
            given = {"data_dir": self.data_dir, "demo": self.demo, "cuda": self.cuda, "resume": True}
            folder = "_".join(settings).replace("/", "-")
            todo += [
                (variant, replace(run, **given, seed=seed, save_dir=self.save_dir / f"{folder}_seed{seed}"))
                for seed in self.seeds
            ]
        return todo


def _arguments(name: str, value: str) -> list[str]:
    """NAME=VALUE as the command line of `train` has it."""
    flags = {"True": f"--{name}", "False": f"--no-{name}"}
    return [flags[value]] if value in flags else [f"--{name}", value]


class Result(NamedTuple):
    """estimates: means over n_test images, nats; rate: training examples per second."""

    variant: str
    seed: int
    n_parameters: int
    rate: float
    n_test: int
    estimates: dict[str, float]


def main(config: Config) -> list[Result]:
    """Train and score all variants; return the results of each variant and seed."""
    config.check()
    todo = config.runs()
    for split in ("train", "test"):
        MNIST.load(split, todo[0][1])
    results = in_parallel(partial(run, config=config), todo, config.jobs or default_jobs(config.cuda))
    results = list(progress_bar(results, total=len(todo), unit=" runs"))
    order = [variant for variant, _ in todo]
    results.sort(key=lambda result: (order.index(result.variant), result.seed))
    report(results, config)
    return results


def run(task: tuple[str, parts.Train], config: Config) -> Result:
    """Train a model, as far as it is not there yet, and estimate its log-likelihoods of the test images."""
    variant, given = task
    folder = given.save_dir
    name = f"{config.observed}_{config.n_test}_{config.n_samples}_{given.epochs}.json".replace("/", "-")
    with logged(folder):
        SCRIPTS[config.experiment].main(given)
        model = load_model(folder, config.experiment).to(devices.select(config.cuda))
        test = parts.load_images("test", replace(given, limit=config.n_test), given.binary)
        if not (folder / name).exists():
            torch.manual_seed(given.seed)
            estimates = parts.evaluate(model, test, parts.Observed(config.observed), n_samples=config.n_samples)
            means = {name: x.double().mean().item() for name, x in estimates.items()}
            write_atomically(folder / name, json.dumps(means, indent=2).encode())
    rates = [epoch["examples_per_second"] for epoch in runs.read_metrics(folder)]
    n_parameters = sum(p.numel() for p in model.parameters())
    measured = read_json(folder / name, dict[str, float], AGAIN)
    complete = rates and any(name.startswith("log p") for name in measured)
    require(complete, f"{folder} lacks metrics or estimates: {AGAIN}")
    return Result(variant, given.seed, n_parameters, max(rates), len(test), measured)


def report(results: list[Result], config: Config) -> None:
    """Report mean and standard deviation over the seeds, in a table and a plot, and write all results."""
    names = [name for name in results[0].estimates if name.startswith("log p")]
    variants = list(dict.fromkeys(result.variant for result in results))
    points, rows = {}, []
    for variant in variants:
        mine = [result for result in results if result.variant == variant]
        estimates = [[result.estimates[name] for result in mine] for name in names]
        points[variant] = tables.spread(estimates[0])
        texts = [tables.over_seeds(values, "{:.2f}".format) for values in estimates]
        rate = max(result.rate for result in mine)
        rows.append((f"`{variant}`", *texts, f"{mine[0].n_parameters:,}", f"{rate:,.0f}"))
    size = tables.count(results[0].n_test, "test image")
    spread = ": mean and standard deviation" * (len(config.seeds) > 1)
    notes = f"{'demo data, ' * config.demo}{tables.count(len(config.seeds), 'seed')}{spread}; {size}, nats"
    table = tables.Table(
        "results",
        [result._asdict() for result in results],
        (f"{config.experiment} `{config.options}`", *names, "parameters", "examples/s"),
        rows,
        notes=f"{notes}; examples/s of the fastest epoch.",
    )
    stem = config.save_dir / f"compare_{config.experiment}"
    settings = {"config": options.as_json(config)}
    tables.report_runs(stem, config.experiment, table, settings)
    intervals(stem.with_suffix(".png"), points, "log p(image), nats", f"{config.experiment}, test images")
    print(f"{stem}.md, .json and .png")


def intervals(path: Path, rows: Mapping[str, tuple[float, float]], axis: str, title: str = "") -> None:
    """Save points with horizontal bars, a row each, from the top down.

    Args:
        rows: {label: (mean, half the length of the bar)}.
        axis: label of the axis.
    """
    figure = Figure(figsize=(7, 0.8 + 0.28 * len(rows)))
    plot = figure.add_subplot(xlabel=axis, title=title)
    means, deviations = zip(*rows.values(), strict=True)
    plot.errorbar(means, range(len(rows)), xerr=deviations, fmt="o", markersize=4, capsize=3)
    plot.set_yticks(range(len(rows)), list(rows), fontsize=8)
    plot.invert_yaxis()
    plot.xaxis.set_major_formatter(plots.plain)
    plot.grid(alpha=0.3)
    plots.save(figure, path)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
