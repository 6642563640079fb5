"""Charts of coherence, as SVG: by the number of given modalities, and against the Frechet distance."""

import io
import re
from collections.abc import Mapping, Sequence

from reports.tables import spread
from tools.reproduction.results import Numbers, Result, letters

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"  # stands for the page's own colour
COLOURS = (
    *("#2f7ebc", "#cc5f1a", "#1f9163", "#a65bb5", "#b8860b"),
    *("#c0504d", "#5f7d95", "#c2409b", "#7a8b00", "#00868b"),
)
MARKERS = "osD^vPX"  # 7, so that the first 70 names differ in marker or colour
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report", "text.color": INK, "axes.labelcolor": INK}
STYLE |= {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "font.family": "sans-serif", "font.size": 10}


def by_size(results: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Charts with a curve for each model, {name: (SVG, caption)}; none if nothing was measured by size."""
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
    return {
        "by_number": (_curves(by_number, "modalities given"), "Coherence by the number of given modalities"),
        "by_distance": (
            _curves(by_distance, "Frechet distance"),
            "Coherence against the Frechet distance, by the number of given modalities from 1 upwards"
            + "; distances compare only between curves with the same judges, A, B, ..." * bool(judges),
        ),
    }


def _curves(curves: Mapping[str, Sequence[tuple[float, float, float]]], label: str) -> str:
    """Curves of points (x, mean, deviation) with error bars, dark on white, as SVG."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        axis = figure.subplots()
        axis.patch.set_alpha(0)
        axis.set(xlabel=label, ylabel="coherence, %")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=INK, alpha=0.15)
    for i, (name, points) in enumerate(curves.items()):
        x, mean, deviation = zip(*points, strict=True)
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axis.errorbar(x, mean, deviation, **style, markersize=5, capsize=3, label=name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    with matplotlib.rc_context(STYLE):
        if len(curves) > 1:
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = re.sub(r"<style.*?</style>", "", text.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    return svg.replace("<svg ", '<svg style="background: #fff; color: #1b1f24" ', 1)
