"""The posteriors' divergences: a picture by latent, a table, and which latents are used most."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.data.batches import Examples
from common.multimodal_vae import MultimodalVAE
from reports import plots
from reports.metrics import divergences
from reports.tables import Estimates, Table, decimals, estimate_table

BOXES = 20  # latents in kl.png
MAX_PAIRED_SOURCES = 3  # with more sources kl.png leaves out the divergences between pairs of posteriors


def each_modality(model: MultimodalVAE) -> dict[str, Sequence[str]]:
    """The sources {name: modalities given} that are one modality each: those that have their own encoder."""
    return {name: (name,) for name in model.modalities if name in model.encoder}


def kl_plot(
    path: Path, model: MultimodalVAE, test: Examples, sources: Mapping[str, Sequence[str]]
) -> dict[str, Tensor]:
    """Save box plots of each latent's divergences, of the most used latents if there are many; return all, (N, D)."""
    if not model.variational_posterior.has_density or model.prior.is_mixture:
        print("\nno kl.png: the KLs of this model's posteriors from its prior have no closed form")
        return {}
    if model.variational_posterior.is_mixture:  # the KL of several components has no closed form
        sources = {name: given for name, given in sources.items() if len(given) == 1}
    kls = {name: kl.cpu() for name, kl in divergences(model, test, sources).items()}
    if distributed.rank() == 0:
        latents = most_used(kls, BOXES)
        drawn = {
            name: kl[~kl.isnan().any(dim=1)][:, latents]
            for name, kl in kls.items()
            if len(sources) <= MAX_PAIRED_SOURCES or name.startswith("KL")
        }
        n = next(iter(kls.values())).shape[1]
        shown = "latent" if len(latents) == n else f"latent, the {len(latents)} of {n} that are used most"
        plots.boxes(path, drawn, (shown, "nats"), latents.tolist())
    return kls


def most_used(kls: Mapping[str, Tensor], n: int) -> Tensor:
    """The n latents, or spheres, whose mean KL from the prior is largest: (n,) int64, in their order, or all."""
    used = torch.stack([kl.nanmean(dim=0) for name, kl in kls.items() if name.startswith("KL")]).amax(dim=0)
    return used.topk(min(n, len(used))).indices.sort().values


def kl_table(nats: Estimates, head: str) -> Table:
    """The table of KLs, with a note that explains J if a figure is one."""
    notes = "J: the mean of the KLs in both directions." if any(name.startswith("J(") for name in nats) else ""
    return estimate_table(nats, (head, "nats"), partial(decimals, n=2), notes)
