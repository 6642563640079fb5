"""What pictures and tables show of latents: divergences, which ones are used most, and maps of draws."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.data.batches import Examples
from common.errors import install, require
from common.multimodal_vae import MultimodalVAE
from reports import plots
from reports.metrics import divergences
from reports.tables import Estimates, Table, decimals, estimate_table

BOXES = 20  # latents in kl.png
MAX_DRAWS = 1000  # of each distribution on a map
MIN_DRAWS = 4  # of all distributions on a map; UMAP fails with fewer
NEIGHBOURS = 40  # of UMAP, as in the MMVAE authors' code
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


def require_umap() -> None:
    """Raise InputError unless umap-learn is installed: call it before an analysis that takes minutes."""
    require(find_spec("umap") is not None, f"umap.png needs umap-learn: give --no-umap, {install('umap-learn')}")


@torch.no_grad()
def latent_map(path: Path, model: MultimodalVAE, z: Mapping[str, Tensor], groups: Mapping[str, Tensor]) -> None:
    """Save maps of draws of the prior and of each q(z|x_s): coloured by distribution, and by group if there are any.

    Args:
        z: {source: draws of q(z|x_s) for N examples (N, D)}; the maps show the first thousand.
        groups: {name: whether an example belongs to it, (N,) bool}.

    Raises:
        InputError: umap-learn is not installed, or there are too few draws.
    """
    require_umap()
    n = min(MAX_DRAWS, *(len(draws) for draws in z.values()))
    sources = {"prior": model.prior().sample((n,))} | {f"q(z|{name})": draws[:n] for name, draws in z.items()}
    draws = torch.cat([*sources.values()]).cpu()
    too_few = f"{path.name} needs at least {MIN_DRAWS} draws, not {len(draws)}: a larger --limit, or --no-umap"
    require(len(draws) >= MIN_DRAWS, too_few)
    distributed.print_once(f"drawing {path.name} takes about half a minute")
    from umap import UMAP

    threads = torch.get_num_threads()
    neighbours = min(NEIGHBOURS, len(draws) - 1)
    points = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(draws)
    torch.set_num_threads(threads)  # numba, which UMAP runs on, changes OpenMP's number of threads for all
    points = torch.from_numpy(points)
    by_source = dict(zip(sources, points.split(n), strict=True))
    by_group = {name: points[n:][member[:n].cpu().repeat(len(z))] for name, member in groups.items()}
    plots.scatter(path, {"draws": by_source} | ({"examples": by_group} if groups else {}))
