"""The four objectives that the paper compares."""

from dataclasses import replace

from common.objectives import Bound, Objective
from vhe.framework import VHE, Batch

import torch

OBJECTIVES = ("vhe", "resample", "rescale", "statistician")


class HomoencoderObjective(Objective):
    """The objective of the VHE (Hewitt et al. 2018, Algorithm 1), of the Neural Statistician (Edwards & Storkey 2017),
    or one between them.

    The Neural Statistician's is a lower bound of log p(D)/|D|, as if the support sets were the data. Two steps lead
    from there to the VHE's; "resample" and "rescale" take one of them.

    Attributes:
        resample: whether x is drawn independently of the support set of c; if not, it is an image of that support set.
        rescale: whether KLs are divided by the sizes of the groups; if not, by the sizes of the support sets.

    Args:
        model: a model with the latent variables c of a group and z of an example; for "vhe" any model.
        name: a name of OBJECTIVES.
    """

    def __init__(self, model: VHE, name: str = "vhe") -> None:
        super().__init__(model)
        self.resample, self.rescale = name in ("vhe", "resample"), name in ("vhe", "rescale")

    def bound(self, inputs: Batch, beta: float = 1.0) -> Bound:
        """Return the objective of each example, (B,), and its terms, nats; see `VHE.bound`.

        Args:
            inputs: a batch of examples with their support sets.
            beta: the factor of all KLs.
        """
        batch = inputs
        if not self.resample:  # the first image is a random one, since support sets are in a random order
            target = batch.inputs["c"][:, 0]
            batch = replace(batch, target=target, inputs=batch.inputs | {"z": target[:, None]})
        if not self.rescale:
            sizes = {v: torch.full_like(n, batch.inputs[v].shape[1]) for v, n in batch.sizes.items()}
            batch = replace(batch, sizes=sizes)
        return self.model.bound(batch.inputs, batch.sizes, beta, **{self.model.observed: batch.target})
