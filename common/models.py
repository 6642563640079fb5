"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from torch import nn
from torch.distributions import Laplace, Normal

from common.encoders_decoders import swish_mlp
from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.mmvae import MMVAE, MMVAEConfig
from common.multimodal_vae import MultimodalVAE
from common.priors import LearnedPrior, StandardGaussianPrior, UniformHypersphericalPrior
from common.variational_posteriors import (
    DiagonalGaussianPosterior,
    LaplaceOrNormalPosterior,
    LaplacePosterior,
    LocScaleEbmPosterior,
    MixturePosterior,
    SoftplusPosterior,
    VmfProductPosterior,
)
from common.variational_strategies import (
    GaussianPoeStrategy,
    GaussianQuotientStrategy,
    LocScaleEbmStrategy,
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
    VmfPoeStrategy,
)

__all__ = ["FAMILIES", "MMVAE", "MVAE", "VAE", "Family", "MMVAEConfig", "MultimodalVAE", "check_fusion", "fusion_of"]


class Family(NamedTuple):
    """n_params: vectors of D numbers that an encoder gives; posterior: of D dimensions; product: the strategy that
    multiplies its experts and the prior, if such products are of the family; prior: of D dimensions, learned or not."""

    n_params: int
    posterior: Callable[[int], nn.Module]
    product: type[nn.Module] | None
    prior: Callable[[int, bool], nn.Module]


def energy_based(latent_dim: int) -> LocScaleEbmPosterior:
    """The posterior with an energy of two hidden layers."""
    return LocScaleEbmPosterior(nn.Sequential(swish_mlp(latent_dim, 64, 64), nn.Linear(64, 1), nn.Softplus()))


def gaussian_prior(latent_dim: int, learn: bool) -> nn.Module:
    return LearnedPrior(DiagonalGaussianPosterior(), latent_dim) if learn else StandardGaussianPrior(latent_dim)


FAMILIES = {
    "gaussian": Family(2, lambda _: DiagonalGaussianPosterior(), GaussianPoeStrategy, gaussian_prior),
    "laplace": Family(2, lambda _: LaplacePosterior(), None, partial(LearnedPrior, LaplacePosterior(eta=0))),
    "softplus-laplace": Family(
        2, lambda _: SoftplusPosterior(Laplace), None, partial(LearnedPrior, SoftplusPosterior(Laplace))
    ),
    "softplus-normal": Family(
        2, lambda _: SoftplusPosterior(Normal), None, partial(LearnedPrior, SoftplusPosterior(Normal))
    ),
    "laplace-normal": Family(
        2, lambda _: LaplaceOrNormalPosterior((True, False)), None, partial(LearnedPrior, LaplacePosterior())
    ),
    "vmf": Family(1, lambda _: VmfProductPosterior(), VmfPoeStrategy, lambda d, _: UniformHypersphericalPrior(d)),
    "ebm": Family(2, energy_based, LocScaleEbmStrategy, lambda d, _: StandardGaussianPrior(d)),
}


def check_fusion(fusion: str, posterior: str) -> None:
    """Raise InputError where the fusion does not exist for the family."""
    require(
        fusion not in ("poe", "mopoe") or FAMILIES[posterior].product,
        f"a product of {posterior} experts is no {posterior} distribution: only their mixture is defined",
    )
    require(
        fusion == "poe" or posterior != "ebm",
        "an ebm posterior is a product of energy-based experts: nothing else is defined of them",
    )
    require(fusion != "quotient" or posterior == "gaussian", f"quotients are of gaussian experts, not of {posterior}")


def fusion_of(
    fusion: str | nn.Module, posterior: str, latent_dim: int, encoders: Sequence[str] = ()
) -> tuple[nn.Module, nn.Module]:
    """The strategy and the posterior of a fusion and a family by name (`check_fusion` says which exist).

    A strategy of one's own that is no mixture may stand for the fusion's name.

    "poe": product with the prior, MVAE (Wu & Goodman 2018, arXiv 1802.05335). "quotient": its MVAE-Q. "moe": mixture
    (Wang et al. 2016, arXiv 1610.03454, Shi et al. 2019, arXiv 1911.03393). "mopoe": mixture of all products (Sutter et
    al. 2021, arXiv 2105.02470). "own": each subset of the modalities has an encoder of its own, as in VAE, CVAE and
    JMVAE (Suzuki et al. 2016, arXiv 1611.01891).
    """
    family = FAMILIES[posterior]
    of_family = family.posterior(latent_dim)
    if isinstance(fusion, nn.Module):
        return fusion, of_family
    check_fusion(fusion, posterior)
    if fusion == "moe":
        return MoeStrategy(), MixturePosterior(of_family)
    if fusion == "mopoe":
        return MopoeStrategy(family.product()), MixturePosterior(of_family)
    strategies = {
        "poe": family.product,
        "quotient": GaussianQuotientStrategy,
        "own": partial(OwnExpertStrategy, encoders),
    }
    return strategies[fusion](), of_family


def VAE(
    fusion: str | nn.Module,
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
    posterior: str = "gaussian",
    learn_prior: bool = False,
) -> MultimodalVAE:
    """A model by the names of its fusion (`fusion_of`), or a strategy, and of its posterior's family and its prior."""
    strategy, of_family = fusion_of(fusion, posterior, latent_dim, tuple(encoder))
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=strategy,
        variational_posterior=of_family,
        decoder=decoder,
        likelihood=likelihood,
        prior=FAMILIES[posterior].prior(latent_dim, learn_prior),
        weights=weights,
    )


MVAE = partial(VAE, "poe")
