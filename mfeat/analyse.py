"""What a model of UCI Multiple Features predicts from some of the tables: the digit, other tables, missing cells.

    python analyse.py trained_models --data-dir data     tables
    python analyse.py trained_models --json out.json     and a file

A prediction is the mean, over --n-samples draws of q(z|given), of what they decode to: of the classes' probabilities,
the largest of which counts, and of the tables' values. It is given test examples, as they are, and without a third of
the cells of their tables. R^2 is the share of a table's variance that its prediction explains, all columns together; a
table's R^2 given itself is that of its reconstruction. RMSE is the root of the mean squared error of the missing cells,
predicted from all others, in the units of standardised columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from common.data import Examples
from common.errors import require
from common.model_data import check_values
from common.models import MultimodalVAE
from common.subsets import named_subsets
from mfeat.data import TABLES, load_as_trained, with_missing
from reports import options, tables
from reports.tables import Table, decimals, percent
from training import run_from_command_line

import torch
from torch import Tensor

MISSING = 1 / 3  # of the cells
BATCH_SIZE = 500
VIEWS = tuple(TABLES)
Scores = dict[str, dict[str, float]]  # of rows and columns


@dataclass
class Config(options.ScoresConfig):
    n_samples: int = 50
    """draws of z for a prediction"""


def main(config: Config) -> dict[str, Scores]:
    """Report the figures; returns {key of a table: {row: {column: figure}}}."""
    config.check()
    model, test, n = config.trained_model("mfeat"), load_as_trained("test", config), config.n_samples
    check_values(test, model)
    torch.manual_seed(config.seed)
    lacking = with_missing(test, MISSING, config.seed)
    check_scorable(test, lacking)
    of_digit = {"complete": accuracies(model, test, n), "a third missing": accuracies(model, lacking, n)}
    by_given = {given: {kind: x[given] for kind, x in of_digit.items()} for given in of_digit["complete"]}
    head, about = tables.data_scored(config, "mfeat", None, len(test))
    shown = [
        table("accuracy", by_given, f"{head}: digit, %", percent),
        table("r_squared", r_squared(model, test, test, n), "R^2"),
        table("r_squared_missing", r_squared(model, lacking, test, n), "R^2, a third missing"),
        table("rmse", errors_of_missing(model, lacking, test, n), "RMSE of missing cells"),
    ]
    tables.report(config, "mfeat", shown, {"n_examples": len(test), "n_samples": n, "seed": config.seed}, about)
    return {x.key: x.figures for x in shown}


def check_scorable(truth: Examples, lacking: Examples) -> None:
    """Raise InputError if all rows of a table are alike, whose R^2 has no value, or if no cell of it is missing."""
    for name in VIEWS:
        x, less = truth.modalities[name], lacking.modalities[name]
        varies = bool((x - x.nanmean(dim=0)).square().nansum() > 0)
        require(varies, f"R^2 of {name} needs test examples that differ in it: raise --limit")
        require(bool((less.isnan() & ~x.isnan()).any()), f"no cell of {name} was left out: raise --limit")


@torch.no_grad()
def predicted(
    model: MultimodalVAE, examples: Examples, given: Sequence[str], targets: Sequence[str], n: int
) -> dict[str, Tensor]:
    """E[x_m|x_given] of tables (N, columns), and the most probable digit (N,), by n draws of z; on the CPU."""
    parts = []
    for batch in examples.to(model.device).batches(BATCH_SIZE):
        p = model.decode(model.posterior(batch, given).sample((n,)), targets)
        parts.append({name: (q.probs if name == "digit" else q.mean).mean(dim=0).cpu() for name, q in p.items()})
    means = {name: torch.cat([part[name] for part in parts]) for name in targets}
    return {name: x.argmax(dim=1) if name == "digit" else x for name, x in means.items()}


def accuracies(model: MultimodalVAE, examples: Examples, n: int) -> dict[str, float]:
    """How often the digit is right, {what is given: share in [0, 1]}: each subset of the tables, and means by size.

    Subsets are named "fou", "fou,fac", ..., and sizes "1 given", "2 given", ...
    """
    digit, by_size, by_subset = examples.modalities["digit"], {}, {}
    for given in named_subsets(VIEWS):
        right = predicted(model, examples, given, ("digit",), n)["digit"] == digit
        by_subset[",".join(given)] = right.double().mean().item()
        by_size.setdefault(f"{len(given)} given", []).append(by_subset[",".join(given)])
    return by_subset | {size: fmean(x) for size, x in by_size.items()}


def r_squared(model: MultimodalVAE, examples: Examples, truth: Examples, n: int) -> Scores:
    """R^2 of tables given each one, and given all others, {given: {target: R^2}}; "mean" is that of other tables.

    The examples may lack cells, truth has all.
    """

    def scores(given: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
        found = predicted(model, examples, given, targets, n)
        return {name: explained(truth.modalities[name], x) for name, x in found.items()}

    rows = {source: scores((source,), VIEWS) for source in VIEWS}
    rows["all others"] = {x: scores([name for name in VIEWS if name != x], (x,))[x] for x in VIEWS}
    return {given: row | {"mean": fmean(x for name, x in row.items() if name != given)} for given, row in rows.items()}


def explained(x: Tensor, prediction: Tensor) -> float:
    """R^2 = 1 - |x - prediction|^2 / |x - mean of the columns|^2, over all cells of x (N, columns) that are there."""
    return 1 - ((x - prediction).square().nansum() / (x - x.nanmean(dim=0)).square().nansum()).item()


def errors_of_missing(model: MultimodalVAE, examples: Examples, truth: Examples, n: int) -> Scores:
    """RMSE of the cells that examples lack, {table: {"model", "column mean"}}, given those that they have.

    Truth has all cells. "mean" is the mean over tables.
    """
    errors = {}
    for name, x in predicted(model, examples, VIEWS, VIEWS, n).items():
        missing = examples.modalities[name].isnan()
        values, guess = truth.modalities[name][missing], x[missing]
        squares = {"model": (values - guess).square(), "column mean": values.square()}  # means are 0 in training
        errors[name] = {by: square.nanmean().sqrt().item() for by, square in squares.items()}
    return errors | {"mean": {by: fmean(row[by] for row in errors.values()) for by in ("model", "column mean")}}


def table(key: str, scores: Scores, title: str, shown: Callable[[float], str] = lambda x: decimals(x, 2)) -> Table:
    """The table of scores; subsets of several tables are in the JSON alone."""
    rows = [(row, *map(shown, columns.values())) for row, columns in scores.items() if "," not in row]
    return Table(key, scores, (title, *next(iter(scores.values()))), rows)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
