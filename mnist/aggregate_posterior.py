"""Aggregate posteriors, which follow the regions of the latents that training examples take."""

from common.data.batches import Examples
from common.errors import require
from common.multimodal_vae import MultimodalVAE

import torch
from torch import Tensor


@torch.no_grad()
def from_aggregate_posterior(model: MultimodalVAE, train: Examples, texts: Tensor) -> Tensor:
    """Draw z from the aggregate posterior of each text: the mean of q(z|X) over the training examples X that have it.

    (Makhzani et al. 2016, arXiv 1511.05644; Tomczak & Welling 2018, arXiv 1705.07120.) A model that infers z from the
    text alone has one Gaussian for it, which also covers what lies between the examples of the text; this mixture has
    a component for each of them.

    Args:
        train: training examples of the model's modalities.
        texts: (B, ...).

    Returns:
        (B, D).

    Raises:
        InputError: a text that no training example has.
    """
    train = train.to(model.device)
    known = train.modalities["text"].view(len(train), -1)
    texts = texts.to(known).view(len(texts), -1)
    rows = torch.empty(len(texts), dtype=torch.long, device=known.device)
    for text in texts.unique(dim=0):
        with_text = (known == text).all(dim=1).nonzero().squeeze(1)
        require(len(with_text) > 0, f"no training example has the label {text.tolist()}: raise --limit")
        asked = (texts == text).all(dim=1)
        rows[asked] = with_text[torch.randint(len(with_text), (int(asked.sum()),), device=with_text.device)]
    return model.posterior(train[rows]).sample()
