"""Tables of the papers' figures beside ours, from the results of runs."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from common.data.files import read_text
from common.errors import require
from reports.tables import markdown as in_markdown
from reports.tables import over_seeds, spread
from tools.reproduction.plans import TABLES
from tools.reproduction.published import Published
from tools.reproduction.records import Figure, Plan, Table
from tools.reproduction.results import Result, letters, read_result

DAGGER = "† As recalled; not re-checked against the paper."
DIFFERENCE = (
    "difference: ours minus the paper's. Its standard error counts the spread over our seeds, and our test images "
    "where they are not the paper's. A single seed has the largest spread of the experiment's models with several "
    "seeds and the same test images, if there are any. The paper's own error is unknown."
)
JUDGES = (
    "judges: sets of classifiers, A, B, ... FD compares within a set only; where seeds differ, it stands for each set."
)
SCHEDULE = "cosine: the learning rate falls by --lr-schedule cosine. Epochs without this word: it is constant."
DEMO = (
    "Built-in data (--demo), with fewer examples and fewer importance samples than the folders' own scripts take: not "
    "comparable with published figures."
)
CONSTANT = "constant"
MAX_COLUMNS = 8  # of a table in Markdown; as many figures may stand side by side in a report
BEGIN, END = "<!-- experiments: made by make tables -->", "<!-- end of experiments -->"


class Row(NamedTuple):
    """One figure of one model."""

    plan: Plan
    figure: Figure
    published: Published | None
    values: tuple[float, ...]
    """one for each seed"""
    other_values: tuple[float, ...]
    """those of the figure's other estimate"""
    results: tuple[Result, ...]
    """the runs that the values come from"""


def load(folder: Path) -> list[Result]:
    """The results of all tables below a folder.

    Raises:
        InputError: a file is damaged.
    """
    return [read_result(file) for file in sorted(x for table in TABLES for x in (folder / table).rglob("*.json"))]


def rows(name: str, table: Table, results: Sequence[Result]) -> list[Row]:
    """The figures of a table that are published or measured, in the table's order.

    Raises:
        InputError: the runs of a model differ in more than their seeds and epochs.
    """
    table_rows = []
    demo = any(x.demo for x in results)  # no paper has figures for built-in data
    for plan in table.plans:
        runs = [x for x in results if (x.table, x.experiment, x.model) == (name, plan.experiment, plan.model)]
        commands = {re.sub(r" --(epochs|annealing-epochs|pre-trained) \S+", "", command_of(x)) for x in runs}
        different = f"seeds of {plan.name} were not trained alike: {' or '.join(sorted(commands))}"
        require(len(commands) < 2, f"{different}; move those of one kind to another --results-dir")
        for figure in (*table.figures, *table.further):
            values, others = (
                {i: value for i, x in enumerate(runs) if (value := look_up(x, keys, plan)) is not None}
                for keys in (figure.keys, figure.other_keys)
            )
            published = None if demo else plan.published.get(figure.name)
            if values or others or (published and (runs or table.shows_untrained)):
                measured = tuple(runs[i] for i in values or others)
                table_rows.append(
                    Row(plan, figure, published, tuple(values.values()), tuple(others.values()), measured)
                )
    return table_rows


def look_up(result: Result, keys: tuple, plan: Plan) -> float | None:
    """The figure that lies at these keys of a run's results; None if it was not measured."""
    if not keys:
        return None
    entry: Any = result.measured
    for key in keys:
        if isinstance(entry, list):
            entry = dict(enumerate(entry)).get(key)
        elif isinstance(entry, dict):
            entry = entry.get(key.format(y=plan.y))
        else:
            entry = getattr(entry, key)
        if entry is None:
            return None
    return entry


def paper(row: Row) -> str:
    """The paper's figure, with a dagger if it is quoted from memory; empty if there is none."""
    if not row.published:
        return ""
    return f"{row.published.value} †" if row.published.recalled else shown(row.figure, row.published.value)


