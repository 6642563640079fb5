"""Characters as examples in groups, for training and for bounds."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Generator

from vhe.data import Characters
from vhe.styles import STYLES, drawn
from vhe.support_sets import SupportSets, Transform


def support_sets(
    characters: Characters,
    latents: Sequence[str],
    k_shot: int,
    rotations: bool = False,
    generator: Generator | None = None,
) -> SupportSets:
    """The images with support sets for the latent variables of a model; if s is one of them, each image in all styles.

    Args:
        latents: some of a, c, s, z.
        k_shot: images in a support set of all variables but z, whose is the image itself.
        rotations: whether characters turned by 90, 180 and 270 degrees are characters too.
    """
    n = len(characters.images)
    labels = {"a": characters.alphabet, "c": characters.character, "s": torch.zeros(n), "z": range(n)}
    styled, transforms = "s" in latents, []
    if rotations:
        transforms.append(Transform(partial(torch.rot90, dims=(2, 3)), range(4), ["s"] if styled else []))
    if styled:
        transforms.append(Transform(drawn, STYLES, ["c"]))
    shots = {v: 1 if v == "z" else k_shot for v in latents}
    return SupportSets(characters.images, {v: labels[v] for v in latents}, shots, transforms, generator=generator)
