"""Sums of ELBOs that differ in what they score (DMVAE) or train (TELBO)."""

from collections.abc import Mapping
from dataclasses import replace

from common.data.batches import Batch
from common.distributions.base import LatentDistribution
from common.encoders_decoders import frozen
from common.execution.rows import Rows
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound
from common.objectives.elbo import SumOfElbos
from common.subsets import mvae_subsets

import torch
from torch import Tensor


class DmvaeElbo(SumOfElbos):
    r"""DMVAE: all modalities are scored under the shared posterior of all and under that of each one.

    .. math:: \sum_{S \in \{X, \{1\}, .., \{M\}\}} \Big\{ \sum_m \lambda_m E_{q(u|x_S) q(w_m|x_m)} \log p(x_m|u, w_m)
              - \beta \Big[ KL(q(u|x_S) || p(u)) + \sum_m KL(q(w_m|x_m) || p(w_m)) \Big] \Big\}

    (Lee & Pavlovic 2021, arXiv 2012.13024; u are the shared latents, w_m modality m's own, which its encoder gives in
    every term.) Each of the M + 1 terms is a lower bound on log p(X). An absent modality's term is 0, and an example
    with one modality has one term. The model generates with q(u|x_m). With --fusion poe the prior is one of its
    experts; the authors' code leaves it out in training, and has a beta of its own for each modality's private latents.
    """

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of the terms of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        # only the row of a pair can score all modalities under each single posterior
        return super().bound(replace(batch, joint_only=None), beta)

    def subsets(self) -> dict[str, Tensor]:
        return mvae_subsets(self.model.columns)

    def rows(self, batch: Batch) -> Rows:
        rows = super().rows(batch)
        scored = rows.scored
        if scored is not None:
            scored = scored.any(dim=-1, keepdim=True) & self.model.scorable(batch.mask)  # (T, B, M)
        return rows._replace(subsets=torch.ones_like(rows.subsets), scored=scored)

    def posteriors(self, params: tuple[Tensor, ...], rows: Rows) -> LatentDistribution:
        """q(u|x_S) of all rows with the private posteriors of all modalities, (T, B)."""
        encoded = torch.ones_like(rows.given) if rows.scored is None else rows.scored.any(dim=0)
        return self.model.fuse(params, rows.given, encoded)


class TelboElbo(SumOfElbos):
    r"""TELBO: the joint ELBO trains the decoders and the joint encoder, each modality's ELBO its own encoder alone.

    .. math:: ELBO(x_1, .., x_M) + \sum_m ELBO(x_m), \quad \text{the second with decoders held fixed}

    (Vedantam et al. 2018, arXiv 1705.10762, eq. 4.) A sum of lower bounds on log p(X) and the log p(x_m). The authors
    train in two stages, the encoders of single modalities last; here both go on at once, with the same optimum for a
    fixed prior, since the second stage leaves the decoders alone. They weigh log p(x_m|z) by lambda_m in the first
    stage and by gamma_m in the second, whose KL has the weight 1; here both have lambda_m and beta. It learns from
    complete examples only.
    """

    unimodal = True

    def subsets(self) -> dict[str, Tensor]:
        return mvae_subsets(self.model.columns)

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The sum of the ELBOs of each example, (B,), with the KLs weighted by beta.

        Raises:
            InputError: an example lacks a modality.
        """
        return super().bound(self.observe_complete(inputs), beta)

    def score(self, model: MultimodalVAE, batch: Batch, z: Tensor, rows: Rows) -> dict[str, Tensor]:
        joint = torch.tensor([name == "joint" for name in rows.names])[:, None]
        # `scored` is None, since the examples are complete
        of_joint = super().score(model, batch, z, rows._replace(subsets=rows.subsets & joint))
        with frozen(model.decoder), frozen(model.likelihood):  # which may run a decoder's network
            of_singles = super().score(model, batch, z, rows._replace(subsets=rows.subsets & ~joint))
        return {name: x + of_singles[name] for name, x in of_joint.items()}
