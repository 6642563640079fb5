"""Maps of latents in the plane, by UMAP (McInnes et al. 2018)."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError
from common.models import MultimodalVAE
from common.reporting import plots

MAX_DRAWS = 1000  # of each distribution on a map
NEIGHBOURS = 40  # as in the MMVAE authors' code


@torch.no_grad()
def latents(
    path: Path, model: MultimodalVAE, z: Mapping[str, tuple[Tensor, Tensor]], title: str, classes: Mapping[str, int]
) -> None:
    """Save two maps of draws of the prior and of each q(z|x_m): coloured by distribution, and by class.

    Args:
        z: {modality: (draws of q(z|x_m) (N, D), classes of the examples (N,))}; the map shows the first thousand.
        title: title of the map by class.
        classes: {name: class} of the classes that this map shows.

    Raises:
        InputError: umap-learn is not installed.
    """
    try:
        from umap import UMAP  # slow to import
    except ImportError as error:
        raise InputError("umap.png needs umap-learn: pip install umap-learn, or --no-umap") from error

    n_prior = min(MAX_DRAWS, *(len(draws) for draws, _ in z.values()))
    sources = {"prior": model.prior().sample((n_prior,))}
    sources |= {f"q(z|{name})": draws[:MAX_DRAWS] for name, (draws, _) in z.items()}
    threads = torch.get_num_threads()
    points = UMAP(n_neighbors=NEIGHBOURS, random_state=0, n_jobs=1).fit_transform(torch.cat([*sources.values()]).cpu())
    torch.set_num_threads(threads)  # numba, which UMAP runs on, changes OpenMP's number of threads for all
    points = torch.from_numpy(points)
    by_source = dict(zip(sources, points.split([len(x) for x in sources.values()]), strict=True))
    labels = torch.cat([labels[:MAX_DRAWS] for _, labels in z.values()]).cpu()
    of_data = points[n_prior:]
    plots.scatter(
        path,
        {
            "draws": by_source,
            title: {name: of_data[labels == c] for name, c in classes.items()},
        },
    )
