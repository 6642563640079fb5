"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal

from common import choices
from common.distributions.flows import masked_autoregressive_flow
from common.encoders_decoders import swish_mlp
from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.mixture_posteriors import MixturePosterior, OwnLatentsMixture
from common.modalities import n_elements, shared_latents
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior, LearnedPrior, StandardGaussianPrior, UniformHypersphericalPrior
from common.variational_posteriors import (
    DiagonalGaussianPosterior,
    JointFlowsPosterior,
    LaplaceOrNormalPosterior,
    LaplacePosterior,
    LocScaleEbmPosterior,
    Posterior,
    SoftplusPosterior,
    VmfProductPosterior,
)
from common.variational_strategies import (
    GaussianPoeStrategy,
    GaussianProductStrategy,
    GaussianQuotientStrategy,
    JointFlowsStrategy,
    LocScaleEbmStrategy,
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
    PublishedMopoeStrategy,
    Strategy,
    VmfPoeStrategy,
)
from multivae_api.config import MMVAEConfig
from multivae_api.mmvae import MMVAE

__all__ = ["FAMILIES", "FUSIONS", "MMVAE", "MVAE", "VAE", "Family", "Fusion", "MMVAEConfig", "MultimodalVAE"]


class Family(NamedTuple):
    """A posterior family.

    n_params: number of vectors (N, D) that an encoder gives.
    posterior: numbers of latents, the shared ones and each modality's own -> the family's module.
    product: the strategy that multiplies the family's experts and the prior; None if such a product leaves the family.
    prior: these numbers, whether its scales are learned -> the prior's module.
    has_density: whether log q(z) is known in closed form.
    only_mixed: whether its members are components of mixtures only, no posteriors alone.
    own_latents: whether modalities can have private latents of their own in a mixture.
    """

    n_params: int
    posterior: Callable[[Sequence[int]], Posterior]
    product: type[Strategy] | None
    prior: Callable[[Sequence[int], bool], nn.Module]
    has_density: bool = True
    only_mixed: bool = False
    own_latents: bool = False


class Fusion(NamedTuple):
    """A way to fuse experts.

    strategy: family, keys of the encoders -> the strategy's module; None if its network must be given (`SetStrategy`,
        `UnstructuredStrategy`).
    exists: family's name, family -> whether the fusion exists for it.
    is_mixture: whether the posterior is a mixture of the family's members.
    why: why it does not exist for other families.
    auxiliary: whether training draws private latents of other modalities from auxiliary priors; it needs some.
    flows: whether the experts are the bases of flows (`JointFlowsPosterior`).
    """

    strategy: Callable[[Family, Sequence[str]], Strategy] | None
    exists: Callable[[str, Family], bool]
    is_mixture: bool
    why: str
    auxiliary: bool = False
    flows: bool = False


def energy_based(sizes: Sequence[int]) -> LocScaleEbmPosterior:
    """The posterior whose energy is a network with two hidden layers."""
    return LocScaleEbmPosterior(nn.Sequential(swish_mlp(sum(sizes), 64, 64), nn.Linear(64, 1), nn.Softplus()))


def gaussian_prior(sizes: Sequence[int], learn: bool) -> nn.Module:
    """N(0, I), or with learned scales N(0, diag(s^2))."""
    return LearnedPrior(DiagonalGaussianPosterior(), sum(sizes)) if learn else StandardGaussianPrior(sum(sizes))


def prior_in(family: Callable[[Sequence[int]], Posterior]) -> Callable[[Sequence[int], bool], nn.Module]:
    """The prior in a family, with learned or fixed scales."""
    return lambda sizes, learn: LearnedPrior(family(sizes), sum(sizes), learn)


def vmf_family(n_vmfs: int) -> Family:
    """The family of z on n_vmfs unit spheres, each in D / n_vmfs dimensions with a von Mises-Fisher distribution."""
    return Family(
        n_params=1,
        posterior=lambda sizes: VmfProductPosterior(n_vmfs),
        product=VmfPoeStrategy,
        prior=lambda sizes, learn: UniformHypersphericalPrior(sum(sizes), n_vmfs),
    )


