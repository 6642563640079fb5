"""Characters as groups of images: their support sets, in training and in evaluation, and their styles of drawing."""

from collections.abc import Sequence
from functools import partial

from vhe.data import Characters
from vhe.framework import SupportSets, Transform

import torch
from torch import Generator, Tensor
from torch.nn.functional import max_pool2d

STYLES = ("plain", "bold", "outlined", "striped", "inverted")


def support_sets(
    characters: Characters,
    latents: Sequence[str],
    k_shot: int,
    rotations: bool = False,
    generator: Generator | None = None,
) -> SupportSets:
    """The images, with support sets for the latent variables of a model.

    Images share an a by alphabet, a c by character and an s by style; each image has its own z. With s among the latent
    variables every image is there in all STYLES.

    Args:
        latents: a subset of a, c, s and z.
        k_shot: the number of images in a support set; 1 for z, which is the image itself.
        rotations: whether a character turned by 90, 180 or 270 degrees counts as another character.
        generator: of the random draws.
    """
    n = len(characters.images)
    labels = {"a": characters.alphabet, "c": characters.character, "s": torch.zeros(n), "z": range(n)}
    styled = "s" in latents
    transforms = []
    if rotations:
        transforms.append(Transform(partial(torch.rot90, dims=(2, 3)), range(4), ["s"] if styled else []))
    if styled:
        transforms.append(Transform(in_style, STYLES, ["c"]))
    shots = {v: 1 if v == "z" else k_shot for v in latents}
    return SupportSets(characters.images, {v: labels[v] for v in latents}, shots, transforms, generator=generator)


def images_of(images: Tensor, labels: Tensor, groups: Tensor, n: int, generator: Generator | None = None) -> Tensor:
    """Draw n different images of each group, in a random order: (R, n, ...).

    Args:
        images: (N, ...).
        labels: the group of each image, (N,).
        groups: the labels to draw images of, (R,).
        n: the number of images to draw of each group.
        generator: of the random draws.

    Raises:
        InputError: any of the labels, drawn or not, has fewer than n images.
    """
    first_of_group = (labels[:, None] == groups).int().argmax(dim=0)  # (R,), the row of each group's first image
    sets = SupportSets(images, {"group": labels}, {"group": n}, generator=generator)
    return sets[first_of_group].inputs["group"]


def in_style(images: Tensor, style: str) -> Tensor:
    """Redraw images (N, 1, 28, 28), 0 or 1, in one of the STYLES."""
    if style == "plain":
        return images
    if style == "inverted":
        return 1 - images
    bold = max_pool2d(images, 3, stride=1, padding=1)
    if style == "striped":
        return bold * (torch.arange(images.shape[-1], device=images.device) % 2)
    return bold if style == "bold" else bold - images
