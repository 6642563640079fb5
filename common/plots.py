"""Pictures. Drawn on bare figures: no window, no global state."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor


def image_grid(
    path: Path,
    images: Tensor,
    row_labels: Sequence[str] | None = None,
    captions: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
) -> None:
    """Save a grid of images.

    Args:
        images: (R, C, channels, H, W) in [0, 1]; a NaN image leaves its cell empty.
        row_labels: R labels at the left.
        captions: R rows of C captions under the images.
    """
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.8 * columns + (0.9 if row_labels else 0), rows * (1.0 if captions else 0.8)))
    axes = figure.subplots(
        rows, columns, squeeze=False, gridspec_kw={"wspace": 0.05, "hspace": 0.3 if captions else 0.05}
    )
    for r in range(rows):
        for c in range(columns):
            axis, image = axes[r, c], images[r, c].detach().cpu()
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if not image.isnan().any():
                gray = len(image) == 1
                axis.imshow(image[0] if gray else image.movedim(0, -1), cmap="gray" if gray else None, vmin=0, vmax=1)
            if captions:
                axis.set_xlabel(captions[r][c], fontsize=7, labelpad=2)
        if row_labels:
            axes[r, 0].set_ylabel(row_labels[r], rotation=0, ha="right", va="center", fontsize=9)
    if title:
        figure.suptitle(title, fontsize=10)
    save(figure, path)


def loss_curves(path: Path, metrics: Sequence[dict]) -> None:
    """Save the curves of metrics.jsonl: the bound, and each term, over epochs; train and validation."""
    terms = [name for name in metrics[0]["train"] if name != "bound"]
    figure = Figure(figsize=(14, 2.6 * (1 + len(terms) // 4)))
    axes = figure.subplots(1 + len(terms) // 4, 4, squeeze=False).flat
    epochs = [line["epoch"] for line in metrics]
    for name, axis in zip(["bound", *terms], axes, strict=False):
        for split, style in (("train", "-"), ("valid", "--")):
            if split in metrics[0]:
                axis.plot(epochs, [line[split][name] for line in metrics], style, label=split, linewidth=1)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("epoch", fontsize=8)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.tick_params(labelsize=7)
    for axis in list(axes):
        axis.set_axis_off()
    figure.axes[0].set_ylabel("nats per example", fontsize=8)
    figure.axes[0].legend(fontsize=8)
    figure.tight_layout()
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def beside(given: Tensor, images: Tensor) -> Tensor:
    """Put each row's given image before its images, an empty cell between: (R, ...), (R, C, ...) -> (R, C + 2, ...)."""
    empty = torch.full_like(given, torch.nan)
    return torch.cat([torch.stack([given, empty], dim=1), images], dim=1)
