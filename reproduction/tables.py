"""Papers' figures beside ours, from the results of runs."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import InputError, require
from common.reporting.tables import in_table
from common.training.parallel import spread
from reproduction.plans import TABLES, Figure, Plan, Published, Table

DAGGER = "† As recalled; not re-checked against the paper."
MOST = 8  # figures side by side; more are a line each
BEGIN, END = "<!-- experiments: made by make tables -->", "<!-- end of experiments -->"


class Row(NamedTuple):
    """A figure of a model."""

    plan: Plan
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
    """The figures of a table that are published or measured, in its order.

    Raises:
        InputError: the runs of a model differ in more than their seeds and epochs.
    """
    found = []
    for plan in table.plans:
        own = [x for x in results if (x["table"], x["experiment"], x["model"]) == (name, plan.experiment, plan.model)]
        trained = {re.sub(r" --(epochs|annealing-epochs|pre-trained) \S+", "", command_of(x)) for x in own}
        unlike = f"seeds of {plan.name} were not trained alike: {' or '.join(sorted(trained))}; keep them apart"
        require(len(trained) < 2, unlike)
        for figure in table.figures:
            values = {i: value for i, x in enumerate(own) if (value := look_up(x, figure, plan)) is not None}
            # made-up data have no figure in a paper
            published = None if any(x["demo"] for x in own) else plan.published.get(figure.name)
            if values or (own and published):
                of = tuple(own[i] for i in values)
                found.append(Row(plan, figure, published, tuple(values.values()), of))
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


def paper(row: Row) -> str:
    return shown(row.figure, row.published.value) + " †" * row.published.recalled if row.published else ""


def ours(row: Row) -> str:
    """With its spread over seeds."""
    if not row.values:
        return ""
    mean, deviation = (100 * x if row.figure.percent else x for x in spread(row.values))
    return shown(row.figure, mean) + (f" ± {shown(row.figure, deviation)}" if len(row.values) > 1 else "")


def shown(figure: Figure, value: float) -> str:
    return f"{value:.1f}" if figure.percent else f"{value:.3f}"


def about(of_it: Sequence[Row]) -> dict[str, str]:
    """Seeds of a model's results, epochs as given and, where these are fewer, as planned, and training examples."""
    results = list({x["seed"]: x for row in of_it for x in row.results}.values())
    given = sorted({x["epochs"]["given"] for x in results})
    planned = max((x["epochs"]["planned"] for x in results), default=0)
    epochs = " to ".join(str(x) for x in dict.fromkeys((given[0], given[-1]))) if given else ""
    if given and given[0] < planned:
        epochs += f" of {planned}"
    examples = sorted({x["examples"] for x in results if x["examples"]})
    return {
        "seeds": ", ".join(str(x["seed"]) for x in results),
        "epochs": epochs,
        "examples": " to ".join(f"{x:,}" for x in examples),
    }


def grid(table: Table, of_table: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a line a model, or a line a figure where these are many."""
    wide = len(table.figures) <= MOST
    models: dict[tuple[str, str], list[Row]] = {}
    for row in of_table:
        models.setdefault((row.plan.experiment, row.plan.model), []).append(row)
    lines = []
    for (experiment, model), own in models.items():
        start = {"experiment": experiment, "model": model}
        if wide:
            pairs = ({f"{row.figure.name}, paper": paper(row), f"{row.figure.name}, ours": ours(row)} for row in own)
            lines.append(start | {name: text for pair in pairs for name, text in pair.items()} | about(own))
        else:
            figures = ({"figure": row.figure.name, "paper": paper(row), "ours": ours(row)} for row in own)
            lines += [start | figure | about([row]) for figure, row in zip(figures, own, strict=True)]
    both = [f"{figure.name}, {whose}" for figure in table.figures for whose in ("paper", "ours")]
    names = ["experiment", "model", *both, "figure", "paper", "ours", "seeds", "epochs", "examples"]
    header = [name for name in names if any(line.get(name) for line in lines)]
    return header, [[line.get(name, "") for name in header] for line in lines]


def notes(of_table: Iterable[Row]) -> list[str]:
    """What is to be said of figures."""
    said = list(dict.fromkeys(row.plan.note for row in of_table if row.plan.note and row.published))
    return [DAGGER] * any(row.published and row.published.recalled for row in of_table) + said


def in_markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a table."""
    cells = [[in_table(cell) for cell in line] for line in (header, *lines)]
    texts = [f"| {' | '.join(line)} |" for line in cells]
    return [texts[0], "|---" * len(header) + "|", *texts[1:]]


def markdown(name: str, table: Table, results: Iterable[dict[str, Any]]) -> str:
    """A table with its title and footnotes."""
    of_table = rows(name, table, results)
    title = f"**{table.title}** ({table.source}; ours: mean ± standard deviation over seeds)"
    texts = [title, "", *in_markdown(*grid(table, of_table))]
    for note in notes(of_table):
        texts += ["", note]
    return "\n".join(texts) + "\n"


def experiments(results: Sequence[dict[str, Any]]) -> str:
    """One table of all experiments: the models of which something was published, or, where nothing was, all of a table
    with their first figure."""
    header = ["folder", "model", "command", "figures", "paper", "ours", "seeds", "epochs", "examples"]
    lines, said = [], []
    for name, table in TABLES.items():
        if len(table.figures) > MOST:
            continue
        known = any(plan.published for plan in table.plans)
        of_table = rows(name, table, results)
        for plan in table.plans:
            own = [row for row in of_table if row.plan == plan and row.values]
            shown = [row for row in own if row.published] if known else own[:1]
            if shown:
                what = [f"[{plan.experiment}]({plan.experiment})", plan.model, f"`{command_of(own[0].results[0])}`"]
                texts = zip(*((row.figure.name, paper(row), ours(row)) for row in shown), strict=True)
                lines.append([*what, *("; ".join(each) for each in texts), *about(own).values()])
                said += notes(shown)
    texts = in_markdown(header, lines)
    for note in dict.fromkeys(said):
        texts += ["", note]
    return "\n".join(texts)


def command_of(result: dict[str, Any]) -> str:
    """How a run was trained, in its folder."""
    command = re.sub(r"-m \w+\.(\w+)", r"\1.py", result["commands"][0], count=1)
    return re.sub(r" (--(data-dir|save-dir|seeds?|jobs) \S+|--resume|--cuda)", "", command)


def put_in(file: Path, results: Sequence[dict[str, Any]]) -> str:
    """The text of a file with the table of all experiments between its marks.

    Raises:
        InputError: it has none.
    """
    text = file.read_text()
    require(BEGIN in text and END in text, f"{file} has no lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{experiments(results)}\n\n{END}{after}"
