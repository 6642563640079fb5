"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from collections.abc import Mapping
from functools import partial

from torch import nn

from common.likelihoods import GroupedLikelihood
from common.mmvae import MMVAE, MMVAEConfig
from common.multimodal_vae import MultimodalVAE
from common.priors import StandardGaussianPrior
from common.variational_posteriors import DiagonalGaussianPosterior, MixturePosterior
from common.variational_strategies import (
    GaussianPoeStrategy,
    GaussianQuotientStrategy,
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
)

__all__ = ["FUSIONS", "MMVAE", "MVAE", "GaussianVAE", "MMVAEConfig", "MultimodalVAE"]

FUSIONS = {
    "poe": lambda encoders: (GaussianPoeStrategy(), DiagonalGaussianPosterior()),
    "quotient": lambda encoders: (GaussianQuotientStrategy(), DiagonalGaussianPosterior()),
    "moe": lambda encoders: (MoeStrategy(), MixturePosterior(DiagonalGaussianPosterior())),
    "mopoe": lambda encoders: (MopoeStrategy(), MixturePosterior(DiagonalGaussianPosterior())),
    "own": lambda encoders: (OwnExpertStrategy(encoders), DiagonalGaussianPosterior()),
}


def GaussianVAE(
    fusion: str,
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
) -> MultimodalVAE:
    """Gaussian experts and the prior N(0, I), fused by name.

    "poe": MVAE (Wu & Goodman 2018, arXiv 1802.05335). "quotient": its MVAE-Q. "moe": the mixture that BiVCCA trains
    (Wang et al. 2016, arXiv 1610.03454). "mopoe": MoPoE (Sutter et al. 2021, arXiv 2105.02470). "own": each subset of
    the modalities has an encoder of its own, as in VAE, CVAE and JMVAE (Suzuki et al. 2016, arXiv 1611.01891).
    """
    strategy, posterior = FUSIONS[fusion](tuple(encoder))
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=strategy,
        variational_posterior=posterior,
        decoder=decoder,
        likelihood=likelihood,
        prior=StandardGaussianPrior(latent_dim),
        weights=weights,
    )


MVAE = partial(GaussianVAE, "poe")