FAMILIES = {
    "gaussian": Family(
        n_params=2,
        posterior=lambda sizes: DiagonalGaussianPosterior(),
        product=GaussianPoeStrategy,
        prior=gaussian_prior,
        own_latents=True,
    ),
    "laplace": Family(
        n_params=2,
        posterior=lambda sizes: LaplacePosterior(sizes=sizes),
        product=None,
        prior=prior_in(lambda sizes: LaplacePosterior(0, sizes)),
        own_latents=True,
    ),
    "softplus-laplace": Family(
        n_params=2,
        posterior=lambda sizes: SoftplusPosterior(Laplace),
        product=None,
        prior=prior_in(lambda sizes: SoftplusPosterior(Laplace)),
        own_latents=True,
    ),
    "softplus-normal": Family(
        n_params=2,
        posterior=lambda sizes: SoftplusPosterior(Normal),
        product=None,
        prior=prior_in(lambda sizes: SoftplusPosterior(Normal)),
        own_latents=True,
    ),
    "laplace-normal": Family(
        n_params=2,
        posterior=lambda sizes: LaplaceOrNormalPosterior((True, False)),
        product=None,
        prior=prior_in(lambda sizes: LaplacePosterior()),
        only_mixed=True,
    ),
    "vmf": vmf_family(n_vmfs=1),
    "ebm": Family(
        n_params=2,
        posterior=energy_based,
        product=LocScaleEbmStrategy,
        prior=lambda sizes, learn: StandardGaussianPrior(sum(sizes)),
        has_density=False,
    ),
}
FUSIONS = {
    "poe": Fusion(
        strategy=lambda family, encoders: family.product(),
        exists=lambda name, family: family.product is not None,
        is_mixture=False,
        why="their product leaves the family, choose a mixture",
    ),
    "product": Fusion(
        strategy=lambda family, encoders: GaussianProductStrategy(),
        exists=lambda name, family: name == "gaussian",
        is_mixture=False,
        why="the product of others leaves the family, or is that of poe",
    ),
    "quotient": Fusion(
        strategy=lambda family, encoders: GaussianQuotientStrategy(),
        exists=lambda name, family: name == "gaussian",
        is_mixture=False,
        why="only Gaussians have this quotient",
    ),
    "moe": Fusion(
        strategy=lambda family, encoders: MoeStrategy(),
        exists=lambda name, family: family.has_density,
        is_mixture=True,
        why="energy-based experts are only multiplied",
    ),
    "mmvae+": Fusion(
        strategy=lambda family, encoders: MoeStrategy(),
        exists=lambda name, family: family.own_latents,
        is_mixture=True,
        why="a modality's own latents need parameters of their own in the experts and in the prior",
        auxiliary=True,
    ),
    "mopoe": Fusion(
        strategy=lambda family, encoders: MopoeStrategy(family.product()),
        exists=lambda name, family: family.product is not None and family.has_density,
        is_mixture=True,
        why="the products that it mixes leave the family, or have no density in closed form",
    ),
    "mopoe-published": Fusion(
        strategy=lambda family, encoders: PublishedMopoeStrategy(),
        exists=lambda name, family: name == "gaussian",
        is_mixture=True,
        why="MoPoE's code has Gaussian experts",
    ),
    "own": Fusion(
        strategy=lambda family, encoders: OwnExpertStrategy(encoders),
        exists=lambda name, family: family.has_density and not family.only_mixed,
        is_mixture=False,
        why="energy-based experts are only multiplied, laplace-normal ones only mixed",
    ),
    "joint": Fusion(
        strategy=lambda family, encoders: OwnExpertStrategy(encoders),
        exists=lambda name, family: family.has_density and not family.only_mixed,
        is_mixture=False,
        why="energy-based experts are only multiplied, laplace-normal ones only mixed",
    ),
    "jnf": Fusion(
        strategy=lambda family, encoders: JointFlowsStrategy(encoders),
        exists=lambda name, family: name == "gaussian",
        is_mixture=False,
        why="the bases of its flows, and its joint posterior, are Gaussian",
        flows=True,
    ),
    "set": Fusion(
        strategy=None,
        exists=lambda name, family: family.has_density and not family.only_mixed,
        is_mixture=False,
        why="energy-based experts are only multiplied, laplace-normal ones only mixed",
    ),
    "unstructured": Fusion(
        strategy=None,
        exists=lambda name, family: family.has_density and not family.only_mixed,
        is_mixture=False,
        why="energy-based experts are only multiplied, laplace-normal ones only mixed",
    ),
}


