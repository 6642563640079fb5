"""Sample a model of six views of a face: from the prior, or given one view.

    python sample.py trained_models                                                 16 faces from the prior, six views
    python sample.py trained_models --mixture 10 --data-dir data                    from ten Gaussians fitted to latents
    python sample.py trained_models --condition-file FILE --condition-type edge     six views of a face, given its edges
    python sample.py trained_models --reconstruct                                   test images: all six from each view

FILE for image, gray, obscured and watermark is a photograph, from which the view is made; for edge and mask it is a
picture as setup.py writes it. The face should be framed as in CelebA's aligned images.

Writes prior.png, mixture_10.png, given_edge_FILE.png or reconstructions.png, named by what was asked, into the model's
samples/: a row for each face, a column for each view. Given a file, each view is also a picture of its own, such as
given_edge_FILE_mask.png.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from celeba.options import FaceOptions
from common.data import Examples
from common.data.image_caches import Kind, decode
from common.errors import require
from common.models import MultimodalVAE
from reports import options, plots, sampling
from training import run_from_command_line
from vision.data import DERIVED, load
from vision.model import CHANNELS

import torch
from torch import Tensor
from torch.distributions import Distribution

VIEWS = tuple(CHANNELS)
N_SAMPLES, N_RECONSTRUCTED = 16, 3  # by default; a reconstructed face has up to seven rows
COLUMNS = 4  # of a view's own picture
View = Literal["image", "gray", "edge", "mask", "obscured", "watermark"]


@dataclass
class Config(FaceOptions, options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("condition_file", "reconstruct")

    n_samples: int | None = None
    """faces to generate.
    With --condition-file the first is the reconstruction, and the others are samples of q(z|picture).
    None: 16, with --reconstruct 3"""
    condition_file: Path | None = None
    """path of a picture of a face"""
    condition_type: View | None = None
    """view that the picture shows. None: image"""
    reconstruct: bool = False
    """reconstruct the first test images from each view instead"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples is None:
            self.n_samples = N_RECONSTRUCTED if self.reconstruct else N_SAMPLES


def main(config: Config) -> None:
    """Save a picture and print its path.

    Raises:
        InputError: the options exclude each other, or --condition-file is not a readable image.
    """
    config.check()
    file, view = config.condition_file, config.condition_type
    require(not config.reconstruct or file is None, "--reconstruct takes no --condition-file: leave one out")
    require(
        file is not None or view is None,
        f"--condition-type {view} needs a picture: add --condition-file FILE, or leave it out",
    )
    model = config.trained_model("vision")
    torch.manual_seed(config.seed)
    view = view or "image"
    path = config.path({view: file.name} if file else {})
    if config.reconstruct:
        path = path.with_name("reconstructions.png")
        reconstructions(model, load("test", config).take(slice(config.n_samples)), path)
    elif file:
        conditional(model, given(file, view), config.n_samples, path)
    else:
        latents = config.latents(model, lambda: load("train", config))
        prior(model, config.n_samples, path, latents)
    print(path)


def given(path: Path, view: View) -> dict[str, Tensor]:
    """Return the view (1, C, 64, 64) in [0, 1] that a file gives, as {view: ...}.

    Raises:
        InputError: the file is missing or not a readable image.
    """
    source, make = DERIVED.get(view, (view, lambda x: x))
    kind = Kind("RGB" if CHANNELS[source] == 3 else "L", inverted=view == "mask")
    return {view: make(torch.from_numpy(decode(path, kind) / 255).float()[None])}


def prior(model: MultimodalVAE, n: int, path: Path, latents: Distribution | None = None) -> None:
    """Save all views of n draws from the prior, or from another distribution of z."""
    title = sampling.title_of(latents)
    plots.image_grid(path, in_a_row(model.generate(n, latents)), captions=[VIEWS] * n, title=title)


@torch.no_grad()
def conditional(model: MultimodalVAE, inputs: dict[str, Tensor], n: int, path: Path) -> None:
    """Save a given view beside all views of its reconstruction, and below them those of n - 1 draws of q(z|view).

    Each view also gets a picture of its own, with its name at the end.

    Args:
        inputs: one view (1, C, 64, 64) in [0, 1] by its name.
    """
    ((view, x),) = inputs.items()
    q = model.posterior({view: x.to(model.device)})
    draws = q.sample((n - 1,)) if n > 1 else []  # torch refuses to draw 0 components of a mixture
    z = torch.cat([q.point, *draws])  # (n, D)
    views = model.likelihood.point(model.decode(z))
    images, captions = plots.beside(x, in_a_row(views), [VIEWS] * n)
    labels = ["reconstruction", *[f"draw {i}" for i in range(1, n)]]
    plots.image_grid(path, images, labels, captions, f"all views, given the view {view}")
    for name, decoded in views.items():
        images, captions = plots.in_rows(decoded, labels, COLUMNS)
        plots.image_grid(
            path.with_stem(f"{path.stem}_{name}"), images, None, captions, f"{name}, given the view {view}"
        )


def reconstructions(model: MultimodalVAE, examples: Examples, path: Path) -> None:
    """Save all views of the examples, and below each face all views reconstructed from each view that it has."""
    batch = examples.to(model.device)[:]
    rows, labels = [], []
    for i in range(len(batch)):
        face = batch[slice(i, i + 1)]
        present = [view for m, view in enumerate(VIEWS) if face.mask is None or face.mask[0, m]]
        shown = {view: x if view in present else torch.full_like(x, torch.nan) for view, x in face.modalities.items()}
        rows += [shown, *(model.reconstruct(face, (view,)) for view in present)]
        labels += ["a face", *(f"given {view}" for view in present)]
    captions = [VIEWS if label == "a face" else [""] * len(VIEWS) for label in labels]
    plots.image_grid(path, torch.cat([in_a_row(x) for x in rows]), labels, captions, "all views, given one of them")


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the pictures of a training run: samples from the prior, and reconstructions."""
    prior(model, N_SAMPLES, folder / "prior.png")
    reconstructions(model, (valid or train).take(slice(2)), folder / "reconstructions.png")


def in_a_row(views: Mapping[str, Tensor]) -> Tensor:
    """Stack views (N, 1 or 3, 64, 64) to (N, 6, 3, 64, 64)."""
    return torch.stack([views[name].expand(-1, 3, -1, -1) for name in VIEWS], dim=1)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
