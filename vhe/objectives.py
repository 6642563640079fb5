"""The objectives that the paper compares, as losses for training."""

from dataclasses import replace

import torch

from common.bounds import Bound, Objective
from vhe.homoencoder import VHE
from vhe.support_sets import Batch

# whether x is drawn independently of the support set, and KLs are divided by the groups' sizes: else x is of the
# support set, and KLs are divided by the support sets' sizes
OBJECTIVES = {
    "vhe": (True, True),
    "resample": (True, False),
    "rescale": (False, True),
    "statistician": (False, False),
}


class HomoencoderObjective(Objective):
    """The bound of the VHE (Hewitt et al. 2018, Algorithm 1), of the Neural Statistician (Edwards & Storkey 2017), or
    one between them.

    The statistician's is of log p(D)/|D|, of the support sets as data of their own; "resample" and "rescale" do one
    half each of what makes it the VHE's.

    Args:
        model: of latent variables c of a group and z of an example; for the VHE's own bound any.
        name: of OBJECTIVES.
    """

    def __init__(self, model: VHE, name: str = "vhe") -> None:
        super().__init__(model)
        self.resample, self.rescale = OBJECTIVES[name]

    def bound(self, inputs: Batch, beta: float = 1.0) -> Bound:
        """The bound of each example and its terms, nats; see `VHE.bound`."""
        batch = inputs
        if not self.resample:  # support sets are in random order
            target = batch.inputs["c"][:, 0]
            batch = replace(batch, target=target, inputs=batch.inputs | {"z": target[:, None]})
        if not self.rescale:
            sizes = {v: torch.full_like(n, batch.inputs[v].shape[1]) for v, n in batch.sizes.items()}
            batch = replace(batch, sizes=sizes)
        return self.model.bound(batch.inputs, batch.sizes, beta, **{self.model.observed: batch.target})
