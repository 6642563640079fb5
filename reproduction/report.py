"""One HTML file of everything: tables, curves, pictures and the commands."""

import base64
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from common.io import write_atomically
from common.training.parallel import spread
from reproduction import charts, tables
from reproduction.plans import TABLES, Table
from reproduction.work import slug

WIDEST = 1200  # pixels of a picture
PICTURES = {
    "prior": "samples of the prior",
    "reconstructions": "test examples and their reconstructions",
    "conditional": "samples given a label or an attribute",
    "from_": "what is decoded, given {}",
    "examples": "further examples of test characters, given some",
    "characters": "new characters",
    "alphabets": "new alphabets",
    "umap": "draws of the prior and of the posteriors in the plane (UMAP)",
    "kl": "KL of the posteriors from the prior and from each other, by latent",
}


class Shown(NamedTuple):
    """A chart or a picture, what it shows, and for whom that cannot see it."""

    content: Markup
    caption: str


class Section(NamedTuple):
    """A table of the report and what belongs to it."""

    name: str
    table: Table
    header: list[str]
    lines: list[list[str]]
    notes: list[str]
    shown: list[Shown]
    pictures: list[Shown]
    results: list[dict[str, Any]]


def write(file: Path, results: Sequence[dict[str, Any]], runs: Path) -> None:
    """The report of results, with the pictures that are found in the folders of their runs."""
    sections = []
    for name, table in TABLES.items():
        place = {(plan.experiment, plan.model): i for i, plan in enumerate(table.plans)}
        own = [x for x in results if x["table"] == name and (x["experiment"], x["model"]) in place]
        own.sort(key=lambda x: (place[x["experiment"], x["model"]], x["seed"]))
        rows = tables.rows(name, table, own)
        if rows:
            shown = [*_figures(name, rows), *_matrices(own), *_curves(own)]
            of_table = *tables.grid(table, rows), tables.notes(rows)
            sections.append(Section(name, table, *of_table, shown, _pictures(own, runs), own))
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.get_template("report.html")
    page = template.render(sections=sections, hours=_hours)
    write_atomically(file, page.encode())


def _figures(name: str, rows: Sequence[tables.Row]) -> list[Shown]:
    """Percentages as bars, a chart for each, or, of weak supervision, as curves."""
    if name == "weak-supervision":
        return _weak(rows)
    found = []
    for experiment, figure in dict.fromkeys((row.plan.experiment, row.figure) for row in rows if row.figure.percent):
        own = [row for row in rows if (row.plan.experiment, row.figure) == (experiment, figure) and row.values]
        of: dict[str, list[float | None]] = {"ours": [100 * spread(row.values)[0] for row in own]}
        if any(row.published for row in own):
            of["paper"] = [row.published and row.published.value for row in own]
        if own:
            chart = charts.bars(of, [row.plan.model for row in own], ("", "%"))
            found.append(_chart(chart, f"{experiment}: {figure.name}, %, by model"))
    return found


def _weak(rows: Sequence[tables.Row]) -> list[Shown]:
    found = []
    for experiment in dict.fromkeys(row.plan.experiment for row in rows):
        points: dict[str, list[tuple[float, float, float]]] = {}
        for row in rows:
            if row.plan.experiment == experiment and row.values:
                (_, fraction), who = row.figure.at[-2:]
                mean, deviation = spread(row.values)
                points.setdefault(who, []).append((100 * fraction, 100 * mean, 100 * deviation))
        if points:
            labels = "% of the examples that are paired", "labels inferred from the image, %"
            caption = f"{experiment}: accuracy of labels by the share of pairs, of the model and of a classifier"
            found.append(_chart(charts.spreads(points, labels), caption))
    return found


def _matrices(results: Sequence[dict[str, Any]]) -> list[Shown]:
    """Coherence of what is generated of each modality given each, where it was measured."""
    found = []
    for result in results:
        figures = result["measured"].get("coherence", {}).get("figures", {})
        known = {tuple(name[11:].split(" -> ")): x for name, x in figures.items() if " -> " in name}
        names = list(dict.fromkeys(given for given, _ in known))
        lines = [[Markup("<td></td>"), *(Markup('<th scope="col">{}</th>').format(name) for name in names)]]
        for given in names:
            shares = [known[given, to] for to in names]
            cells = [Markup('<td style="--share: {:.3f}">{:.1f}</td>').format(x, 100 * x) for x in shares]
            lines.append([Markup('<th scope="row">given {}</th>').format(given), *cells])
        if names:
            body = Markup("").join(Markup("<tr>{}</tr>").format(Markup("").join(line)) for line in lines)
            caption = f"{result['model']}, seed {result['seed']}: % of what is decoded that shows the given digit"
            found.append(Shown(Markup('<table class="matrix">{}</table>').format(body), caption))
    return found


def _curves(results: Sequence[dict[str, Any]]) -> list[Shown]:
    found = []
    for experiment, model in dict.fromkeys((x["experiment"], x["model"]) for x in results):
        own = [x for x in results if (x["experiment"], x["model"]) == (experiment, model) and x["curves"]["train"]]
        if own:
            train, valid = ({f"seed {x['seed']}": x["curves"][split] for x in own} for split in ("train", "valid"))
            caption = f"{experiment}, {model}: bound in training (solid) and validation (dashed), nats, by epoch"
            found.append(_chart(charts.curves(train, ("epoch", "bound, nats"), valid), caption))
    return found


def _chart(svg: str, caption: str) -> Shown:
    label = Markup('<svg role="img" aria-label="{}" ').format(caption)
    return Shown(Markup(svg.replace("<svg ", label, 1)), caption)


def _pictures(results: Sequence[dict[str, Any]], runs: Path) -> list[Shown]:
    """Of the first seed of each model."""
    found, seen = [], set()
    for result in results:
        of = result["experiment"], result["model"]
        if of in seen:
            continue
        folder = runs / result["table"] / of[0] / f"{slug(of[1])}_seed{result['seed']}"
        for file in sorted((folder / "samples").glob("*.png")):
            what = next((text for start, text in PICTURES.items() if file.stem.startswith(start)), None)
            if what:
                seen.add(of)
                given = re.sub("^from_", "", file.stem)
                found.append(_picture(file, f"{of[0]}, {of[1]}, seed {result['seed']}: {what.format(given)}"))
    return found


def _picture(file: Path, caption: str) -> Shown:
    image = Image.open(file).convert("RGB")
    image.thumbnail((WIDEST, 4 * WIDEST))
    data = io.BytesIO()
    image.save(data, "WEBP", quality=85)
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    tag = Markup('<img src="{}" alt="{}" width="{}" height="{}">')
    return Shown(tag.format(source, caption, *image.size), caption)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
