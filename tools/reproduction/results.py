"""The JSON files of a run, as work.py writes them and tables.py and report.py read them."""

from collections.abc import Iterable
from pathlib import Path
from string import ascii_uppercase
from typing import Annotated, Any

from common.io import read_json, read_json_lines
from training.options import NOT_OF_THE_RUN

from msgspec import Meta, Struct

Numbers = dict[str, float | None]  # None where a figure is undefined

DELETE = "delete it, and the same command makes it again"


class Estimate(Struct):
    """A figure with a mean over examples or episodes."""

    mean: float | None
    stderr: float | None = None
    """of the mean, over these examples or episodes"""


class Share(Struct):
    """Scores, in [0, 1], of a run of weak supervision."""

    fraction: float
    model: float
    classifier: float


class Measured(Struct):
    """What the tables read of a measure's JSON; each script writes some of these, and more."""

    estimates: dict[str, Estimate] = {}
    probe: Numbers = {}
    """how often linear classifiers read the digit and the quadrant, by what is read from what"""
    by_size: dict[Annotated[str, Meta(pattern=r"^\d+$")], Numbers] = {}
    """by the number of given modalities"""
    results: list[Share] = []
    accuracy: dict[str, Numbers] = {}
    """of mfeat's digit, by what is given"""
    r_squared: dict[str, Numbers] = {}
    """of mfeat's tables, by what is given"""
    r_squared_missing: dict[str, Numbers] = {}
    """the same where a third of the cells is missing"""
    rmse: dict[str, Numbers] = {}
    """of mfeat's missing cells, by table"""


class Epochs(Struct):
    """Epochs that the plan has, and those that a budget left."""

    planned: int
    given: int


class Versions(Struct):
    """Versions of the software."""

    torch: str


class Result(Struct):
    """A run: how it was trained, and what was measured. The file result.json."""

    table: str
    experiment: str
    model: str
    seed: int
    demo: bool
    epochs: Epochs
    commands: Annotated[list[str], Meta(min_length=1)]
    """training first, then the others in their order"""
    commit: str | None
    date: str
    """of the last measure"""
    versions: Versions
    device: str
    threads: int | None
    config: dict[str, Any]
    examples: int | None
    """in training; None if several models were trained"""
    seconds: float | None
    measured: dict[str, Measured]
    """by the measure's name"""

    @property
    def judges(self) -> tuple[float, ...]:
        """The accuracies of the judges whose features were measured, which tell them from others; () if none were."""
        measures = [x.estimates for x in self.measured.values() if x.by_size]
        return tuple(x.mean for estimates in measures for name, x in estimates.items() if name.startswith("classifier"))


def letters(results: Iterable[Result]) -> dict[tuple[float, ...], str]:
    """A letter for each set of judges, by `Result.judges`; empty if all runs had the same."""
    sets = sorted({x.judges for x in results if x.judges})
    return dict(zip(sets, ascii_uppercase, strict=False)) if len(sets) > 1 else {}


class Split(Struct):
    """A split's part of a line of metrics.jsonl."""

    bound: float


class Epoch(Struct):
    """What is read of a line of metrics.jsonl."""

    seconds: float
    train: Split | None = None
    valid: Split | None = None


class About(Struct):
    """What is read of config.json."""

    config: dict[str, Any]


def read_result(file: Path) -> Result:
    """The result in a file.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_json(file, Result, "delete it, and the same command measures its run again")


def read_epochs(file: Path) -> tuple[int, int]:
    """The epochs of a run, and how many of them are annealing, from the file epochs.json.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_json(file, tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=0)]], DELETE)


def read_training(folder: Path) -> dict[str, Any]:
    """A result's fields that come from the files of its training, except `examples`.

    Raises:
        InputError: a file is missing or damaged.
    """
    lines = {file.parent: read_json_lines(file, Epoch, DELETE) for file in folder.rglob("metrics.jsonl")}
    epochs = lines.get(folder, [])  # none if the script trains several models in folders below
    config = read_json(folder / "config.json", About, DELETE).config if epochs else {}
    splits = {"train": [epoch.train for epoch in epochs], "valid": [epoch.valid for epoch in epochs]}
    return {
        "config": {name: value for name, value in config.items() if name not in NOT_OF_THE_RUN},
        "seconds": sum(epoch.seconds for run in lines.values() for epoch in run),
        "curves": {name: [round(x.bound, 3) for x in each if x] for name, each in splits.items()},
    }
