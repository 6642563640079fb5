"""How far to trust a `tools.estimator.MultimodalEstimator`: a report on rows that it was not trained on.

figures = criticise(vae, held_out, "report", colour=cell_types)     # report/criticism.png, report/criticism.html
"""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data import Examples
from common.errors import require
from common.io import write_atomically
from reports import plots
from reports.tables import FEW_EFFECTIVE
from tools.estimator import MultimodalEstimator
from tools.kinds import Continuous, present

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from torch import Tensor

LEVELS = (0.5, 0.8, 0.95)  # of predictive intervals
MOST, N_SAMPLES = 500, 500  # rows whose intervals are drawn; importance samples of log p
MOST_CLASSES = 20  # of a colour; more numbers have a scale
PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Criticism</title>
<style>body {{ font-family: sans-serif; margin: 2em; max-width: 70em }} td, th {{ padding: .2em; text-align: right }}
img {{ max-width: 100% }}</style>
<h1>{title}</h1><img alt="scores, intervals and latents" src="data:image/png;base64,{picture}">{tables}</html>
"""


def criticise(
    estimator: MultimodalEstimator,
    X: Any,  # noqa: ANN401 (as for the estimator)
    folder: str | Path,
    colour: Sequence[Any] | None = None,
    n_draws: int = 200,
) -> dict[str, Any]:
    """Report how well each modality is predicted from each other one, how likely rows are, and how right the spread is.

    Writes criticism.png and criticism.html.

    Args:
        X: rows that training did not see.
        colour: a value or a class of each row, which colours its latents; a Series has the rows' index.
        n_draws: draws from q(x|the others), whose quantiles are predictive intervals.

    Returns:
        "log p": {"all" or modality: {"mean", "stderr", "uncertain"}} over the rows that have it, nats in the units of
            the data; uncertain: the share of the rows whose log p rests on fewer than 2 effective samples.
        "scores": {given: {target: R^2 of all columns together, or accuracy}}, given one modality or "all others".
        "chance": {target: the score of a constant}.
        "coverage": {Continuous modality: {level: share of the cells in their central interval given the others}}.

    Raises:
        InputError: X lacks a modality, or a colour for each row.
    """
    z, rows = np.asarray(estimator.transform(X)), estimator.rows(X)
    names, tables, examples = estimator.model_.modalities, rows.tables, estimator.examples(rows)
    truth = {name: x.cpu() for name, x in examples.modalities.items()}
    lacking = [name for name in names if name not in truth]
    require(not lacking, f"X lacks {', '.join(lacking)}: a report needs all modalities, in some of the rows")
    require(len(names) > 1 and len(z) > 1, "a report needs two modalities or more, and two rows or more")
    if hasattr(colour, "reindex") and rows.index is not None:
        colour = colour.reindex(rows.index)
    require(colour is None or len(colour) == len(z), f"colour must have {len(z)} values, one for each row")
    has = {name: present(x) for name, x in truth.items()}
    nowhere = [name for name, rows_of in has.items() if rows_of.sum() < 2]
    require(not nowhere, f"fewer than two rows have {', '.join(nowhere)}: a report needs all modalities")
    figures = {
        "log p": likelihoods(estimator, tables, has),
        "scores": scores(estimator, examples, has),
        "chance": {name: kind.chance(truth[name]) for name, kind in estimator.modalities.items()},
        "coverage": coverages(estimator, tables, truth, n_draws),
    }
    folder = Path(folder)
    draw(folder / "criticism.png", figures, z, colour)
    picture = base64.b64encode((folder / "criticism.png").read_bytes()).decode()
    shown = "".join(f"<h2>{title}</h2>{in_html(figures[title])}" for title in ("scores", "log p", "coverage"))
    page = PAGE.format(title=f"{estimator.model}, {len(z):,} rows", picture=picture, tables=shown)
    write_atomically(folder / "criticism.html", page.encode())
    return figures


def likelihoods(
    estimator: MultimodalEstimator, tables: Mapping[str, Any], has: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """log p of all that a row has, and of each modality, over the rows that have it, see `criticise`."""
    found, parts = {}, {"all": (tables, torch.stack(list(has.values())).any(dim=0))}
    parts |= {name: ({name: x}, has[name]) for name, x in tables.items()}
    for name, (part, there) in parts.items():
        log_p, _, ess = (x[there] for x in estimator.estimates(estimator.rows(part), N_SAMPLES))
        stderr, uncertain = log_p.std().item() / len(log_p) ** 0.5, (ess < FEW_EFFECTIVE).double().mean().item()
        found[name] = {"mean": log_p.mean().item(), "stderr": stderr, "uncertain": uncertain}
    return found


def scores(
    estimator: MultimodalEstimator, examples: Examples, has: Mapping[str, Tensor]
) -> dict[str, dict[str, float]]:
    """The score of each modality given each one, itself too, and given all others, over the rows that have both."""
    names, found = tuple(has), {}
    given = {name: (name,) for name in names} | {"all others": names}
    for source, few in given.items():
        found[source] = {}
        for target in names:
            sources = few if source != "all others" else tuple(name for name in names if name != target)
            rows = has[target] & torch.stack([has[name] for name in sources]).any(dim=0)
            if not rows.any():
                found[source][target] = math.nan
                continue
            part = examples.take(rows.nonzero().squeeze(1))
            predicted = estimator.expected(part, (target,), sources, 50)[target]
            found[source][target] = estimator.modalities[target].score(part.modalities[target].cpu(), predicted)
    return found


def coverages(
    estimator: MultimodalEstimator, tables: Mapping[str, Any], truth: Mapping[str, Tensor], n_draws: int
) -> dict[str, dict[str, float]]:
    """How often a cell of Continuous columns lies in its central predictive interval given the other modalities.

    The first `MOST` rows count.
    """
    found = {}
    for name in (name for name, kind in estimator.modalities.items() if type(kind) is Continuous):
        others = {other: x[:MOST] for other, x in tables.items() if other != name}
        draws = estimator.sample(n_draws, others, (name,))[name]  # (n, N, columns)
        x = estimator.values({name: truth[name][:MOST]})[name]
        for level in LEVELS:
            low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
            inside = (low <= x) & (x <= high)
            found.setdefault(name, {})[f"{level:.0%}"] = inside[~np.isnan(x)].mean().item()
    return found


def draw(path: Path, figures: Mapping[str, Any], z: np.ndarray, colour: Sequence[Any] | None) -> None:
    """Save the scores as a map, the coverage beside its levels, and the latents' first two principal components."""
    figure = Figure(figsize=(15, 4.5))
    of_scores, of_intervals, of_latents = figure.subplots(1, 3)
    rows, columns = list(figures["scores"]), list(figures["chance"])
    values = np.array([[figures["scores"][given][target] for target in columns] for given in rows])
    of_scores.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    of_scores.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
    of_scores.set_yticks(range(len(rows)), [f"given {x}" for x in rows])
    for (i, j), value in np.ndenumerate(values):
        of_scores.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.6 else "black")
    of_scores.set_title("R^2 of columns, accuracy of classes", fontsize=10)
    of_intervals.plot([0, 1], [0, 1], color="0.7", linestyle="--", label="exact")
    for name, by_level in figures["coverage"].items():
        of_intervals.plot(LEVELS, list(by_level.values()), marker="o", label=name)
    of_intervals.set_xlabel("predictive interval given the others")
    of_intervals.set_ylabel("share of the cells inside")
    of_intervals.legend(fontsize=8)
    points = PCA(2).fit_transform(z) if z.shape[1] > 1 else np.column_stack([z, np.zeros(len(z))])
    classes = np.zeros(len(z)) if colour is None else np.asarray(colour)
    if classes.dtype.kind in "fiu" and len(np.unique(classes)) > MOST_CLASSES:
        figure.colorbar(of_latents.scatter(*points.T, s=5, c=classes), ax=of_latents)
    else:
        labels = classes.astype(str)
        for i, label in enumerate(np.unique(labels)):
            of_latents.scatter(*points[labels == label].T, s=5, color=f"C{i % 10}", label=label)
        if colour is not None:
            of_latents.legend(fontsize=8, markerscale=2)
    of_latents.set_title("latent means, principal components", fontsize=10)
    figure.tight_layout()
    plots.save(figure, path)


def in_html(rows: Mapping[str, Mapping[str, float]]) -> str:
    """A table of figures, {row: {column: figure}}."""
    columns = list(next(iter(rows.values()), {}))
    head = "".join(f"<th>{html.escape(x)}</th>" for x in ("", *columns))
    lines = (
        f"<tr><th>{html.escape(name)}</th>{''.join(f'<td>{row[x]:.3f}</td>' for x in columns)}</tr>"
        for name, row in rows.items()
    )
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