def ours(figure: Figure, values: Sequence[float]) -> str:
    """Our figure with its spread over seeds; empty if it was not measured."""
    if not values:
        return ""
    return over_seeds([100 * x if figure.percent else x for x in values], partial(shown, figure))


def ours_by_judges(row: Row) -> str:
    """Our figure; a distance between judges' features for each set of judges, in the order of their letters."""
    if not row.figure.of_judges:
        return ours(row.figure, row.values)
    by_judges: dict[tuple, list[float]] = {}
    for value, result in sorted(zip(row.values, row.results, strict=True), key=lambda pair: pair[1].judges):
        by_judges.setdefault(result.judges, []).append(value)
    return " / ".join(ours(row.figure, values) for values in by_judges.values())


def difference(row: Row, table_rows: Iterable[Row]) -> str:
    """Our figure less the paper's, with its standard error as far as it is known.

    Empty if one of them is missing, or if they are of different data.

    Args:
        table_rows: the table's rows; the spread of others over seeds stands in for that of a single seed.
    """
    if not row.values or not row.published or row.plan.other_data:
        return ""
    scale = 100 if row.figure.percent else 1
    mean = scale * spread(row.values)[0]
    deviation = deviation_over_seeds(row, table_rows)
    variances = [] if deviation is None else [(scale * deviation) ** 2 / len(row.values)]
    errors = [look_up(x, (*row.figure.keys[:-1], "stderr"), row.plan) for x in row.results]
    if row.plan.other_test_images and None not in errors:
        variances.append(scale**2 * sum(error**2 for error in errors) / len(errors))  # all seeds score the same images
    sign = "+" if mean >= row.published.value else ""
    error = f" ± {shown(row.figure, math.sqrt(sum(variances)))}" if variances else ""
    return f"{sign}{shown(row.figure, mean - row.published.value)}{error}"


def deviation_over_seeds(row: Row, table_rows: Iterable[Row]) -> float | None:
    """The standard deviation of a figure over the seeds of its model.

    For a single seed it is the largest one of the experiment's models with several seeds and the same test images, of
    their other estimate if they have that alone; None if there is no such model.
    """
    alike = (row.figure, row.plan.experiment, row.plan.other_test_images)
    others = [x for x in table_rows if (x.figure, x.plan.experiment, x.plan.other_test_images) == alike]
    known = [row.values] if len(row.values) > 1 else [x.values or x.other_values for x in others]
    return max((spread(values)[1] for values in known if len(values) > 1), default=None)


def shown(figure: Figure, value: float) -> str:
    """A value with the digits that its figure deserves."""
    return f"{value:.1f}" if figure.percent else f"{value:.3f}"


def schedule(result: Result) -> str:
    """How the learning rate of a run's training fell: a value of --lr-schedule."""
    return str(result.config.get("lr_schedule", CONSTANT))


def about(model_rows: Sequence[Row]) -> dict[str, str]:
    """Seeds, epochs and training examples of a model's runs.

    With the epochs stand the planned number, if they were cut, and a schedule of the learning rate.
    """
    results = sorted({x.seed: x for row in model_rows for x in row.results}.values(), key=lambda x: x.seed)
    given = sorted({x.epochs.given for x in results})
    planned = max((x.epochs.planned for x in results), default=0)
    epochs = " to ".join(str(x) for x in dict.fromkeys((given[0], given[-1]))) if given else ""
    if given and given[0] < planned:
        epochs += f" of {planned}"
    epochs = ", ".join([epochs, *sorted({schedule(x) for x in results} - {CONSTANT})])
    examples = sorted({x.examples for x in results if x.examples})
    return {
        "seeds": ", ".join(str(x.seed) for x in results),
        "epochs": epochs,
        "examples": " to ".join(f"{x:,}" for x in examples),
    }


