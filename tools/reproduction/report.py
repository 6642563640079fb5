"""The report: one HTML file with tables, curves, pictures and commands."""

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from common.data.pictures import open_picture
from common.io import write_atomically
from reports.tables import spread
from tools.reproduction import charts, tables
from tools.reproduction.commands import slug
from tools.reproduction.plans import TABLES
from tools.reproduction.records import Table
from tools.reproduction.results import Numbers, Result, letters

FOLDER, TEMPLATE = Path(__file__).parent, "report.html"
MAX_WIDTH = 1200  # pixels of a picture
NUMBER = re.compile(r"([+-]?[\d,]+(\.\d+)?( [±†].*)?)?")  # a cell that a table sorts by its value, or an empty one
PICTURES = {
    "prior": "samples of the prior",
    "reconstructions": "test examples and their reconstructions",
    "conditional": "samples given a label or an attribute",
    "from_": "samples given {}",
    "examples": "new examples of test characters, given a few",
    "characters": "new characters",
    "alphabets": "new alphabets",
    "umap": "draws of the prior and of the posteriors in the plane (UMAP)",
    "kl": "KL divergence of the posteriors from the prior, by latent; J: of two posteriors, mean of both directions",
}


class Exhibit(NamedTuple):
    """A chart or a picture, with a caption that is also its alternative text."""

    content: Markup
    caption: str


class Section(NamedTuple):
    """A table of the report with its charts, pictures and runs."""

    name: str
    table: Table
    grids: list[tuple[list[str], list[bool], list[list[str]]]]
    """header, whether a column holds numbers, and lines"""
    notes: list[str]
    charts: list[Exhibit]
    pictures: list[Exhibit]
    results: list[Result]


def write(file: Path, results: Sequence[Result], runs: Path) -> None:
    """Write the report of results, with the pictures in the folders of their runs.

    Args:
        runs: the folder that holds the runs' folders.
    """
    sections = []
    for name, table in TABLES.items():
        place = {(plan.experiment, plan.model): i for i, plan in enumerate(table.plans)}
        of_table = [x for x in results if x.table == name and (x.experiment, x.model) in place]
        of_table.sort(key=lambda x: (place[x.experiment, x.model], x.seed))
        rows = tables.rows(name, table, of_table)
        if of_table:
            grids = tables.grids(table, rows)
            section_charts = [
                *_bar_charts(name, rows),
                *[_chart(*chart) for chart in charts_by_size(of_table).values()],
                *_matrices(of_table),
                *_curves(of_table),
            ]
            pictures = _pictures(of_table, runs)
            notes = tables.notes(rows, grids)
            shown = [(header, _numeric(lines), lines) for header, lines in grids]
            sections.append(Section(name, table, shown, notes, section_charts, pictures, of_table))
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    template = environment.get_template(TEMPLATE)
    page = template.render(sections=sections, hours=_hours, policy=_policy())
    write_atomically(file, page.encode())


def _numeric(lines: list[list[str]]) -> list[bool]:
    """Whether each column holds numbers."""
    return [all(map(NUMBER.fullmatch, column)) for column in zip(*lines, strict=True)]


def _policy() -> str:
    """What the page may load and run, a Content-Security-Policy: its own script, styles and pictures, nothing else."""
    source = (FOLDER / TEMPLATE).read_text()
    hashes = {}
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", source, re.DOTALL)
        hashes[tag] = f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    styles = f"style-src-elem {hashes['style']}; style-src-attr 'unsafe-inline'"  # the latter: the charts' SVG has them
    others = "img-src data:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {hashes['script']}; {styles}; {others}"


def _bar_charts(name: str, rows: Sequence[tables.Row]) -> list[Exhibit]:
    """A bar chart of each percentage; the percentages of weak supervision as curves."""
    if TABLES[name].by_pairs:
        return _weak_supervision(rows)
    exhibits = []
    for experiment, figure in dict.fromkeys((row.plan.experiment, row.figure) for row in rows if row.figure.percent):
        models = [row for row in rows if (row.plan.experiment, row.figure) == (experiment, figure) and row.values]
        heights: dict[str, list[float | None]] = {"ours": [100 * spread(row.values)[0] for row in models]}
        published = [None if row.plan.other_data or not row.published else row.published.value for row in models]
        if TABLES[name].comparable and any(published):
            heights["paper"] = published
        if models:
            chart = charts.bars(heights, [row.plan.model for row in models], ("", "%"))
            exhibits.append(_chart(chart, f"{experiment}: {figure.name}, %, by model"))
    return exhibits


def _weak_supervision(rows: Sequence[tables.Row]) -> list[Exhibit]:
    """Curves of the accuracy by the share of pairs, a chart for each experiment."""
    exhibits = []
    for experiment in dict.fromkeys(row.plan.experiment for row in rows):
        points: dict[str, list[tuple[float, float, float]]] = {}
        for row in rows:
            if row.plan.experiment == experiment and row.values:
                (share, *_) = row.results[0].measured["weak_supervision"].results
                mean, deviation = spread(row.values)
                points.setdefault(row.figure.name, []).append((100 * share.fraction, 100 * mean, 100 * deviation))
        if points:
            labels = "% of the examples that are paired", "labels inferred from the image, %"
            caption = f"{experiment}: accuracy of labels by the share of pairs, for the model and a classifier"
            exhibits.append(_chart(charts.spreads(points, labels, "log"), caption))
    return exhibits


