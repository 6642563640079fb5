"""JMVAE: a joint encoder, and the posteriors of single modalities drawn to its posterior."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from common.data.batches import Batch
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective
from common.subsets import on_device, single_modalities


class JmvaeElbo(MultimodalObjective):
    r"""JMVAE-kl: the joint ELBO, and the unimodal posteriors drawn towards the joint one (Suzuki et al. 2016, eq. 5).

    .. math:: ELBO(x_1, .., x_M) - \alpha \sum_m KL(q(z|x_1, .., x_M) || q(z|x_m))

    arXiv 1611.01891. A lower bound on log p(x_1, ..., x_M). It learns from complete examples only.

    Args:
        alpha: weight of the KLs between posteriors; beta does not weigh them.
        students: hold the joint posterior fixed in these KLs. The joint encoder then learns by its ELBO alone, and the
            unimodal encoders are its students: they come to the moments of p(z|x_m) over the data, as far as
            q(z|x_1, .., x_M) is exact. (Open item of github.com/jgoffinet/poe-vae.)
    """

    def __init__(
        self,
        model: MultimodalVAE,
        alpha: float = 0.1,
        weights: Mapping[str, float] | None = None,
        students: bool = False,
    ) -> None:
        super().__init__(model, weights)
        self.alpha, self.students = alpha, students

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the prior's KL weighted by beta.

        Raises:
            InputError: an example lacks a modality.
        """
        batch = self.model.observe(inputs)
        complete = batch.mask is None or bool(batch.mask.all())
        require(complete, "--obj jmvae and student need every modality of every example")
        subsets = torch.stack(list(single_modalities(self.model.columns).values()))
        subsets = on_device(subsets, next(iter(batch.modalities.values())).device)
        params = self.model.experts(batch)
        joint = self.model.fuse(params)
        unimodal = self.model.fuse(params, subsets[:, None])  # (M, B)
        z, kl = joint.rsample(), kl_divergence(joint, self.model.prior())  # (B, D), (B,)
        teacher = self.model.fuse(tuple(p.detach() for p in params)) if self.students else joint
        distance = kl_divergence(teacher, unimodal)  # (M, B)
        value = -beta * kl - self.alpha * distance.sum(dim=0)
        terms = {"joint/kl": kl} | {
            f"{name}/kl from joint": distance[m] for m, name in enumerate(self.model.modalities)
        }
        z_of = dict.fromkeys(self.model.modalities, z[None])
        for name, (log_p,) in self.log_likelihoods(z_of, batch, dict.fromkeys(z_of)).items():
            value = value + self.weights[name] * log_p
            terms[f"joint/{name}"] = log_p
        return Bound(value, terms)
