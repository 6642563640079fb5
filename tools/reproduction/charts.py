"""Curves and bars as SVG that takes its colours from the page around it."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports import plots
from reports.training_curves import late_values

INK = "#010203"  # stands for the page's own colour
COLOURS = (  # on white and on black
    *("#2f7ebc", "#cc5f1a", "#1f9163", "#a65bb5", "#b8860b"),
    *("#c0504d", "#5f7d95", "#c2409b", "#7a8b00", "#00868b"),
)
MARKERS = "osD^vPX"  # 7, so that the first 70 names differ in marker or colour
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report", "text.color": INK, "axes.labelcolor": INK}
STYLE |= {"axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK, "font.family": "sans-serif", "font.size": 10}


def curves(solid: Mapping[str, Sequence[float]], labels: tuple[str, str], dashed: Mapping[str, Sequence[float]]) -> str:
    """Curves over 1, 2, ..., as SVG.

    The y axis ignores the first tenth of each curve (at least one value), since a bound rises from far below.

    Args:
        solid: values by name.
        labels: labels of the x and the y axis.
        dashed: further values of the same names, drawn in the same colours.
    """
    figure, axis = _axis(labels)
    for (name, values), colour in zip(solid.items(), _colours(len(solid)), strict=True):
        axis.plot(range(1, len(values) + 1), values, color=colour, label=name)
        if dashed.get(name):
            axis.plot(range(1, len(dashed[name]) + 1), dashed[name], color=colour, linestyle="--")
    all_values = (*solid.values(), *dashed.values())
    late = [x for values in all_values for x in late_values(values)]
    if late:
        margin = 0.05 * (max(late) - min(late) or 1)
        axis.set_ylim(min(late) - margin, max(late) + margin)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, axis, len(solid))


def bars(heights: Mapping[str, Sequence[float | None]], groups: Sequence[str], labels: tuple[str, str]) -> str:
    """Groups of bars as SVG.

    Args:
        heights: by name, one for each group; None is left out.
        groups: names of the groups.
        labels: labels of the x and the y axis.
    """
    figure, axis = _axis(labels)
    width = 0.8 / len(heights)
    for i, ((name, values), colour) in enumerate(zip(heights.items(), _colours(len(heights)), strict=True)):
        known = [(g + (i + 0.5) * width - 0.4, x) for g, x in enumerate(values) if x is not None]
        axis.bar([centre for centre, _ in known], [x for _, x in known], 0.9 * width, color=colour, label=name)
    axis.set_xticks(
        range(len(groups)), groups, rotation=25 * (len(groups) > 3), ha="right" if len(groups) > 3 else "center"
    )
    return _svg(figure, axis, len(heights))


def spreads(
    curves: Mapping[str, Sequence[tuple[float, float, float]]], labels: tuple[str, str], scale: str = "linear"
) -> str:
    """Curves with error bars, as SVG.

    Args:
        curves: points (x, mean, deviation) by name.
        labels: labels of the x and the y axis.
        scale: of the x axis, "linear" or "log".
    """
    figure, axis = _axis(labels)
    for i, ((name, points), colour) in enumerate(zip(curves.items(), _colours(len(curves)), strict=True)):
        x, mean, deviation = zip(*points, strict=True)
        marker = MARKERS[i % len(MARKERS)]
        axis.errorbar(x, mean, deviation, color=colour, marker=marker, markersize=5, capsize=3, label=name)
    if scale == "log":
        plots.logarithmic(axis, "x")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, axis, len(curves))


def on_white(svg: str) -> str:
    """The SVG as a picture of its own, dark on white."""
    return svg.replace("<svg ", '<svg style="background: #fff; color: #1b1f24" ', 1)


def _axis(labels: tuple[str, str]) -> tuple[Figure, matplotlib.axes.Axes]:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        figure.patch.set_alpha(0)
        axis = figure.subplots()
        axis.patch.set_alpha(0)
        axis.set(xlabel=labels[0], ylabel=labels[1])
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color=INK, alpha=0.15)
    return figure, axis


def _colours(n: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(n)]


def _svg(figure: Figure, axis: matplotlib.axes.Axes, n_names: int) -> str:
    """The figure as SVG, with a legend if it has several names."""
    with matplotlib.rc_context(STYLE):
        if n_names > 1:
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = re.sub(
        r"<style.*?</style>", "", text.getvalue(), flags=re.DOTALL
    )  # the page has these rules, and allows no others
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
