"""Papers' figures beside ours, from the results of runs."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import InputError
from common.parallel import spread
from common.reports import in_table
from reproduction.plans import TABLES, Figure, Plan, Published, Table

DAGGER = "† As recalled; not re-checked against the paper."


class Row(NamedTuple):
    """A figure of a model."""

    experiment: str
    model: str
    figure: Figure
    published: Published | None
    values: tuple[float, ...]
    """of the seeds"""
    results: tuple[dict[str, Any], ...]


def load(folder: Path) -> list[dict[str, Any]]:
    """The results in the tables' folders below one.

    Raises:
        InputError: a file that is not one.
    """
    results = []
    for file in sorted(file for table in TABLES for file in (folder / table).rglob("*.json")):
        try:
            results.append(json.loads(file.read_text()))
        except ValueError as error:
            raise InputError(f"{file} is damaged: remove it, and its run is measured again") from error
    return results


def rows(name: str, table: Table, results: Iterable[dict[str, Any]]) -> list[Row]:
    """The figures of a table that are published or measured, in its order."""
    found = []
    for plan in table.plans:
        own = [x for x in results if (x["table"], x["experiment"], x["model"]) == (name, plan.experiment, plan.model)]
        for figure in table.figures:
            values = {i: value for i, x in enumerate(own) if (value := look_up(x, figure, plan)) is not None}
            # made-up data have no figure in a paper
            published = None if any(x["demo"] for x in own) else plan.published.get(figure.name)
            if values or (own and published):
                of = tuple(own[i] for i in values)
                found.append(Row(plan.experiment, plan.model, figure, published, tuple(values.values()), of))
    return found


def look_up(result: dict[str, Any], figure: Figure, plan: Plan) -> float | None:
    """A figure of a run's results."""
    found: Any = result["measured"]
    for key in figure.at:
        if isinstance(found, list):
            name, value = key
            found = next((x for x in found if x[name] == value), None)
        else:
            found = found.get(key.format(y=plan.y))
        if found is None:
            return None
    return found


def cells(row: Row) -> list[str]:
    """Experiment, model, figure, the paper's, ours with its spread over seeds, seeds, epochs."""
    published = "" if row.published is None else shown(row.figure, row.published.value) + " †" * row.published.recalled
    ours = ""
    if row.values:
        mean, deviation = spread(row.values)
        ours = shown(row.figure, 100 * mean if row.figure.percent else mean)
        if len(row.values) > 1:
            ours += " ± " + shown(row.figure, 100 * deviation if row.figure.percent else deviation)
    seeds = ", ".join(str(x["seed"]) for x in row.results)
    return [row.experiment, row.model, row.figure.name, published, ours, seeds, epochs(row.results)]


def shown(figure: Figure, value: float) -> str:
    return f"{value:.1f}" if figure.percent else f"{value:.3f}"


def epochs(results: Sequence[dict[str, Any]]) -> str:
    """As given and, where these are fewer, as planned."""
    given = sorted({x["epochs"]["given"] for x in results})
    planned = max((x["epochs"]["planned"] for x in results), default=0)
    said = " to ".join(str(x) for x in dict.fromkeys((given[0], given[-1]))) if given else ""
    return said if not given or given[0] >= planned else f"{said} of {planned}"


HEADER = ("experiment", "model", "figure", "paper", "ours", "seeds", "epochs")


def markdown(name: str, table: Table, results: Iterable[dict[str, Any]]) -> str:
    """A table with its title and footnotes."""
    of_table = rows(name, table, results)
    lines = [f"**{table.title}** ({table.source}; ours: mean ± standard deviation over seeds)", ""]
    lines += [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(in_table(cell) for cell in cells(row))} |" for row in of_table]
    if any(row.published and row.published.recalled for row in of_table):
        lines += ["", DAGGER]
    return "\n".join(lines) + "\n"
