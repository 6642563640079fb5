"""Pairs of birds and captions: those of test images, and those that a model makes."""

from collections.abc import Iterable, Mapping
from functools import partial

from common.data import Examples
from common.execution import processes
from common.models import MultimodalVAE
from cub.data import Birds
from cub.demo import CAPTIONS

import torch
from torch import Tensor
from torch.distributions import Distribution

BATCH_SIZE = 200  # captions


def compared(source: str, latents: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Which images and which captions each figure compares: {name: keys of what `generate` returns}."""
    crossed = {f"{source} -> caption": ("given", "decoded"), f"caption -> {source}": ("decoded", "given")}
    joint = {"joint" if name == "prior" else f"joint, z from {name}": (name, name) for name in latents}
    return {"ground truth": ("given", "given")} | crossed | joint


@torch.no_grad()
def generate(
    model: MultimodalVAE, birds: Birds, n: int, latents: Mapping[str, Distribution | None]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a model makes of birds, and of n draws of z.

    Args:
        latents: what to draw z from, None for the prior.

    Returns:
        images: {"given": test images (N, ...), "decoded": from their captions (10 N, ...), and each name of latents:
        (n, ...)}, uint8 for images, float for features; and captions under the same keys: (10 N, 32), (10 N, 32) and
        (n, 32).
    """
    source, device = model.modalities[0], model.device
    given = {name: birds.examples.modalities[name] for name in model.modalities}
    shown = Examples({source: given[source]})

    def describe(rows: Tensor) -> dict[str, Tensor]:
        z = model.posterior({source: shown[rows].modalities[source].to(device)}).sample((CAPTIONS,))  # (10, B, D)
        ids = model.decode(z.transpose(0, 1).flatten(0, 1), ["caption"])["caption"].mode  # (10 B, 32)
        return {"caption": ids.unflatten(0, (-1, CAPTIONS))}

    def picture(rows: Tensor) -> dict[str, Tensor]:
        z = model.posterior({"caption": given["caption"][rows].to(device)}).sample()
        return {source: as_data(model.decode(z, [source])[source].mean)}

    def pair(drawn_from: Distribution | None, rows: Tensor) -> dict[str, Tensor]:
        values = model.generate(len(rows), drawn_from)
        return {source: as_data(values[source]), "caption": values["caption"]}

    decoded = processes.map_rows(len(shown), BATCH_SIZE // CAPTIONS, describe, f"{source} -> caption")
    decoded["caption"] = decoded["caption"].flatten(0, 1)  # (10 N, 32)
    decoded |= processes.map_rows(len(given["caption"]), BATCH_SIZE, picture, f"caption -> {source}")
    made = {"given": given, "decoded": decoded}
    for name, drawn_from in latents.items():
        made[name] = processes.map_rows(n, BATCH_SIZE, partial(pair, drawn_from), f"joint, {name}", " draws")
    return tuple({name: values[which] for name, values in made.items()} for which in (source, "caption"))


def as_data(x: Tensor) -> Tensor:
    """Images (N, 3, 64, 64) as real ones are held, uint8; features (N, 2048) as they are."""
    return (x.cpu() * 255).round().byte() if x.dim() == 4 else x.cpu()
