"""Pictures, drawn on figures without pyplot: no window, no global state."""

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Literal, NamedTuple

from common.io import write_atomically

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor
from torch.nn.functional import pad

DPI = 120
MAX_WIDTH, MAX_HEIGHT = 15.5, 8.8  # inches: with the margin, what a screen of 1,900 x 1,100 pixels shows
MARGIN = 0.15  # inches around a figure, which may lie on a dark page
CELL = 0.7  # height of an image, inches
FRAME = 0.8  # grey of the line around an image, which shows where a white one ends
TITLE, GAP, LETTER = 0.35, 0.25, 0.075  # height of a title, space between blocks, width of a label's letter, inches
SHARP = 2.5  # dots for each pixel of an image, from which its pixels are drawn with sharp edges
PORTRAIT = 1.6  # width and height of an image with a caption below, inches
CAPTION_WIDTH = 38  # characters a line


def plain(x: float, position: int | None) -> str:
    """The text of a tick, such as 300 or 0.001, also where an axis is logarithmic."""
    return f"{round(x, 10) + 0.0:,.10f}".rstrip("0").rstrip(".")  # 0 is added for -0.0


class Layout(NamedTuple):
    """How the rows of a grid are spread over blocks side by side, so that a picture fits a screen.

    blocks: the rows of each block.
    size: width and height of a block, inches.
    scale: what the images are scaled by, at most 1.
    """

    blocks: list[range]
    size: tuple[float, float]
    scale: float


