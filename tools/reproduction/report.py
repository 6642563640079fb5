"""The report: a page with tables, charts and commands, and links to the pictures of the runs beside it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.io import write_atomically
from tools.reproduction import charts, tables
from tools.reproduction.commands import slug
from tools.reproduction.plans import TABLES
from tools.reproduction.records import Table
from tools.reproduction.results import Result

from jinja2 import Environment, FileSystemLoader, StrictUndefined


class Section(NamedTuple):
    """A table of the report with its charts, pictures and runs."""

    table: Table
    grids: list[tables.Grid]
    notes: list[str]
    charts: list[tuple[str, str]]
    """(SVG, caption)"""
    pictures: list[tuple[str, str]]
    """(path from the report, caption)"""
    results: list[Result]


def write(file: Path, results: Sequence[Result]) -> None:
    """Write the report of results into a folder that may hold the folders of their runs."""
    sections = []
    for name, table in TABLES.items():
        place = {(plan.experiment, plan.model): i for i, plan in enumerate(table.plans)}
        of_table = [x for x in results if x.table == name and (x.experiment, x.model) in place]
        of_table.sort(key=lambda x: (place[x.experiment, x.model], x.seed))
        if of_table:
            rows = tables.rows(name, table, of_table)
            grids = tables.grids(table, rows)
            shown = list(charts.by_size(of_table).values()), list(pictures(of_table, file.parent))
            sections.append(Section(table, grids, tables.notes(rows, grids), *shown, of_table))
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    write_atomically(file, environment.get_template("report.html").render(sections=sections).encode())


def pictures(results: Sequence[Result], runs: Path) -> Iterator[tuple[str, str]]:
    """The loss and the samples of each model's first seed that has any: paths from the runs' folder, and captions."""
    seen = set()
    for result in results:
        experiment, model, seed = result.experiment, result.model, result.seed
        folder = runs / result.table / experiment / f"{slug(model)}_seed{seed}"
        files = [*folder.glob("loss.png"), *sorted((folder / "samples").glob("*.png"))]
        if files and (experiment, model) not in seen:
            seen.add((experiment, model))
            for file in files:
                yield str(file.relative_to(runs)), f"{experiment}, {model}, seed {seed}: {file.stem}"