def charts_by_size(results: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Charts with a curve for each model, {name: (SVG, caption)}; none if nothing was measured by size.

    They show coherence by the number of given modalities, and against the Frechet distance.
    """
    judges = letters(results)
    by_model: dict[str, dict[int, list[Numbers]]] = {}
    by_judges: dict[str, dict[int, list[Numbers]]] = {}
    for result in results:
        judged_by = f", {judges[result.judges]}" if result.judges in judges else ""
        for measure in result.measured.values():
            for n, score in measure.by_size.items():
                if None not in (score.get("coherence"), score.get("FD")):
                    by_model.setdefault(result.model, {}).setdefault(int(n), []).append(score)
                    by_judges.setdefault(result.model + judged_by, {}).setdefault(int(n), []).append(score)
    if not by_model:
        return {}

    def coherence(of_seeds: Sequence[Numbers]) -> tuple[float, float]:
        return spread([100 * x["coherence"] for x in of_seeds])

    by_number = {
        model: [(n, *coherence(of_seeds)) for n, of_seeds in sorted(sizes.items())] for model, sizes in by_model.items()
    }
    by_distance = {
        name: [(spread([x["FD"] for x in of_seeds])[0], *coherence(of_seeds)) for _, of_seeds in sorted(sizes.items())]
        for name, sizes in by_judges.items()
    }
    label = "coherence, %"
    return {
        "by_number": (
            charts.spreads(by_number, ("modalities given", label)),
            "Coherence by the number of given modalities",
        ),
        "by_distance": (
            charts.spreads(by_distance, ("Frechet distance", label)),
            "Coherence against the Frechet distance, by the number of given modalities from 1 upwards"
            + "; distances compare only between curves with the same judges, A, B, ..." * bool(judges),
        ),
    }


def _matrices(results: Sequence[Result]) -> list[Exhibit]:
    """Matrices of coherence, source by target, of the runs that measured it."""
    exhibits = []
    for result in results:
        estimates = result.measured["coherence"].estimates if "coherence" in result.measured else {}
        pairs = {re.fullmatch("coherence, (.+?) -> (.+)", name): x.mean for name, x in estimates.items()}
        known = {pair.groups(): x for pair, x in pairs.items() if pair and x is not None}
        names = list(dict.fromkeys(given for given, _ in known))
        lines = [[Markup("<td></td>"), *(Markup('<th scope="col">{}</th>').format(name) for name in names)]]
        for given in names:
            shares = [known.get((given, to)) for to in names]
            cells = [Markup("<td></td>") if x is None else _share(x) for x in shares]
            lines.append([Markup('<th scope="row">given {}</th>').format(given), *cells])
        if names:
            body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(line)) for line in lines)
            caption = f"{result.model}, seed {result.seed}: % of samples that show the given digit"
            exhibits.append(Exhibit(Markup('<table class="matrix">{}</table>').format(body), caption))
    return exhibits


def _share(share: float) -> Markup:
    return Markup('<td style="--share: {:.3f}">{:.1f}</td>').format(share, 100 * share)


def _curves(results: Sequence[Result]) -> list[Exhibit]:
    """The bound over epochs, a chart for each model with a curve for each seed."""
    exhibits = []
    for experiment, model in dict.fromkeys((x.experiment, x.model) for x in results):
        runs = [x for x in results if (x.experiment, x.model) == (experiment, model) and x.curves.train]
        if runs:
            train, valid = ({f"seed {x.seed}": getattr(x.curves, split) for x in runs} for split in ("train", "valid"))
            caption = f"{experiment}, {model}: bound in training (solid) and validation (dashed), nats, by epoch"
            exhibits.append(_chart(charts.curves(train, ("epoch", "bound, nats"), valid), caption))
    return exhibits


def _chart(svg: str, caption: str) -> Exhibit:
    label = Markup('<svg role="img" aria-label="{}" ').format(caption)
    return Exhibit(Markup(svg.replace("<svg ", label, 1)), caption)


def _pictures(results: Sequence[Result], runs: Path) -> list[Exhibit]:
    """The pictures of each model's first seed that has any."""
    exhibits, seen = [], set()
    for result in results:
        experiment, model, seed = result.experiment, result.model, result.seed
        if (experiment, model) in seen:
            continue
        folder = runs / result.table / experiment / f"{slug(model)}_seed{seed}"
        for file in sorted((folder / "samples").glob("*.png")):
            text = next((text for start, text in PICTURES.items() if file.stem.startswith(start)), None)
            if text:
                seen.add((experiment, model))
                given = re.sub("^from_", "", file.stem)
                exhibits.append(_picture(file, f"{experiment}, {model}, seed {seed}: {text.format(given)}"))
    return exhibits


def _picture(file: Path, caption: str) -> Exhibit:
    with open_picture(file, "delete it, or draw it anew by sample.py") as opened:
        image = opened.convert("RGB")
    image.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85)
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    tag = Markup('<img src="{}" alt="{}" width="{}" height="{}">')
    return Exhibit(tag.format(source, caption, *image.size), caption)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
