"""Sample a model of six views of a face: from the prior, or given one view.

    python sample.py trained_models                                                 16 faces from the prior, six views
    python sample.py trained_models --mixture 10 --data-dir data                    from ten Gaussians fitted to latents
    python sample.py trained_models --condition-file FILE --condition-type edge     six views of a face, given its edges
    python sample.py trained_models --reconstruct                                   test images: all six from each view

FILE for image, gray, obscured and watermark is a photograph, from which the view is made; for edge and mask it is a
picture as setup.py writes it. The face should be framed as in CelebA's aligned images.

Writes prior.png, mixture_10.png, given_edge_FILE.png or reconstructions.png, named by what was asked, into the model's
samples/: a row for each face, a column for each view.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from celeba.options import FaceOptions
from common.checkpoints import load_model
from common.data import Batch, Examples
from common.data.image_caches import Kind, decode
from common.errors import require
from common.models import MultimodalVAE
from reports import generated, options, plots
from training import devices, run_from_command_line
from vision.data import DERIVED, load
from vision.model import CHANNELS

VIEWS = tuple(CHANNELS)
N_SAMPLES, N_RECONSTRUCTED = 16, 3  # by default; a reconstructed face has up to seven rows
View = Literal["image", "gray", "edge", "mask", "obscured", "watermark"]


@dataclass
class Config(FaceOptions, options.PriorSamplesConfig):
    CONDITIONS: ClassVar = ("condition_file", "reconstruct")

    n_samples: int | None = None
    """faces to generate. With --condition-file the first is the reconstruction, and the others are samples of
    q(z|picture). Default: 16, with --reconstruct 3"""
    condition_file: Path | None = None
    """path of a picture of a face"""
    condition_type: View | None = None
    """view that the picture shows. Default: image"""
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
    require(
        not config.reconstruct or config.condition_file is None,
        "--reconstruct takes no --condition-file: leave one out",
    )
    require(
        config.condition_file is not None or config.condition_type is None,
        f"--condition-type {config.condition_type} needs a picture: add --condition-file FILE, or leave it out",
    )
    model = load_model(config.model, "vision").to(devices.select(config.cuda))
    torch.manual_seed(config.seed)
    view = config.condition_type or "image"
    names = {view: config.condition_file.name} if config.condition_file else {}
    name = "reconstructions" if config.reconstruct else config.sample_name(**names)
    picture = config.samples_dir / f"{name}.png"
    with torch.no_grad():
        if config.reconstruct:
            reconstructions(model, load("test", config).take(slice(config.n_samples)), picture)
        elif config.condition_file:
            conditional(model, given(config.condition_file, view), config.n_samples, picture)
        else:
            latents = config.latents(model, lambda: load("train", config))
            prior(model, config.n_samples, picture, latents)
    print(picture)


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
    views = _in_a_row(model.generate(n, latents))
    plots.image_grid(path, views, captions=[list(VIEWS)] * n, title=generated.title_of(latents))


def conditional(model: MultimodalVAE, inputs: dict[str, Tensor], n: int, path: Path) -> None:
    """Save a given view beside all views of its reconstruction, and below them those of n - 1 draws of q(z|view).

    Args:
        inputs: one view (1, C, 64, 64) in [0, 1] by its name.
    """
    ((view, x),) = inputs.items()
    q = model.posterior({view: x.to(model.device)})
    draws = q.sample((n - 1,)) if n > 1 else []  # torch refuses to draw 0 components of a mixture
    z = torch.cat([model.variational_posterior.point(q), *draws])  # (n, D)
    images = _in_a_row(model.likelihood.point(model.decode(z)))
    first = torch.full_like(images[:, 0], torch.nan)
    first[0] = x.expand(-1, 3, -1, -1)[0]
    captions = [["given" if i == 0 else "", "", *VIEWS] for i in range(n)]
    labels = ["reconstruction", *[f"draw {i}" for i in range(1, n)]]
    title = f"all views, given the view {view}"
    plots.image_grid(path, plots.beside(first, images), labels, captions, title)


def reconstructions(model: MultimodalVAE, examples: Examples, path: Path) -> None:
    """Save all views of the examples, and below each face all views reconstructed from each view that it has."""
    batch = examples.to(model.device)[:]
    rows, labels, captions = [], [], []
    for i in range(len(batch)):
        face = batch[slice(i, i + 1)]
        present = [view for m, view in enumerate(VIEWS) if face.mask is None or face.mask[0, m]]
        shown = {view: x if view in present else torch.full_like(x, torch.nan) for view, x in face.modalities.items()}
        rows.append(_in_a_row(shown))
        labels.append("a face")
        captions += [list(VIEWS)] + [[""] * len(VIEWS)] * len(present)
        for view in present:
            rows.append(_in_a_row(model.reconstruct(Batch(face.modalities, face.mask), (view,))))
            labels.append(f"given {view}")
    plots.image_grid(path, torch.cat(rows), labels, captions, "all views, given one of them")


def draw(model: MultimodalVAE, folder: Path, train: Examples, valid: Examples | None) -> None:
    """Save the pictures of a training run: samples from the prior, and reconstructions."""
    prior(model, N_SAMPLES, folder / "prior.png")
    reconstructions(model, (valid or train).take(slice(2)), folder / "reconstructions.png")


def _in_a_row(views: dict[str, Tensor]) -> Tensor:
    """Stack views (N, 1 or 3, 64, 64) to (N, 6, 3, 64, 64)."""
    return torch.stack([views[name].expand(-1, 3, -1, -1) for name in VIEWS], dim=1)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