def recorded(model_rows: Sequence[Row]) -> dict[str, str]:
    """The hours of training of each run and the devices, the commits of the results, and the day of the last one."""
    results = [x for row in model_rows for x in row.results]
    hours = sorted(x.seconds / 3600 for x in results if x.seconds)
    ends = " to ".join(dict.fromkeys(f"{x:.2f}" for x in (*hours[:1], *hours[-1:])))
    devices = dict.fromkeys(re.sub(r"\(R\)| Processor", "", x.device) for x in results)  # as Intel names its own
    commits = dict.fromkeys(re.sub(r"^(\w{7})\w*", r"\1", x.commit) for x in results if x.commit)
    last = max((x.date for x in results), default="")
    return {"training, h": ends, "device": " / ".join(devices), "date": last, "commit": ", ".join(commits)}


Grid = tuple[list[str], list[list[str]]]  # header and lines


def grids(table: Table, table_rows: Sequence[Row]) -> list[Grid]:
    """The table of a table's figures, and that of its further ones, each unless nothing of it was measured."""
    chosen = [[row for row in table_rows if row.figure in figures] for figures in (table.figures, table.further)]
    judges = letters(x for row in table_rows for x in row.results)
    return [grid(table, some, judges) for some in chosen if some]


def grid(table: Table, table_rows: Sequence[Row], judges: Mapping[tuple, str]) -> Grid:
    """Header and lines: a line for each figure, or for each model if none is published that ours could equal.

    Args:
        judges: a letter for each set of judges, see `letters`.
    """
    shown = {row.figure.name for row in table_rows}
    figures = [figure.name for figure in (*table.figures, *table.further) if figure.name in shown]
    published = table.comparable and any(row.published for row in table_rows)
    wide = not published and not table.other_title and len(table.figures) <= MAX_COLUMNS
    models: dict[tuple[str, str], list[Row]] = {}
    for row in table_rows:
        models.setdefault((row.plan.experiment, row.plan.model), []).append(row)
    lines = []
    for (experiment, model), model_rows in models.items():
        start = {"experiment": experiment, "model": model}
        if wide:
            cells = {row.figure.name: ours_by_judges(row) for row in model_rows}
            cells |= {beside(row.figure.name): paper(row) for row in model_rows}
            sets = {judges[x.judges] for row in model_rows for x in row.results if x.judges in judges}
            cells["judges"] = " / ".join(sorted(sets))
            lines.append(start | cells | about(model_rows) | recorded(model_rows))
        else:
            for row in model_rows:
                cells = {"figure": row.figure.name, "paper": paper(row), "ours": ours(row.figure, row.values)}
                cells[table.other_title] = ours(row.figure, row.other_values)
                cells["difference"] = difference(row, table_rows)
                lines.append(start | cells | about([row]) | recorded([row]))
    columns = [name for figure in figures for name in (figure, beside(figure))]
    long = ["figure", "paper", "ours", "difference", table.other_title]
    names = ["experiment", "model", *columns, *long, "judges", "seeds", "epochs", "examples"]
    names += ["training, h", "device", "date", "commit"]
    header = [name for name in names if any(line.get(name) for line in lines)]
    return header, [[line.get(name, "") for name in header] for line in lines]


def beside(figure: str) -> str:
    """The title of the column with a published figure of other data."""
    return f"{figure}, published"


def notes(table_rows: Iterable[Row], shown_in: Iterable[Grid] = ()) -> list[str]:
    """The footnotes of rows, and of columns of the tables that show them."""
    table_rows = list(table_rows)
    plan_notes = list(dict.fromkeys(row.plan.note for row in table_rows if row.plan.note and row.published))
    demo = [DEMO] * any(x.demo for row in table_rows for x in row.results)
    dagger = [DAGGER] * any(row.published and row.published.recalled for row in table_rows)
    columns = {name for header, _ in shown_in for name in header}
    falls = any(schedule(x) != CONSTANT for row in table_rows for x in row.results)
    scheduled = [SCHEDULE] * (falls and "epochs" in columns)
    of_columns = [text for name, text in (("difference", DIFFERENCE), ("judges", JUDGES)) if name in columns]
    return [*demo, *dagger, *of_columns, *scheduled, *plan_notes]