def layout(rows: int, width: float, height: float, row_labels: Sequence[str] | None) -> Layout:
    """Choose the blocks for which the images can be largest, the fewest if several do.

    Rows stay together from one that has the first row's label up to the next one.

    Args:
        rows: number of rows.
        width, height: of a row of images, inches.
    """
    labels = list(row_labels or [""] * rows)
    repeats = labels.count(labels[0]) > 1
    starts = [r for r in range(rows) if not repeats or labels[r] == labels[0]]
    beside = LETTER * max(map(len, labels)) + GAP
    candidates = []
    for n in range(1, len(starts) + 1):
        blocks = [range(a, b) for a, b in pairwise([*starts[:: -(-len(starts) // n)], rows])]
        longest = max(map(len, blocks))
        across, down = MAX_WIDTH / len(blocks) - beside, (MAX_HEIGHT - TITLE) / longest
        scale = min(1, across / width, down / height)
        candidates.append(Layout(blocks, (beside + scale * width, scale * height * longest), scale))
    return max(candidates, key=lambda candidate: candidate.scale)


def image_grid(
    path: Path,
    images: Tensor,
    row_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str = "",
) -> None:
    """Save a grid of images; all images of a block are drawn as one, which is much faster than an axis for each.

    Rows that do not fit a screen below each other stand side by side, see `layout`.

    Args:
        images: (R, C, channels, H, W) in [0, 1]; a NaN image leaves its cell empty.
        row_labels: R labels at the left.
        captions: R rows of C captions under the images.
    """
    is_empty = images.isnan().flatten(2).all(dim=2)
    images = pad(images.expand(-1, -1, 3, -1, -1), (1, 1, 1, 1), value=FRAME)
    images[is_empty] = torch.nan
    rows, columns, _, h, w = images.shape
    down, right = h + h // 14 + (h // 3 if captions else 0), w + w // 14  # pixels from one cell to the next
    cells = images.detach().cpu().nan_to_num(1.0).clamp(0, 1)
    cells = pad(cells, (0, right - w, 0, down - h), value=1.0)  # (R, C, 3, down, right)
    inch = CELL / h
    plan = layout(rows, columns * right * inch, down * inch, row_labels)
    inch *= plan.scale
    width, height = plan.size[0] * len(plan.blocks), plan.size[1] + TITLE
    figure = Figure(figsize=(width, height))
    figure.text(0.5, 1 - 0.5 * TITLE / height, fill(title, 100), ha="center", va="center", fontsize=10)
    for b, block in enumerate(plan.blocks):
        x, y = (b + 1) * plan.size[0] - columns * right * inch, plan.size[1] - len(block) * down * inch  # inches
        box = (x / width, y / height, columns * right * inch / width, len(block) * down * inch / height)
        axis = figure.add_axes(box)
        canvas = cells[block.start : block.stop].permute(0, 3, 1, 4, 2).reshape(-1, columns * right, 3)
        font = max(5, 7 * plan.scale)
        smooth = inch * DPI < SHARP  # fewer dots a pixel cannot show all pixels alike
        axis.imshow(canvas.numpy(), interpolation="antialiased" if smooth else "nearest", aspect="auto")
        axis.set_axis_off()
        for i, r in enumerate(block):
            if row_labels:
                axis.text(-w // 4, i * down + h // 2, row_labels[r], ha="right", va="center", fontsize=9)
            for c in range(columns if captions else 0):
                axis.text(c * right + w // 2, i * down + h, captions[r][c], ha="center", va="top", fontsize=font)
    save(figure, path)


def captioned(
    path: Path,
    images: Tensor,
    row_labels: Sequence[str] | None,
    captions: Sequence[Sequence[str]],
    title: str = "",
) -> None:
    """Save a grid of images with a sentence below each, as wide as a screen at most; see `image_grid`."""
    rows, columns = images.shape[:2]
    room = MAX_WIDTH - LETTER * max(map(len, row_labels or [""]))
    portrait = min(PORTRAIT, room / (1.05 * columns))
    wrapped = [[fill(caption, int(CAPTION_WIDTH * portrait / PORTRAIT)) for caption in row] for row in captions]
    beneath = 0.09 * max(caption.count("\n") + 2 for row in wrapped for caption in row)  # inches
    figure = Figure(figsize=(1.05 * portrait * columns, (portrait + beneath) * rows))
    spaces = {"hspace": beneath / portrait, "wspace": 0.1, "left": 0, "right": 1, "top": 1, "bottom": 0}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=spaces)
    cells = images.detach().cpu().nan_to_num(1.0).clamp(0, 1).movedim(2, -1)
    for r in range(rows):
        for axis, cell, caption in zip(axes[r], cells[r], wrapped[r], strict=True):
            axis.imshow(cell.numpy())
            axis.set_axis_off()
            axis.text(0.5, -0.03, caption, ha="center", va="top", fontsize=6, transform=axis.transAxes)
        if row_labels:
            place = {"ha": "right", "va": "center", "transform": axes[r, 0].transAxes}
            axes[r, 0].text(-0.05, 0.5, row_labels[r], fontsize=9, **place)
    figure.suptitle(title, fontsize=10, y=1 + 0.3 / figure.get_figheight())
    save(figure, path)


def visible(texts: Sequence[str]) -> list[str]:
    """Labels for texts; "(none)" for empty ones."""
    return [text or "(none)" for text in texts]


def in_rows(images: Tensor, captions: Sequence[str], columns: int) -> tuple[Tensor, list[list[str]]]:
    """Arrange images (N, channels, H, W) and their captions in rows of `columns`; blanks fill up the last row."""
    blanks = -len(images) % columns
    images = torch.cat([images, torch.full_like(images[:1], torch.nan).expand(blanks, -1, -1, -1)])
    captions = [*captions, *[""] * blanks]
    return images.unflatten(0, (-1, columns)), [captions[i : i + columns] for i in range(0, len(captions), columns)]


def alternating(
    sets: Mapping[str, tuple[Tensor, Sequence[str]]], columns: int
) -> tuple[Tensor, list[str], list[list[str]]]:
    """Arrange sets of images in rows of `columns`: the first row of each set below each other, then the second ones.

    Args:
        sets: {label: images (N, channels, H, W) and their captions}.

    Returns:
        images (R, columns, channels, H, W), the labels of the R rows, and their captions.
    """
    rows = [in_rows(images, captions, columns) for images, captions in sets.values()]
    images = torch.stack([images for images, _ in rows], dim=1)
    captions = [row for turn in zip(*(captions for _, captions in rows), strict=True) for row in turn]
    return images.flatten(0, 1), list(sets) * len(images), captions


def beside(given: Tensor, images: Tensor, captions: Sequence[Sequence[str]]) -> tuple[Tensor, list[list[str]]]:
    """Put given images, and an empty column, at the left of the first rows of a grid; add rows if there are too few.

    Args:
        given: (k, channels, H, W).
        images: (R, C, channels, H, W).
        captions: R rows of C captions.

    Returns:
        images (max(R, k), 2 + C, channels, H, W), and their captions.
    """
    added = max(0, len(given) - len(images))
    blank = torch.full_like(images[:1], torch.nan)
    images = torch.cat([images, blank.expand(added, *blank.shape[1:])])
    left = torch.full_like(images[:, :1], torch.nan).repeat(1, 2, 1, 1, 1)
    left[: len(given), 0] = given.to(left)
    captions = [*captions, *[[""] * images.shape[1]] * added]
    return torch.cat([left, images], dim=1), [["" if r else "given", "", *row] for r, row in enumerate(captions)]


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
        n_characters = 3 * math.log10(max(x) / min(x)) * len(f"{max(x):,.0f} ")
        logarithmic(axis, "x", (1, 2, 5) if n_characters < 70 else (1,))  # longer labels would run into each other
    axis.yaxis.set_major_formatter(plain)
    if log:
        logarithmic(axis, "y")
    for label, points in curves.items():
        mean, deviation = zip(*points, strict=True)
        axis.errorbar(x, mean, deviation, label=label, marker="o", markersize=3, capsize=3, linewidth=1)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save(figure, path)


def logarithmic(axis: Axes, which: Literal["x", "y"], ticks: Sequence[int] = (1, 2, 5)) -> None:
    """Make an axis logarithmic, with ticks at 1, 2, 5, 10, ... or others of each decade, that are written in full."""
    axis.set(**{f"{which}scale": "log"})
    ruler = axis.xaxis if which == "x" else axis.yaxis
    ruler.set_major_locator(LogLocator(subs=ticks))
    ruler.set_major_formatter(plain)
    ruler.set_minor_formatter(NullFormatter())
    axis.tick_params(axis=which, labelsize=8)  # 10,000 beside 20,000


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
        axis.yaxis.set_major_formatter(plain)
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
    """Save a figure as PNG, on white with a margin all round; creates the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, dpi=DPI, bbox_inches="tight", pad_inches=MARGIN, facecolor="white")
    write_atomically(path, content.getbuffer())
