"""Pictures of what a model generates: across modalities, and along each latent."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, MixtureSameFamily
from torch.nn.functional import pad

from common.data.batches import Examples
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from reports import plots

STEPS = 9  # pictures along a latent
MAX_LATENTS = 20  # latents of a traversal
SHORT = 12  # characters of a caption that fits below a small image


class Shown(NamedTuple):
    """How pictures show values.

    images: names of the modalities that are images (N, C, H, W) in [0, 1].
    captions: {modality: values (N, ...)} -> N texts that tell the other modalities; None for no captions.
    """

    images: tuple[str, ...]
    captions: Callable[[Mapping[str, Tensor]], Sequence[str]] | None = None

    def rows(self, values: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, list[str]]]:
        """{image modality: (its images (N, 3, H, W), captions)} of those among the values; all of one size."""
        texts = list(self.captions(values)) if self.captions else []
        images = {name: values[name].float() for name in self.images if name in values}
        return {name: (x, texts or [""] * len(x)) for name, x in framed(images).items()}


def framed(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Images (N, C, H, W) by name, each padded to the height and the width of the largest: (N, 3, H, W)."""
    height, width = (max((x.shape[d] for x in images.values()), default=0) for d in (-2, -1))
    padded = {}
    for name, x in images.items():
        down, right = height - x.shape[-2], width - x.shape[-1]
        padded[name] = pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)).expand(-1, 3, -1, -1)
    return padded


def samples(
    path: Path,
    model: MultimodalVAE,
    n: int,
    columns: int,
    latents: Distribution | None = None,
    shown: Shown | None = None,
) -> None:
    """Save images decoded from n draws of the prior, or of another distribution of z.

    Args:
        shown: which modalities are images, and the captions of the others; by default all are images.
    """
    values = model.generate(n, latents)
    _in_rows(path, shown.rows(values) if shown else _without_captions(values), columns, title_of(latents))


def title_of(latents: Distribution | Tensor | None) -> str:
    """The title of samples from the prior, from a mixture of Gaussians or its draws, or from a cluster of the prior."""
    if latents is None:
        return "samples from the prior"
    of_mixture = isinstance(latents, Tensor | MixtureSameFamily)
    return f"samples from {'a mixture of Gaussians' if of_mixture else 'a cluster of the prior'}"


@torch.no_grad()
def decoded(path: Path, model: MultimodalVAE, examples: Examples, given: Sequence[str], columns: int) -> None:
    """Save given images, and below them all modalities decoded from one draw of q(z|x_given); all must be images."""
    batch = examples.only(model.modalities).to(model.device)[:]
    means = {name: p.mean for name, p in model.decode(model.posterior(batch, given).sample()).items()}
    title = f"decoded from a sample of q(z|{','.join(given)})"
    images = {f"{name}, given": batch.modalities[name] for name in given} | means
    _in_rows(path, _without_captions(images), columns, title)


def _without_captions(images: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, list[str]]]:
    """Rows as `Shown.rows` gives them, of values that all are images; raises InputError for others."""
    others = {name: tuple(x.shape) for name, x in images.items() if x.dim() != 4 or x.shape[1] not in (1, 3)}
    remedy = "give samples a Shown, which names the images; in place of decoded take cross_generation"
    require(not others, f"pictures show images (N, 1 or 3, H, W), which these are not: {others}; {remedy}")
    return {name: (x, [""] * len(x)) for name, x in framed(images).items()}


def _in_rows(path: Path, rows: Mapping[str, tuple[Tensor, list[str]]], columns: int, title: str) -> None:
    """Save N images of each name in rows; those of one draw stand above each other."""
    images, labels, captions = plots.alternating(rows, columns)
    captioned = any(text for row in captions for text in row)
    plots.image_grid(path, images, labels, captions if captioned else None, title)


@torch.no_grad()
def cross_generation(
    path: Path, model: MultimodalVAE, examples: Examples, sources: Mapping[str, Sequence[str]], shown: Shown
) -> None:
    """Save a matrix of pictures: examples, and below them what one z of q(z|x_source) gives, a row for each pair.

    Args:
        examples: N examples of the model's modalities, a column each.
        sources: {name: modalities given}.
    """
    batch = examples.to(model.device)[:]
    rows = [(f"{name}, given", *row) for name, row in shown.rows(batch.modalities).items()]
    for source, given in sources.items():
        targets = [name for name in model.modelled if set(model.modality[name].given) <= set(given)]
        z = model.posterior(batch, given).sample()
        decoded = model.likelihood.point(model.decode(z, targets, batch.modalities))
        rows += [(f"{source} -> {name}", *row) for name, row in shown.rows(decoded).items()]
    labels, images, captions = zip(*rows, strict=True)
    images = torch.stack([x.cpu() for x in images])
    title = "given, and decoded from one z"
    if any(len(caption) > SHORT for row in captions for caption in row):
        plots.captioned(path, images, captions, labels, title)
    else:
        plots.image_grid(path, images, labels, captions if shown.captions else None, title)


@torch.no_grad()
def traversals(stem: Path, model: MultimodalVAE, shown: Shown, latents: Sequence[int] | None = None) -> list[Path]:
    """Save decodings along latents, one per row, from -3 to 3 standard deviations of the prior; returns the files.

    Captions that do not fit below an image are left out.

    Args:
        stem: the files are `stem`_MODALITY.png.
        latents: which latents, by default the first `MAX_LATENTS`.
    """
    prior = model.prior()
    chosen = torch.as_tensor(range(len(prior.mean)) if latents is None else latents, device=prior.mean.device)
    chosen = chosen[:MAX_LATENTS]
    steps = torch.linspace(-3, 3, STEPS, device=prior.mean.device)
    one = torch.eye(len(prior.mean), device=prior.mean.device)[chosen] * prior.stddev
    z = prior.mean + steps[:, None] * one[:, None]  # (latents, STEPS, D)
    targets = [name for name in model.modelled if not model.modality[name].given]
    decoded = model.likelihood.point(model.decode(z.flatten(0, 1), targets))
    pictures = []
    for name, (images, captions) in shown.rows(decoded).items():
        pictures.append(stem.with_name(f"{stem.name}_{name}.png"))
        is_short = shown.captions and all(len(caption) <= SHORT for caption in captions)
        captions = [captions[i : i + STEPS] for i in range(0, len(captions), STEPS)] if is_short else None
        labels = [f"z{d}" for d in chosen.tolist()]
        plots.image_grid(
            pictures[-1],
            images.unflatten(0, (-1, STEPS)),
            labels,
            captions,
            f"{name} along each latent, -3 to 3 standard deviations of the prior",
        )
    return pictures
