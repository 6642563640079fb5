"""Ways to fuse experts, one record each, and the model of a fusion and a posterior family."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from common.distributions.flows import masked_autoregressive_flow
from common.encoders_decoders import n_elements
from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.modalities import n_shared_latents
from common.models.families import FAMILIES, Family
from common.multimodal_vae import MultimodalVAE
from common.pooling_strategies import DependentStrategy, HellingerStrategy, HoelderStrategy, WassersteinStrategy
from common.priors import ClusteredPrior
from common.subsets import all_subsets
from common.variational_posteriors import (
    JointFlowsPosterior,
    MixturePosterior,
    Posterior,
    PrivateLatentsMixturePosterior,
)
from common.variational_strategies import (
    GaussianProductStrategy,
    GaussianQuotientStrategy,
    JointFlowsStrategy,
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
    PublishedMopoeStrategy,
    Strategy,
)

import torch
from torch import nn


class Latents(NamedTuple):
    """The latents of a model: first the shared ones, then each modality's private ones.

    shared: the number of shared ones.
    private: {encoder's key: number of that modality's private ones}.
    """

    shared: int
    private: Mapping[str, int]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers that are not 0, the shared ones first."""
        return self.shared, *(n for n in self.private.values() if n)


def without_sets(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The family itself, for encoders that each give one whole posterior; one of them sees all modalities."""
    sets = [key for key, network in encoder.items() if n_elements(network)]
    several = f"a set's encoder ({', '.join(sets)}) gives a posterior for each element, and this fusion needs one"
    require(not sets, f"{several} in all: choose poe, moe or set")
    names = list(dict.fromkeys(name for key in encoder for name in key.split(",")))
    joint = any({*key.split(",")} == {*names} for key in encoder)
    require(joint, f"no encoder sees all modalities: add {','.join(names)!r}, or choose poe or moe")
    return posterior


def private_latents_mixture(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The mixture of the family's members, each of which gives the private latents of its own modality alone."""
    require(any(latents.private.values()), "the fusion mmvae+ needs private latents: without them it is moe")
    sets = [key for key, network in encoder.items() if n_elements(network)]
    require(not sets, f"the fusion mmvae+ needs an encoder for each modality, and no sets (got {', '.join(sets)})")
    shared = torch.zeros(len(encoder), latents.shared)
    private = torch.block_diag(*(torch.ones(1, n) for n in latents.private.values()))
    own = torch.cat([shared, private], dim=1).bool()  # (M, D), which latents belong to each modality alone
    return PrivateLatentsMixturePosterior(posterior, own, latents.shared)


def joint_flows(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """JNF's posterior, with a flow for each modality."""
    without_sets(posterior, latents, encoder)
    d = sum(latents.sizes)
    return JointFlowsPosterior([masked_autoregressive_flow(d) for key in encoder if "," not in key])


class Fusion(NamedTuple):
    """A way to fuse experts.

    summary: what --help says, with the paper.
    strategy: family, encoders by their keys -> the strategy's module; None if its network must be given (`SetStrategy`,
        `UnstructuredStrategy`). That of code takes `rho` too.
    exists: family -> whether the fusion exists for it.
    is_mixture: whether the posterior is a mixture of the family's members.
    posterior: the family's module, the model's latents, its encoders -> the module that makes q(z|x_S) of what the
        strategy gives; by default the family's, or a mixture of its members. Raises InputError for latents or encoders
        that the fusion cannot have.
    joint_encoder: whether it needs an encoder of all modalities too.
    auxiliary: whether training draws private latents of other modalities from auxiliary priors.
    """

    summary: str
    strategy: Callable[[Family, Mapping[str, nn.Module]], Strategy] | None
    exists: Callable[[Family], bool]
    is_mixture: bool = False
    posterior: Callable[[Posterior, Latents, Mapping[str, nn.Module]], nn.Module] | None = None
    joint_encoder: bool = False
    auxiliary: bool = False


def stands_alone(family: Family) -> bool:
    """Whether one network can give a whole posterior of the family."""
    return family.has_density and not family.only_mixed


def n_experts(encoders: Mapping[str, nn.Module]) -> int:
    """The number of experts that the encoders give: one each, of a set n."""
    return sum(n_elements(network) or 1 for network in encoders.values())


FUSIONS = {
    "poe": Fusion(
        "product of experts and prior (MVAE: Wu & Goodman 2018, arXiv 1802.05335)",
        lambda family, encoders: family.product(),
        lambda family: family.product is not None,
    ),
    "product": Fusion(
        "product of experts without the prior (MVTCAE: Hwang et al. 2021, NeurIPS)",
        lambda family, encoders: GaussianProductStrategy(),
        lambda family: family.is_gaussian,
    ),
    "quotient": Fusion(
        "quotient of posteriors (MVAE-Q: Wu & Goodman 2018, eq. 3)",
        lambda family, encoders: GaussianQuotientStrategy(),
        lambda family: family.is_gaussian,
    ),
    "moe": Fusion(
        "mixture of experts (Wang et al. 2016, arXiv 1610.03454; MMVAE: Shi et al. 2019, arXiv 1911.03393)",
        lambda family, encoders: MoeStrategy(),
        lambda family: family.has_density,
        is_mixture=True,
    ),
    "mmvae+": Fusion(
        "mixture of experts whose components have private latents (MMVAE+: Palumbo et al. 2023, ICLR)",
        lambda family, encoders: MoeStrategy(),
        lambda family: family.private_latents,
        is_mixture=True,
        posterior=private_latents_mixture,
        auxiliary=True,
    ),
    "mopoe": Fusion(
        "mixture of the products of all subsets (MoPoE: Sutter et al. 2021, arXiv 2105.02470)",
        lambda family, encoders: MopoeStrategy(family.product()),
        lambda family: family.product is not None and family.has_density,
        is_mixture=True,
    ),
    "mopoe-published": Fusion(
        "mopoe as in its authors' code: only the product of all modalities includes the prior",
        lambda family, encoders: PublishedMopoeStrategy(),
        lambda family: family.is_gaussian,
        is_mixture=True,
    ),
    "hoelder": Fusion(
        "mixture of the experts and of the normalised products of pairs (Hoelder pooling: arXiv 2606.13381)",
        lambda family, encoders: HoelderStrategy(),
        lambda family: family.is_gaussian,
        is_mixture=True,
    ),
    "helvae": Fusion(
        "one Gaussian with hoelder's mean and variances (HELVAE: Vo & Valera 2026, arXiv 2601.06572)",
        lambda family, encoders: HellingerStrategy(),
        lambda family: family.is_gaussian,
    ),
    "wb": Fusion(
        "2-Wasserstein barycentre of the experts (WB-VAE: arXiv 2412.20487)",
        lambda family, encoders: WassersteinStrategy(),
        lambda family: family.is_gaussian,
    ),
    "mwb": Fusion(
        "mixture of the barycentres of all subsets (MWB-VAE: arXiv 2412.20487)",
        lambda family, encoders: MopoeStrategy(WassersteinStrategy()),
        lambda family: family.is_gaussian,
        is_mixture=True,
    ),
    "code": Fusion(
        "mixture of all subsets' dependent experts, with learned weights (CoDE-VAE: arXiv 2505.01134)",
        lambda family, encoders, rho=0.4: MopoeStrategy(
            DependentStrategy(rho), nn.Parameter(torch.zeros(len(all_subsets(n_experts(encoders)))))
        ),
        lambda family: family.is_gaussian,
        is_mixture=True,
    ),
    "own": Fusion(
        "each subset of the modalities has its own encoder (VAE, CVAE)",
        lambda family, encoders: OwnExpertStrategy(tuple(encoders)),
        stands_alone,
        posterior=without_sets,
    ),
    "joint": Fusion(
        "a joint encoder, and one for each modality (JMVAE: Suzuki et al. 2016, arXiv 1611.01891)",
        lambda family, encoders: OwnExpertStrategy(tuple(encoders)),
        stands_alone,
        posterior=without_sets,
        joint_encoder=True,
    ),
    "jnf": Fusion(
        "a joint encoder, and a normalizing flow for each modality (JNF: Senellart et al. 2023, arXiv 2305.11832)",
        lambda family, encoders: JointFlowsStrategy(tuple(encoders)),
        lambda family: family.is_gaussian,
        posterior=joint_flows,
        joint_encoder=True,
    ),
    "set": Fusion(
        "one posterior from the sum of the encodings (partial-VAE: Ma et al. 2019, arXiv 1809.11142)",
        None,
        stands_alone,
    ),
    "unstructured": Fusion(
        "one posterior from one network on all values, zeros where absent, and the mask: a baseline",
        None,
        stands_alone,
    ),
}


def check_fusion(fusion: str, family: Family) -> None:
    """Raise InputError for a fusion that does not exist for the family."""
    require(fusion in FUSIONS, f"there is no fusion {fusion}: there are {', '.join(FUSIONS)}")
    families = [name for name, other in FAMILIES.items() if FUSIONS[fusion].exists(other)]
    exists = f"there is no fusion {fusion} for {family.name} experts, only for {', '.join(families)} ones"
    require(FUSIONS[fusion].exists(family), f"{exists}: choose such experts, or another model")


def VAE(
    fusion: str | Strategy,
    encoder: Mapping[str, nn.Module],
    decoder: Mapping[str, nn.Module],
    likelihood: GroupedLikelihood,
    latent_dim: int,
    weights: Mapping[str, float] | None = None,
    posterior: str | Family = "gaussian",
    learn_prior: bool = False,
    private: Mapping[str, int] | None = None,
    n_clusters: int | None = None,
    rho: float | None = None,
) -> MultimodalVAE:
    """The model with a fusion and a posterior family.

    Args:
        fusion: a name in FUSIONS, or a strategy.
        encoder, decoder, likelihood, weights, private: see `MultimodalVAE`.
        latent_dim: D, private latents included.
        posterior: a family, or a name in FAMILIES.
        learn_prior: learn the prior's scales, if its family has any.
        n_clusters: number of clusters of a prior that is a mixture (CMVAE); None: the family's own prior.
        rho: correlation of the experts of the fusion code; None: 0.4.

    Raises:
        InputError: the fusion does not exist for the family, it needs private latents, or it has no rho.
    """
    known = not isinstance(posterior, str) or posterior in FAMILIES
    require(known, f"there is no posterior family {posterior}: there are {', '.join(FAMILIES)}")
    family = FAMILIES[posterior] if isinstance(posterior, str) else posterior
    private = private or {}
    latents = Latents(n_shared_latents(latent_dim, private), {name: private.get(name, 0) for name in encoder})
    strategy, variational_posterior, auxiliary, record = fusion, family.posterior(latents.sizes), None, None
    require(rho is None or fusion == "code", "rho is the correlation of the experts of the fusion code: leave it out")
    if isinstance(fusion, str):
        check_fusion(fusion, family)
        record = FUSIONS[fusion]
        own_network = f"the fusion {fusion} has its own network: give VAE the strategy, not its name"
        require(record.strategy is not None, own_network)
        strategy = record.strategy(family, encoder, **({} if rho is None else {"rho": rho}))
        auxiliary = family.prior(latents.sizes, True) if record.auxiliary else None
    if record and record.posterior:
        variational_posterior = record.posterior(variational_posterior, latents, encoder)
    elif strategy.is_mixture:
        variational_posterior = MixturePosterior(variational_posterior)
    return MultimodalVAE(
        encoder=encoder,
        variational_strategy=strategy,
        variational_posterior=variational_posterior,
        decoder=decoder,
        likelihood=likelihood,
        prior=_prior(family, latents.sizes, learn_prior, n_clusters),
        weights=weights,
        private=private,
        auxiliary=auxiliary,
    )


def _prior(family: Family, sizes: Sequence[int], learn: bool, n_clusters: int | None) -> nn.Module:
    """The family's prior, or a mixture of clusters."""
    if n_clusters is None:
        return family.prior(sizes, learn)
    known = [name for name, other in FAMILIES.items() if other.private_latents]
    require(not learn, "a clustered prior has fixed scales: leave out --learn-prior (in Python learn_prior)")
    require(family.private_latents, f"a clustered prior exists for {', '.join(known)} experts: choose one of these")
    return ClusteredPrior(family.prior(sizes, True).family, sum(sizes), sizes[0], n_clusters)


MVAE = partial(VAE, "poe")
