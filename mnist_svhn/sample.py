"""Pictures of a model of MNIST-SVHN."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from common import plots
from common.data import Examples
from common.models import MultimodalVAE

COLUMNS = 16


def draw(model: MultimodalVAE, folder: Path, examples: Examples) -> None:
    """The pictures that training leaves: samples of the prior, and what is decoded of either modality."""
    rows = [_framed(x) for x in model.generate(4 * COLUMNS).values()]
    images = torch.stack([x.unflatten(0, (-1, COLUMNS)) for x in rows], dim=1).flatten(0, 1)
    plots.image_grid(folder / "prior.png", images, 4 * list(model.modalities), title="samples from the prior")
    given = examples.take(slice(COLUMNS)).to(next(model.parameters()).device)[:].modalities
    for source in model.modalities:
        z = model.posterior({source: given[source]}).sample()
        decoded = {name: p.mean for name, p in model.decode(z).items()}
        images = torch.stack([_framed(x) for x in (given[source], *decoded.values())])
        labels = [f"{source}, given", *decoded]
        plots.image_grid(folder / f"from_{source}.png", images, labels, title=f"decoded of a sample of q(z|{source})")


def _framed(images: Tensor) -> Tensor:
    """Images of either modality, (N, 3, 32, 32)."""
    edge = (32 - images.shape[-1]) // 2
    return pad(images, 4 * [edge]).expand(-1, 3, -1, -1)