def table() -> str:
    """Which fusion exists for which posterior family, in Markdown."""
    rows = [["`--posterior`", *(f"`{fusion}`" for fusion in FUSIONS), "what it is"]]
    rows.append(["---"] * len(rows[0]))
    for name, family in FAMILIES.items():
        cells = ["yes" if fusion.exists(name, family) else "" for fusion in FUSIONS.values()]
        rows.append([f"`{name}`", *cells, choices.FAMILIES[name]])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def check_fusion(fusion: str, posterior: str) -> None:
    """Refuse a fusion that does not exist for the family.

    Raises:
        InputError: says why.
    """
    exists = FUSIONS[fusion].exists(posterior, FAMILIES[posterior])
    require(exists, f"there is no fusion {fusion} for {posterior} experts: {FUSIONS[fusion].why}")


def VAE(
    fusion: str | Strategy,
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
    posterior: str = "gaussian",
    learn_prior: bool = False,
    private: Mapping[str, int] | None = None,
    n_vmfs: int = 1,
    n_clusters: int | None = None,
) -> MultimodalVAE:
    """The model with a fusion and a posterior family.

    Args:
        fusion: a name in FUSIONS, or a strategy whose posterior is no mixture.
        encoder, decoder, likelihood, weights, private: see `MultimodalVAE`.
        latent_dim: D, private latents included.
        posterior: a name in FAMILIES.
        learn_prior: learn the prior's scales, if its family has any.
        n_vmfs: number of spheres of the family vmf.
        n_clusters: number of clusters of a prior that is a mixture (CMVAE); by default it is none.

    Raises:
        InputError: the fusion does not exist for the family, or it needs private latents.
    """
    family = vmf_family(n_vmfs) if posterior == "vmf" else FAMILIES[posterior]
    own = {name: (private or {}).get(name, 0) for name in encoder}
    sizes = (shared_latents(latent_dim, private or {}), *(n for n in own.values() if n))
    variational_posterior, auxiliary = family.posterior(sizes), None
    if isinstance(fusion, str):
        check_fusion(fusion, posterior)
        make = FUSIONS[fusion].strategy
        require(make is not None, f"the fusion {fusion} has a network of its own: give VAE the strategy, not its name")
        strategy = make(family, tuple(encoder))
        if FUSIONS[fusion].auxiliary:
            require(any(own.values()), f"the fusion {fusion} needs private latents: without them it is moe")
            one_each = not any("," in key or n_elements(network) for key, network in encoder.items())
            require(one_each, f"the fusion {fusion} needs an encoder for each modality, and no sets")
            auxiliary = family.prior(sizes, True)
            variational_posterior = OwnLatentsMixture(variational_posterior, _own_latents(own, latent_dim), sizes[0])
        elif FUSIONS[fusion].is_mixture:
            variational_posterior = MixturePosterior(variational_posterior)
        elif FUSIONS[fusion].flows:
            flows = [masked_autoregressive_flow(latent_dim) for key in encoder if "," not in key]
            variational_posterior = JointFlowsPosterior(flows)
    else:
        strategy = fusion
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=strategy,
        variational_posterior=variational_posterior,
        decoder=decoder,
        likelihood=likelihood,
        prior=_prior(family, sizes, learn_prior, n_clusters),
        weights=weights,
        private=private,
        auxiliary=auxiliary,
    )


def _own_latents(own: Mapping[str, int], latent_dim: int) -> Tensor:
    """Which latents belong to each modality alone, (M, D) bool: the last ones, in the modalities' order."""
    sizes = torch.tensor(list(own.values()))
    ends = latent_dim - sizes.sum() + sizes.cumsum(0)
    starts = ends - sizes
    latents = torch.arange(latent_dim)
    return (latents >= starts[:, None]) & (latents < ends[:, None])


def _prior(family: Family, sizes: Sequence[int], learn: bool, n_clusters: int | None) -> nn.Module:
    """The family's prior, or a mixture of clusters."""
    if n_clusters is None:
        return family.prior(sizes, learn)
    require(
        family.own_latents and not learn, "a clustered prior has fixed scales, in a family with locations and scales"
    )
    return ClusteredPrior(family.prior(sizes, True).family, sum(sizes), sizes[0], n_clusters)


MVAE = partial(VAE, "poe")
