"""Maps of latents in the plane, by UMAP (McInnes et al. 2018)."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from common import distributed
from common.errors import install, require
from common.models import MultimodalVAE
from reports import plots

MAX_DRAWS = 1000  # of each distribution on a map
MIN_DRAWS = 4  # of all distributions; UMAP fails with fewer
NEIGHBOURS = 40  # as in the MMVAE authors' code


def require_installed() -> None:
    """Raise InputError unless umap-learn is installed: call it before an analysis that takes minutes."""
    require(find_spec("umap") is not None, f"umap.png needs umap-learn: give --no-umap, {install('umap-learn')}")


@torch.no_grad()
def latents(path: Path, model: MultimodalVAE, z: Mapping[str, Tensor], groups: Mapping[str, Tensor]) -> None:
    """Save maps of draws of the prior and of each q(z|x_s): coloured by distribution, and by group if there are any.

    Args:
        z: {source: draws of q(z|x_s) for N examples (N, D)}; the maps show the first thousand.
        groups: {name: whether an example belongs to it, (N,) bool}.

    Raises:
        InputError: umap-learn is not installed, or there are too few draws.
    """
    require_installed()
    n = min(MAX_DRAWS, *(len(draws) for draws in z.values()))
    sources = {"prior": model.prior().sample((n,))} | {f"q(z|{name})": draws[:n] for name, draws in z.items()}
    draws = torch.cat([*sources.values()]).cpu()
    too_few = f"{path.name} needs at least {MIN_DRAWS} draws, not {len(draws)}: a larger --limit, or --no-umap"
    require(len(draws) >= MIN_DRAWS, too_few)
    distributed.print_once(f"drawing {path.name} takes about half a minute")
    from umap import UMAP  # slow to import

    threads = torch.get_num_threads()
    neighbours = min(NEIGHBOURS, len(draws) - 1)
    points = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(draws)
    torch.set_num_threads(threads)  # numba, which UMAP runs on, changes OpenMP's number of threads for all
    points = torch.from_numpy(points)
    by_source = dict(zip(sources, points.split(n), strict=True))
    by_group = {name: points[n:][member[:n].cpu().repeat(len(z))] for name, member in groups.items()}
    plots.scatter(path, {"draws": by_source} | ({"examples": by_group} if groups else {}))