def narrow(table: Table, wide: Grid) -> Grid:
    """A grid's first eight columns, without the second estimates and the machines, which the report has."""
    header, lines = wide
    of_run = [name for name in ("seeds", "epochs", "examples") if name in header]
    only_in_report = {"experiment", "judges", "training, h", "device", "date", "commit", table.other_title, *of_run}
    columns = [name for name in header if name not in only_in_report][: MAX_COLUMNS - 1]
    columns = [*columns, *of_run][:MAX_COLUMNS] if len(columns) < MAX_COLUMNS - 1 else [*columns, "seeds"]
    cells = [dict(zip(header, line, strict=True)) for line in lines]
    cells = [line | {"model": f"{line['experiment']}, {line['model']}"} for line in cells]
    return columns, [[line[name] for name in columns] for line in cells]


def markdown(name: str, table: Table, results: Sequence[Result]) -> str:
    """The main figures of a table in Markdown, with its title and footnotes."""
    table_rows = [row for row in rows(name, table, results) if row.figure in table.figures]
    title = f"**{table.title}** ({table.source}; ours: mean ± standard deviation over seeds)"
    shown_in = [narrow(table, wide) for wide in grids(table, table_rows)]  # one, or none if nothing was measured
    texts = [title, *(in_markdown(*grid) for grid in shown_in), *notes(table_rows, shown_in)]
    return "\n\n".join(texts) + "\n"


def experiments(results: Sequence[Result]) -> str:
    """One Markdown table of all experiments, with footnotes.

    It has each model with published figures; of a table without any, each model with its first figure.
    """
    header = ["folder", "model", "figures", "paper", "ours", "seeds", "examples", "command"]
    lines, footnotes = [], []
    for name, table in TABLES.items():
        if not table.in_results:
            continue
        is_published = table.comparable and any(plan.published for plan in table.plans)
        table_rows = rows(name, table, results)
        if not table.comparable:
            table_rows = [row._replace(published=None) for row in table_rows]
        for plan in table.plans:
            measured = [row for row in table_rows if row.plan == plan and row.values]
            chosen = [row for row in measured if row.published] if is_published else measured[:1]
            if chosen:
                link, command = f"[{plan.experiment}](../{plan.experiment})", command_of(measured[0].results[0])
                columns = zip(
                    *((row.figure.name, paper(row), ours(row.figure, row.values)) for row in chosen), strict=True
                )
                cells = ["; ".join(column) for column in columns]
                run = about(measured)
                lines.append([link, plan.model, *cells, run["seeds"], run["examples"], f"`{command}`"])
                footnotes += notes(chosen)
    texts = [in_markdown(header, lines)]
    for note in dict.fromkeys(footnotes):
        texts += ["", note]
    return "\n".join(texts)


def command_of(result: Result) -> str:
    """The command that trained a run, as typed in the experiment's folder."""
    command = re.sub(r"-m \w+\.(\w+)", r"\1.py", result.commands[0], count=1)
    command = re.sub(r" (--(data-dir|save-dir|seeds?|jobs) \S+|--resume|--cuda)", "", command)
    # folders' defaults have changed since
    return command if "--lr-schedule" in command else f"{command} --lr-schedule {schedule(result)}"


def put_in(file: Path, results: Sequence[Result]) -> str:
    """The text of a file with the table of all experiments put between its marks.

    Raises:
        InputError: the file has no marks.
    """
    text = read_text(file, "give results/README.md")
    require(BEGIN in text and END in text, f"{file} has no lines {BEGIN} and {END}: add them where the table goes")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    return f"{before}{BEGIN}\n\n{experiments(results)}\n\n{END}{after}"
