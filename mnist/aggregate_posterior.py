"""Aggregate posteriors, which follow the regions of the latents that training examples take."""

import torch
from torch import Tensor

from common.data.batches import Examples
from common.errors import require
from common.multimodal_vae import MultimodalVAE


class AggregatePosterior:
    """The aggregate posterior of each label: the mean of q(z|X) over the training examples X that have it.

    (Makhzani et al. 2016, arXiv 1511.05644; Tomczak & Welling 2018, arXiv 1705.07120.) A model that infers z from the
    label alone has one Gaussian for it, which also covers what lies between the examples of the label; this mixture has
    a component for each of them.

    Args:
        examples: N examples of the model's modalities.
        label: the modality that is the label.
    """

    def __init__(self, model: MultimodalVAE, examples: Examples, label: str) -> None:
        self.model, self.examples = model, examples.to(model.device)
        self.labels = self.examples.modalities[label].view(len(examples), -1)

    @torch.no_grad()
    def sample(self, labels: Tensor) -> Tensor:
        """One draw for each label (B, ...): (B, D).

        Raises:
            InputError: a label that no training example has.
        """
        labels = labels.to(self.labels).view(len(labels), -1)
        rows = torch.empty(len(labels), dtype=torch.long, device=self.labels.device)
        for label in labels.unique(dim=0):
            with_label = (self.labels == label).all(dim=1).nonzero().squeeze(1)
            require(len(with_label) > 0, f"no training example has the label {label.tolist()}: raise --limit")
            asked = (labels == label).all(dim=1)
            rows[asked] = with_label[torch.randint(len(with_label), (int(asked.sum()),), device=with_label.device)]
        return self.model.posterior(self.examples[rows]).sample()
