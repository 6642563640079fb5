"""Structural similarity of images and reconstructions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from common import distributed
from reports.encoded import Encoded
from reports.metrics import BATCH_SIZE


@torch.no_grad()
def ssim(test: Encoded, images: Sequence[str]) -> dict[str, Tensor]:
    """The structural similarity of images and their reconstructions from `Encoded.point` given X, and given x_m.

    (Wang et al. 2004, with scikit-image's defaults: windows of 7 x 7 pixels, the mean over channels.) Decoded images
    are clamped to [0, 1], as pictures show them. Examples that lack the image are left out.

    Args:
        images: the modalities that are images (B, C, H, W) in [0, 1].

    Returns:
        {"SOURCE -> TARGET": (N,), similarities in [-1, 1]}, with the source "all" for X, else the target itself.
    """
    from skimage.metrics import structural_similarity

    model = test.model
    images = [name for name in images if name in model.modalities]
    sources = {"all": (model.modalities, images)} if len(model.modalities) > 1 else {}
    sources |= {name: ((name,), [name]) for name in images}

    def similarities(x: Tensor, y: Tensor) -> Tensor:
        pairs = zip(x.clamp(0, 1).cpu().numpy(), y.cpu().numpy(), strict=True)
        return torch.tensor([structural_similarity(a, b, data_range=1, channel_axis=0) for a, b in pairs])

    def scored(rows: Tensor) -> dict[str, Tensor]:
        given, columns = test.examples[rows].modalities, {}
        for source, (names, targets) in sources.items():
            decoded = model.likelihood.point(model.decode(test.point(rows, names), targets))
            columns |= {f"{source} -> {name}": similarities(decoded[name], given[name]) for name in targets}
        return columns

    columns = distributed.map_rows(len(test), BATCH_SIZE, scored, "SSIM")
    present = {name: model.columns[name].of(test.present) for name in images}
    return {pair: x[present[pair.split(" -> ")[1]]] for pair, x in columns.items()}
