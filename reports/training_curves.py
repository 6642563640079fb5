"""loss.png: the bound and its terms over the epochs of a training."""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from reports import plots

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

STYLES = {"train": {"linestyle": "-"}, "valid": {"linestyle": "--", "fillstyle": "none"}}  # fill: of a single epoch
MAX_NAMED = 8  # posteriors in the legend; if there are more, those of single modalities share a colour and an entry
LONGEST = 24  # characters of the modalities that a posterior is named by
SINGLE = "q(z|one modality)"
KL, RANDOM = "kl", "subset"  # the beginnings of terms' names


def loss_curves(path: Path, metrics: Sequence[dict]) -> None:
    """Save the curves of metrics.jsonl over epochs: training solid, validation dashed.

    One panel for the bound, one for the KLs and one for each modality; in each a curve for each posterior that z is
    drawn from.
    Random subsets have a curve of their KL alone: a modality that is not drawn adds 0 to the mean of its log p.
    The panels show the values after the first tenth of the epochs; what lies outside is written into the corner.

    Args:
        metrics: the lines of metrics.jsonl; those without "valid" were not evaluated.
    """
    panels = defaultdict(dict)  # {quantity: {subset that z is inferred from, "" for none: the term's name}}
    for name in metrics[0]["train"]:
        subset, quantity = name.split("/", 1) if "/" in name else ("", name)
        if quantity.startswith(KL) or not subset.startswith(RANDOM):
            panels[quantity][subset] = name
    names = _posteriors(panels)
    labels = list(dict.fromkeys(names.values()))
    colours = {label: "0.6" if label == SINGLE else f"C{i % 10}" for i, label in enumerate(labels)}
    columns = min(len(panels), 4 if len(panels) <= 12 else 6)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(min(3.6 * columns, 15), min(2.6 * rows, 8) + 0.6), layout="constrained")
    for i, (quantity, terms) in enumerate(panels.items()):
        axis = figure.add_subplot(rows, columns, i + 1)
        curves = [
            (split, colours.get(names.get(subset), "0.2"), points)
            for subset, term in terms.items()
            for split in STYLES
            if (points := [(line["epoch"], line[split][term]) for line in metrics if split in line])
        ]
        _draw(axis, curves)
        axis.set_title(_title(quantity, list(terms), names), fontsize=9)
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel("nats per example", fontsize=9)
    splits = {"train": "training", "valid": "validation"} if any("valid" in line for line in metrics) else {}
    marker = "o" if len(metrics) == 1 else None
    keys = [Line2D([], [], color="0.2", marker=marker, label=name, **STYLES[split]) for split, name in splits.items()]
    keys += [Line2D([], [], color=colours[label], linewidth=3, label=label) for label in labels]
    if keys:
        figure.legend(handles=keys, loc="outside upper center", ncols=min(len(keys), 6), fontsize=9, frameon=False)
    plots.save(figure, path)


def _posteriors(panels: Mapping[str, Collection[str]]) -> dict[str, str]:
    """What the legend calls the posterior of each subset, {subset: name}."""
    modalities = [quantity for quantity, subsets in panels.items() if any(subsets) and not quantity.startswith(KL)]
    subsets = [subset for subset in dict.fromkeys(x for shown in panels.values() for x in shown) if subset]
    everything = ",".join(modalities)
    joint = f"q(z|{everything if len(everything) <= LONGEST else 'all'})"
    known = {"joint": joint, "mixture": joint, "ar": "one modality after the other"}
    known |= {subset: "q(z|random subset)" for subset in subsets if subset.startswith(RANDOM)}
    single = SINGLE if len(subsets) > MAX_NAMED else "q(z|{})"
    return {name: known.get(name) or single.format(name) for name in subsets}


def _title(quantity: str, subsets: Sequence[str], names: Mapping[str, str]) -> str:
    """The plain name of what a panel shows."""
    if quantity == KL:
        return f"KL of {names[subsets[0]]}" if len(subsets) == 1 else "KL from the prior"
    if quantity == "kl from joint":
        return f"KL of {names['joint']} from each"
    if quantity == "kl between":
        return "KLs between the experts"
    if quantity.startswith("kl "):  # of a latent variable of vhe
        return f"KL of {quantity.removeprefix('kl ')}"
    return f"log p({quantity}|z)" if subsets[0] else quantity


def _draw(axis: Axes, curves: Sequence[tuple[str, str, list[tuple[int, float]]]]) -> None:
    """Draw curves (split, colour, [(epoch, value)]), and write what the limits of the panel leave out."""
    for split, colour, points in curves:
        marker = "o" if len(points) == 1 else None
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=1, marker=marker, markersize=5, **STYLES[split])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axis.yaxis.set_major_formatter(plots.plain)
    axis.tick_params(labelsize=8)
    late = []  # after the first tenth of a curve, at least after its first value if it has more than two
    for *_, points in curves:
        values = [y for _, y in points[max(len(points) // 10, len(points) > 2) :] if math.isfinite(y)]
        late += [np.quantile(values, (0.02, 0.98))] if values else []
    if not late:
        return
    low, high = min(low for low, _ in late), max(high for _, high in late)
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1
    axis.set_ylim(low - margin, high + margin)
    ends = [(value, epoch) for *_, points in curves for epoch, value in points if math.isfinite(value)]
    for name, (value, epoch), y, is_cut in (
        ("lowest", min(ends), 0.04, min(ends)[0] < low - margin),
        ("highest", max(ends), 0.96, max(ends)[0] > high + margin),
    ):
        if is_cut:
            text, side = f"{name}: {value:,.4g} in epoch {epoch}", "bottom" if name == "lowest" else "top"
            ground = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            place = {"ha": "right", "va": side, "transform": axis.transAxes}
            axis.text(0.97, y, text, fontsize=7, color="0.4", bbox=ground, **place)
