"""Maps of latents in the plane."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from common.errors import InputError
from common.models import MultimodalVAE
from common.reporting import plots

EMBEDDED = 1000  # draws of each distribution that UMAP gets
NEIGHBOURS = 40  # authors' code


@torch.no_grad()
def latents(
    path: Path, model: MultimodalVAE, z: Mapping[str, tuple[Tensor, Tensor]], title: str, classes: Mapping[str, int]
) -> None:
    """Save a map of draws of the prior and of each q(z|x_m), coloured by where they are from and by class (UMAP).

    Args:
        z: {modality: (draws of q(z|x_m) (N, D), classes of the examples (N,))}; the first thousand are drawn.
        title: what the classes are.
        classes: those that the map shows, by name.

    Raises:
        InputError: umap-learn is not installed.
    """
    try:
        from umap import UMAP  # slow to import
    except ImportError as error:
        raise InputError("umap.png needs umap-learn: pip install umap-learn, or --no-umap") from error

    drawn = {"prior": model.prior().sample((min(EMBEDDED, *(len(of) for of, _ in z.values())),))}
    drawn |= {f"q(z|{name})": of[:EMBEDDED] for name, (of, _) in z.items()}
    threads = torch.get_num_threads()
    points = UMAP(n_neighbors=NEIGHBOURS, random_state=0, n_jobs=1).fit_transform(torch.cat([*drawn.values()]).cpu())
    torch.set_num_threads(threads)  # numba, which UMAP runs on, changes OpenMP's number of them for all
    points = torch.from_numpy(points)
    sources = torch.cat([torch.full((len(x),), i) for i, x in enumerate(drawn.values())])
    labels = torch.cat([of[:EMBEDDED] for _, of in z.values()]).cpu()
    of_data = points[sources > 0]
    plots.scatter(
        path,
        {
            "draws": {name: points[sources == i] for i, name in enumerate(drawn)},
            title: {name: of_data[labels == c] for name, c in classes.items()},
        },
    )
