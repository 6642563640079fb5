"""IDMVAE: MMVAE+'s bound, and losses that keep shared and private latents apart."""

from collections.abc import Mapping

from common.data.batches import Batch
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound
from common.objectives.importance import IwaeElbo

import torch
from torch import Tensor
from torch.nn.functional import normalize

TEMPERATURE = 0.1  # of InfoNCE's cosines


class IdmvaeElbo(IwaeElbo):
    r"""IDMVAE: MMVAE+'s bound, InfoNCE of shared latents, and what swapped latents lose (OpenReview DcHGEcqdFf).

    .. math:: bound - c_1 \, \text{mean}_{m \neq n} \Big[ - \log \frac{\exp(\cos(u_m, u_n) / \tau)}
              {\sum_{b} \exp(\cos(u_m, u_n^{(b)}) / \tau)} \Big]
              - c_2 \sum_m \frac{1}{d_m} \| \mu_m(\tilde x_m) - (u_m, w_m^{(b)}) \|^2

    u_m and w_m are the shared and the private latents that modality m's expert gives. In the first loss the b are the
    examples of the process's batch. In the second one :math:`\tilde x_m` is decoded from an example's u_m and another
    one's w_m, and :math:`\mu_m` is the location of its expert, of d_m latents. The weights are those of the authors'
    code. The temperature tau, the squares and the stopped gradient of the latents to find again are ours. The authors'
    prior by diffusion is left out. `bound` is MMVAE+'s alone.

    Args:
        contrast, swaps: c_1 and c_2.

    Raises:
        InputError: see `IwaeElbo`; a posterior that is not MMVAE+'s, or a modality of classes, whose decoded values
            have no gradient.
    """

    of_mixtures = True

    def __init__(
        self,
        model: MultimodalVAE,
        K: int = 1,
        looser: bool = False,
        weights: Mapping[str, float] | None = None,
        contrast: float = 80.0,
        swaps: float = 20.0,
    ) -> None:
        super().__init__(model, K, looser, weights)
        fits = self.model.auxiliary is not None and len(self.model.private) == len(self.model.modalities)
        require(fits, "IDMVAE needs private latents of each modality and auxiliary priors: take the fusion mmvae+")
        point = self.model.likelihood.point
        classes = [
            name
            for name in self.model.modalities
            if not point({name: self.model.decoded_once(name)})[name].is_floating_point()
        ]
        require(not classes, f"IDMVAE decodes values with gradients, and {', '.join(classes)} has classes: take iwae")
        self.contrast, self.swaps = contrast, swaps

    def penalised(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Tensor, Bound]:
        batch = self.model.observe(inputs)
        params, z, _ = self.sample(batch)
        surrogate, found = self.surrogate(batch, self.scorer(batch), params, z, beta)
        z = z[:, 0]  # (M, B, D)
        present = torch.ones(z.shape[:2], dtype=torch.bool, device=z.device) if batch.mask is None else batch.mask.T
        contrast = info_nce(z[..., : self.model.n_shared], present)
        return surrogate, self.contrast * contrast + self.swaps * self.lost(z, present), found

    def lost(self, z: Tensor, present: Tensor) -> Tensor:
        """What the experts do not find again of swapped latents, a mean over the examples that have both: a scalar.

        Args:
            z: from each modality's component, (M, B, D).
            present: (M, B) bool.
        """
        n = self.model.n_shared
        swapped = torch.cat([z[..., :n], z[..., n:].roll(1, dims=1)], dim=-1).detach()  # (M, B, D)
        both, total = present & present.roll(1, dims=1), z.new_zeros(())
        own = dict(zip(self.model.modalities, swapped, strict=True))
        decoded = self.model.likelihood.point(self.model.decode(own))
        location = self.model.experts(Batch(decoded))[0]  # (M, B, D)
        for m, modality in enumerate(self.model.private):
            error = modality.part_of(location[m] - swapped[m]).square().mean(dim=-1)  # (B,)
            total = total + torch.where(both[m], error, 0).sum() / both[m].sum().clamp(min=1)
        return total


def info_nce(u: Tensor, present: Tensor) -> Tensor:
    """InfoNCE of the shared latents of pairs of modalities, a mean over the pairs and their examples: a scalar, nats.

    (Oord et al. 2018, arXiv 1807.03748.) The mutual information of two modalities' latents is at least log B less it.

    Args:
        u: (M, B, D).
        present: (M, B) bool.
    """
    cosines = torch.einsum("mbd,ncd->mnbc", *[normalize(u, dim=-1)] * 2) / TEMPERATURE
    absent = ~present & present.any(dim=1, keepdim=True)  # of a modality that no example has, nothing is used
    among = cosines.masked_fill(absent[None, :, None], -torch.inf).log_softmax(dim=-1)
    loss = -among.diagonal(dim1=-2, dim2=-1)  # (M, M, B)
    pairs = present[:, None] & present & ~torch.eye(len(u), dtype=torch.bool, device=u.device)[..., None]
    return torch.where(pairs, loss, 0).sum() / pairs.sum().clamp(min=1)
