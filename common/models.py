"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn

from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.mmvae import MMVAE, MMVAEConfig
from common.multimodal_vae import MultimodalVAE
from common.priors import LearnedPrior, StandardGaussianPrior, UniformHypersphericalPrior
from common.variational_posteriors import (
    DiagonalGaussianPosterior,
    LaplacePosterior,
    MixturePosterior,
    VmfProductPosterior,
)
from common.variational_strategies import (
    GaussianPoeStrategy,
    GaussianQuotientStrategy,
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
    VmfPoeStrategy,
)

__all__ = ["FAMILIES", "MMVAE", "MVAE", "VAE", "Family", "MMVAEConfig", "MultimodalVAE", "fusion_of"]


class Family(NamedTuple):
    """n_params: vectors of D numbers that an encoder gives; product: the strategy that multiplies its experts, if its
    products are of the family; prior: of D dimensions, that such products have as an expert."""

    n_params: int
    posterior: nn.Module
    product: type[nn.Module] | None
    prior: Callable[[int], nn.Module]


FAMILIES = {
    "gaussian": Family(2, DiagonalGaussianPosterior(), GaussianPoeStrategy, StandardGaussianPrior),
    "laplace": Family(2, LaplacePosterior(), None, partial(LearnedPrior, LaplacePosterior(eta=0), learn=False)),
    "vmf": Family(1, VmfProductPosterior(), VmfPoeStrategy, UniformHypersphericalPrior),
}


def fusion_of(fusion: str, posterior: str, encoders: Sequence[str] = ()) -> tuple[nn.Module, nn.Module]:
    """The strategy and the posterior of a fusion and a family by name.

    "poe": product with the prior, MVAE (Wu & Goodman 2018, arXiv 1802.05335). "quotient": its MVAE-Q. "moe": mixture
    (Wang et al. 2016, arXiv 1610.03454, Shi et al. 2019, arXiv 1911.03393). "mopoe": mixture of all products (Sutter et
    al. 2021, arXiv 2105.02470). "own": each subset of the modalities has an encoder of its own, as in VAE, CVAE and
    JMVAE (Suzuki et al. 2016, arXiv 1611.01891).

    Raises:
        InputError: the fusion does not exist for the family.
    """
    family = FAMILIES[posterior]
    require(
        fusion not in ("poe", "mopoe") or family.product,
        f"a product of {posterior} experts is no {posterior} distribution: only their mixture is defined",
    )
    require(fusion != "quotient" or posterior == "gaussian", f"quotients are of gaussian experts, not of {posterior}")
    if fusion == "moe":
        return MoeStrategy(), MixturePosterior(family.posterior)
    if fusion == "mopoe":
        return MopoeStrategy(family.product()), MixturePosterior(family.posterior)
    strategies = {
        "poe": family.product,
        "quotient": GaussianQuotientStrategy,
        "own": partial(OwnExpertStrategy, encoders),
    }
    return strategies[fusion](), family.posterior


def VAE(
    fusion: str,
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
    posterior: str = "gaussian",
) -> MultimodalVAE:
    """A model by the names of its fusion (`fusion_of`) and of its experts' family, with the family's prior."""
    strategy, of_family = fusion_of(fusion, posterior, tuple(encoder))
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=strategy,
        variational_posterior=of_family,
        decoder=decoder,
        likelihood=likelihood,
        prior=FAMILIES[posterior].prior(latent_dim),
        weights=weights,
    )


MVAE = partial(VAE, "poe")
