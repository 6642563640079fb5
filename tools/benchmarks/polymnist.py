"""Speed of the models on PolyMNIST's networks beside the package multivae, in alternating turns.

    python -m tools.benchmarks.polymnist              (or `make bench`; needs pip install --editable ".[bench]")
    python -m tools.benchmarks.polymnist --precision bf16             ours in bf16, multivae in fp32

Training steps of five modalities with the convolutional networks of MoPoE's code, the same objective on both sides:
MoPoE as it was published (one subset for each example, which the package draws by blocks), MVTCAE, CRMVAE, MMVAE+ with
1 and 10 samples of each expert, in the package's own DReG and as ours, and CMVAE. Models that the package lacks, or has
with other objectives, are timed alone. Images are random.
"""

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch

from common.data import Examples
from common.errors import require, require_positive
from common.objectives import Objective
from polymnist import train
from polymnist.model import build
from tools.benchmarks.plain_faces import as_written
from tools.benchmarks.race import Turn, machine, operations, peak, race, ratio
from training import devices, objective_of, run_from_command_line
from training.meter import Meter
from training.steps import Step

BETA = 2.5


class Race(NamedTuple):
    """A model on both sides.

    options: of `polymnist.train.Config`.
    kind: the package's class; empty if it has no such model.
    theirs: options of its config.
    warm_up: steps of ours before the first turn (`benchmarks.experiments.Experiment`).
    """

    options: dict[str, object]
    kind: str = ""
    theirs: dict[str, object] = {}  # noqa: RUF012 (never changed)
    warm_up: int = 0


DREG = {"loss": "dreg_looser", "modalities_specific_dim": 32}
RACES = {
    "mopoe-published": Race({"model": "mopoe-published"}, "MoPoE"),
    "mvtcae": Race({"model": "mvtcae"}, "MVTCAE", {"alpha": 5 / 6}),
    "mmvae+, K = 1": Race({"model": "mmvae+", "obj": "dreg", "K": 1}, "MMVAEPlus", DREG | {"K": 1}),
    "mmvae+, K = 10": Race({"model": "mmvae+", "obj": "dreg", "K": 10}, "MMVAEPlus", DREG | {"K": 10}, warm_up=20),
    "crmvae": Race({"model": "crmvae"}, "CRMVAE"),
    "cmvae": Race({"model": "cmvae"}, "CMVAE", DREG | {"loss": "iwae_looser", "K": 1, "number_of_clusters": 40}),
    **{name: Race({"model": name}) for name in ("mvae", "mmvae", "mopoe", "mmjsd", "jnf", "dmvae")},
}


@dataclass
class Config:
    """The options of the benchmark."""

    models: tuple[str, ...] = tuple(RACES)
    """models to measure"""
    batch_size: int = 64
    """examples in a batch"""
    precision: Literal["fp32", "bf16"] = "fp32"
    """precision of our networks"""
    rounds: int = 6
    """turns of each implementation, alternating; the first turn is a warm-up that does not count"""


def main(config: Config) -> None:
    """Print the table."""
    require_positive(config, "batch_size")
    for name in config.models:
        require(name in RACES, f"--models {name!r}: there are {', '.join(map(repr, RACES))}")
    needed = any(RACES[name].kind for name in config.models)
    installed = find_spec("multivae") is not None
    require(installed or not needed, 'the package multivae is not installed: pip install -e ".[bench]"')
    rate = peak(torch.device("cpu"), config.precision)
    print(f"{machine()}; limit {rate / 1e9:,.0f} GFLOP/s ({config.precision})\n")
    print("| PolyMNIST, training step | multivae, examples/s | ours, examples/s | ratio | range | share of the limit |")
    print("|---|---|---|---|---|---|")
    for name in config.models:
        our_turns = partial(our_turn, name, config.batch_size, config.precision)
        sides = {"ours": our_turns}
        if RACES[name].kind:
            sides["package"] = partial(package_turn, name, config.batch_size)
        times = race(sides, config.rounds)
        speed = {side: f"{config.batch_size / t.median:,.0f}" for side, t in times.items()}
        ratios = ["-", "-"]
        if "package" in times:
            middle, low, high = ratio(times["package"], times["ours"])
            ratios = [f"{middle:.2f}", f"{low:.2f} to {high:.2f}"]
        reached = operations(our_turns()) / rate / times["ours"].median
        cells = [name, speed.get("package", "-"), speed["ours"], *ratios, f"{reached:.0%}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def objective(name: str, precision: str = "fp32") -> Objective:
    """Our objective of a race."""
    config = train.Config(**RACES[name].options)
    return objective_of(config, devices.prepare(build(config), torch.device("cpu"), precision, False))


def examples(n: int, names: tuple[str, ...]) -> Examples:
    """Random images (n, 3, 28, 28), uint8, of each modality."""
    return Examples({name: torch.randint(256, (n, 3, 28, 28), dtype=torch.uint8) for name in names})


def our_turn(name: str, batch_size: int, precision: str = "fp32") -> Turn:
    """A step of ours."""
    devices.select(False)
    ours = objective(name, precision)
    step, meter = Step(ours, torch.optim.Adam(ours.parameters(), lr=5e-4, fused=True)), Meter()
    data, rows = examples(batch_size, ours.model.modalities), torch.arange(batch_size)

    def turn() -> None:
        bound, norm = step(data, rows, batch_size, BETA)
        meter.add(bound, batch_size, norm)

    for _ in range(RACES[name].warm_up):
        turn()
    return turn


def package_turn(name: str, batch_size: int) -> Turn:
    """A step of the package's trainer."""
    from tools.benchmarks import newer_package  # needs the extra [bench]

    ours, race_ = objective(name), RACES[name]
    ours.model = as_written(ours.model)
    theirs = newer_package.counterpart(ours, race_.kind, BETA, **race_.theirs)
    optimizer = torch.optim.Adam(theirs.parameters(), lr=5e-4)
    data = newer_package.inputs(examples(batch_size, ours.model.modalities)[:])

    def turn() -> None:
        output = theirs(data)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        output.loss_sum.item()

    return turn


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
