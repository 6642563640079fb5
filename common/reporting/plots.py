"""Pictures, drawn on figures without pyplot: no window, no global state."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn.functional import pad

from common.io import write_atomically

CELL = 0.7  # height of an image, inches
PORTRAIT = 1.6  # width and height of an image with a caption below, inches
CAPTION_WIDTH = 38  # characters a line
MAX_LABELLED = 8  # curves of a panel that a legend names; of more curves it names none


def image_grid(
    path: Path,
    images: Tensor,
    row_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> None:
    """Save a grid of images; all images are drawn as one, which is much faster than an axis for each.

    Args:
        images: (R, C, channels, H, W) in [0, 1]; a NaN image leaves its cell empty.
        row_labels: R labels at the left.
        captions: R rows of C captions under the images.
    """
    rows, columns, _, h, w = images.shape
    down, right = h + h // 14 + (h // 3 if captions else 0), w + w // 14  # pixels from one cell to the next
    cells = images.detach().cpu().nan_to_num(1.0).expand(-1, -1, 3, -1, -1)
    canvas = pad(cells, (0, right - w, 0, down - h), value=1.0)  # (R, C, 3, down, right)
    canvas = canvas.permute(0, 3, 1, 4, 2).reshape(rows * down, columns * right, 3)
    inch = CELL / h
    figure = Figure(figsize=(columns * right * inch, rows * down * inch + 0.35))
    axis = figure.add_axes((0, 0, 1, 1 - 0.35 / figure.get_figheight()))
    axis.imshow(canvas.numpy(), interpolation="nearest", aspect="auto")
    axis.set_axis_off()
    for r in range(rows):
        if row_labels:
            axis.text(-w // 4, r * down + h // 2, row_labels[r], ha="right", va="center", fontsize=9)
        for c in range(columns if captions else 0):
            axis.text(c * right + w // 2, r * down + h, captions[r][c], ha="center", va="top", fontsize=7)
    axis.set_title(title, fontsize=10)
    save(figure, path)


def captioned(
    path: Path,
    images: Tensor,
    captions: Sequence[Sequence[str]],
    row_labels: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """Save a grid of images with a sentence below each.

    Args:
        images: (R, C, channels, H, W) in [0, 1]; a NaN image leaves its cell empty.
        captions: R rows of C sentences.
        row_labels: R labels at the left.
    """
    rows, columns = images.shape[:2]
    wrapped = [[fill(caption, CAPTION_WIDTH) for caption in row] for row in captions]
    beneath = 0.09 * max(caption.count("\n") + 2 for row in wrapped for caption in row)  # inches
    figure = Figure(figsize=(1.05 * PORTRAIT * columns, (PORTRAIT + beneath) * rows))
    spaces = {"hspace": beneath / PORTRAIT, "wspace": 0.1, "left": 0, "right": 1, "top": 1, "bottom": 0}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spaces)
    cells = images.detach().cpu().nan_to_num(1.0).clamp(0, 1).movedim(2, -1)
    for r in range(rows):
        for axis, cell, caption in zip(axes[r], cells[r], wrapped[r], strict=True):
            axis.imshow(cell.numpy())
            axis.set_axis_off()
            axis.text(0.5, -0.03, caption, ha="center", va="top", fontsize=6, transform=axis.transAxes)
        if row_labels:
            axes[r, 0].text(-0.05, 0.5, row_labels[r], ha="right", va="center", transform=axes[r, 0].transAxes)
    figure.suptitle(title, fontsize=10, y=1 + 0.3 / figure.get_figheight())
    save(figure, path)


def in_rows(images: Tensor, captions: Sequence[str], columns: int) -> tuple[Tensor, list[list[str]]]:
    """Arrange images (N, channels, H, W) and their captions in rows of `columns`; blanks fill up the last row."""
    blanks = -len(images) % columns
    images = torch.cat([images, torch.full_like(images[:1], torch.nan).expand(blanks, -1, -1, -1)])
    captions = [*captions, *[""] * blanks]
    return images.unflatten(0, (-1, columns)), [captions[i : i + columns] for i in range(0, len(captions), columns)]


def loss_curves(path: Path, metrics: Sequence[dict]) -> None:
    """Save the curves of metrics.jsonl over epochs: training solid, validation dashed.

    The bound has a panel, and so have the KL and each modality, with the curves of all subsets.
    """
    panels = defaultdict(list)
    for term in metrics[0]["train"]:
        panels[term.split("/", 1)[-1]].append(term)
    figure = Figure(figsize=(14, 2.6 * -(-len(panels) // 4)))
    spaces = {"hspace": 0.5, "wspace": 0.3}
    axes = figure.subplots(-(-len(panels) // 4), 4, squeeze=False, gridspec_kw=spaces).flat
    for (title, terms), axis in zip(panels.items(), axes, strict=False):
        for i, term in enumerate(terms):
            for split, style in (("train", "-"), ("valid", "--")):
                points = [(line["epoch"], line[split][term]) for line in metrics if split in line]
                if points:
                    label = term.rsplit("/", 1)[0] if style == "-" and 1 < len(terms) <= MAX_LABELLED else None
                    axis.plot(*zip(*points, strict=True), style, label=label, linewidth=1, color=f"C{i % 10}")
        if 1 < len(terms) <= MAX_LABELLED:
            axis.legend(fontsize=7)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(labelsize=7)
    for axis in list(axes):
        axis.set_axis_off()
    figure.axes[0].set_ylabel("nats per example", fontsize=8)
    save(figure, path)


def error_bars(
    path: Path,
    x: Sequence[float],
    curves: Mapping[str, Sequence[tuple[float, float]]],
    axes: tuple[str, str],
    title: str = "",
    log: bool = False,
) -> None:
    """Save curves over a logarithmic axis (a linear one for a single x).

    Args:
        curves: {label: (mean, half the height of the bar) for each x}.
        axes: labels of the x and the y axis.
        log: make the y axis logarithmic too.
    """
    figure = Figure(figsize=(6, 4))
    axis = figure.add_subplot(xlabel=axes[0], ylabel=axes[1], title=title)
    if len(x) > 1:
        axis.set_xscale("log")
    if log:
        axis.set_yscale("log")
    for label, points in curves.items():
        mean, deviation = zip(*points, strict=True)
        axis.errorbar(x, mean, deviation, label=label, marker="o", markersize=3, capsize=3, linewidth=1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def intervals(path: Path, rows: Mapping[str, tuple[float, float]], axis: str, title: str = "") -> None:
    """Save points with horizontal bars, a row each, from the top down.

    Args:
        rows: {label: (mean, half the length of the bar)}.
        axis: label of the axis.
    """
    figure = Figure(figsize=(7, 0.8 + 0.28 * len(rows)))
    plot = figure.add_subplot(xlabel=axis, title=title)
    means, deviations = zip(*rows.values(), strict=True)
    plot.errorbar(means, range(len(rows)), xerr=deviations, fmt="o", markersize=4, capsize=3)
    plot.set_yticks(range(len(rows)), list(rows), fontsize=8)
    plot.invert_yaxis()
    plot.grid(alpha=0.3)
    save(figure, path)


def boxes(path: Path, values: Mapping[str, Tensor], axes: tuple[str, str], names: Sequence[int | str]) -> None:
    """Save box plots of the columns of each (N, D); whiskers reach from the 5th to the 95th percentile.

    Args:
        values: {title of a panel: (N, D)}.
        axes: labels of the columns and of the values.
        names: D names of the columns.
    """
    figure = Figure(figsize=(6, 2.4 * len(values)))
    for axis, (title, x) in zip(figure.subplots(len(values), 1, squeeze=False).flat, values.items(), strict=True):
        axis.boxplot(x.numpy(), whis=(5, 95), showfliers=False)
        axis.set_xticks(range(1, x.shape[1] + 1), names)
        axis.set_title(title, fontsize=9)
        axis.set_xlabel(axes[0], fontsize=8)
        axis.set_ylabel(axes[1], fontsize=8)
        axis.tick_params(labelsize=7)
    figure.tight_layout()
    save(figure, path)


def scatter(path: Path, panels: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Save points in the plane.

    Args:
        panels: {title of a panel: {label: points (N, 2)}}.
    """
    figure = Figure(figsize=(6 * len(panels), 5.5))
    for axis, (title, groups) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels.items(), strict=True):
        for i, (label, points) in enumerate(groups.items()):
            axis.scatter(*points.T, s=3, color=f"C{i}", label=label, linewidths=0)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        axis.legend(fontsize=8, markerscale=4, loc="center left", bbox_to_anchor=(1, 0.5))
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Save a figure as PNG; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, dpi=120, bbox_inches="tight")
    write_atomically(path, content.getbuffer())


def beside(given: Tensor, images: Tensor) -> Tensor:
    """Put each row's given image, then an empty cell, then its images: (R, ...), (R, C, ...) -> (R, 2 + C, ...)."""
    empty = torch.full_like(given, torch.nan)
    return torch.cat([torch.stack([given, empty], dim=1), images], dim=1)
