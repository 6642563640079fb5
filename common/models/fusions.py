"""Ways to fuse experts: one record each, which says for which posterior families it exists."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.distributions.flows import masked_autoregressive_flow
from common.errors import require
from common.modalities import n_elements
from common.models.families import Family
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

    @property
    def of_each_modality(self) -> Tensor:
        """Which latents belong to each modality alone, (M, D) bool."""
        sizes = torch.tensor(list(self.private.values()))
        ends = self.shared + sizes.cumsum(0)
        latents = torch.arange(sum(self.sizes))
        return (latents >= (ends - sizes)[:, None]) & (latents < ends[:, None])


def unchanged(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The family itself: the strategy gives one member's parameters."""
    return posterior


def without_sets(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The family itself, for encoders that each give one whole posterior; one of them sees all modalities."""
    sets = [key for key, network in encoder.items() if n_elements(network)]
    several = (
        f"a set's encoder ({', '.join(sets)}) gives a posterior for each element, and this fusion needs one in all"
    )
    require(not sets, f"{several}: choose poe, moe or set")
    seen = [frozenset(key.split(",")) for key in encoder]
    names = list(dict.fromkeys(name for key in encoder for name in key.split(",")))
    require(frozenset(names) in seen, f"no encoder sees all modalities: add {','.join(names)!r}, or choose poe or moe")
    return posterior


def mixture(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The mixture of the family's members."""
    return MixturePosterior(posterior)


def private_latents_mixture(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """The mixture of the family's members, each of which gives the private latents of its own modality alone."""
    require(any(latents.private.values()), "the fusion mmvae+ needs private latents: without them it is moe")
    sets = [key for key, network in encoder.items() if n_elements(network)]
    require(not sets, f"the fusion mmvae+ needs an encoder for each modality, and no sets (got {', '.join(sets)})")
    return PrivateLatentsMixturePosterior(posterior, latents.of_each_modality, latents.shared)


def joint_flows(posterior: Posterior, latents: Latents, encoder: Mapping[str, nn.Module]) -> nn.Module:
    """JNF's posterior, with a flow for each modality."""
    without_sets(posterior, latents, encoder)
    d = sum(latents.sizes)
    return JointFlowsPosterior([masked_autoregressive_flow(d) for key in encoder if "," not in key])


class Fusion(NamedTuple):
    """A way to fuse experts.

    summary: what --help says, with the paper.
    strategy: family, keys of the encoders -> the strategy's module; None if its network must be given (`SetStrategy`,
        `UnstructuredStrategy`).
    exists: family -> whether the fusion exists for it.
    why: why it does not exist for other families.
    posterior: the family's module, the model's latents, its encoders -> the module that makes q(z|x_S) of what the
        strategy gives. Raises InputError for latents or encoders that the fusion cannot have.
    is_mixture: whether the posterior is a mixture of the family's members.
    joint_encoder: whether it needs an encoder of all modalities too.
    auxiliary: whether training draws private latents of other modalities from auxiliary priors.
    """

    summary: str
    strategy: Callable[[Family, Sequence[str]], Strategy] | None
    exists: Callable[[Family], bool]
    why: str
    posterior: Callable[[Posterior, Latents, Mapping[str, nn.Module]], nn.Module] = unchanged
    is_mixture: bool = False
    joint_encoder: bool = False
    auxiliary: bool = False


NOT_ALONE = "energy-based experts are only multiplied, laplace-normal ones only mixed"


def stands_alone(family: Family) -> bool:
    """Whether one network can give a whole posterior of the family."""
    return family.has_density and not family.only_mixed


FUSIONS = {
    "poe": Fusion(
        summary="product of experts and prior (MVAE: Wu & Goodman 2018, arXiv 1802.05335)",
        strategy=lambda family, encoders: family.product(),
        exists=lambda family: family.product is not None,
        why="products exist for gaussian, vmf and ebm experts",
    ),
    "product": Fusion(
        summary="product of experts without the prior (MVTCAE: Hwang et al. 2021, NeurIPS)",
        strategy=lambda family, encoders: GaussianProductStrategy(),
        exists=lambda family: family.is_gaussian,
        why="it needs Gaussian experts",
    ),
    "quotient": Fusion(
        summary="quotient of posteriors (MVAE-Q: Wu & Goodman 2018, eq. 3)",
        strategy=lambda family, encoders: GaussianQuotientStrategy(),
        exists=lambda family: family.is_gaussian,
        why="only Gaussians have this quotient",
    ),
    "moe": Fusion(
        summary="mixture of experts (Wang et al. 2016, arXiv 1610.03454; MMVAE: Shi et al. 2019, arXiv 1911.03393)",
        strategy=lambda family, encoders: MoeStrategy(),
        exists=lambda family: family.has_density,
        why="energy-based experts are only multiplied",
        posterior=mixture,
        is_mixture=True,
    ),
    "mmvae+": Fusion(
        summary="mixture of experts whose components have private latents (MMVAE+: Palumbo et al. 2023, ICLR)",
        strategy=lambda family, encoders: MoeStrategy(),
        exists=lambda family: family.private_latents,
        why="a modality's private latents need their own parameters in the experts and in the prior",
        posterior=private_latents_mixture,
        is_mixture=True,
        auxiliary=True,
    ),
    "mopoe": Fusion(
        summary="mixture of the products of all subsets (MoPoE: Sutter et al. 2021, arXiv 2105.02470)",
        strategy=lambda family, encoders: MopoeStrategy(family.product()),
        exists=lambda family: family.product is not None and family.has_density,
        why="the products that it mixes leave the family, or have no density in closed form",
        posterior=mixture,
        is_mixture=True,
    ),
    "mopoe-published": Fusion(
        summary="mopoe as in its authors' code: only the product of all modalities includes the prior",
        strategy=lambda family, encoders: PublishedMopoeStrategy(),
        exists=lambda family: family.is_gaussian,
        why="MoPoE's code has Gaussian experts",
        posterior=mixture,
        is_mixture=True,
    ),
    "own": Fusion(
        summary="each subset of the modalities has its own encoder (VAE, CVAE)",
        strategy=lambda family, encoders: OwnExpertStrategy(encoders),
        exists=stands_alone,
        why=NOT_ALONE,
        posterior=without_sets,
    ),
    "joint": Fusion(
        summary="a joint encoder, and one for each modality (JMVAE: Suzuki et al. 2016, arXiv 1611.01891)",
        strategy=lambda family, encoders: OwnExpertStrategy(encoders),
        exists=stands_alone,
        why=NOT_ALONE,
        posterior=without_sets,
        joint_encoder=True,
    ),
    "jnf": Fusion(
        summary="a joint encoder, and a normalizing flow for each modality "
        "(JNF: Senellart et al. 2023, arXiv 2305.11832)",
        strategy=lambda family, encoders: JointFlowsStrategy(encoders),
        exists=lambda family: family.is_gaussian,
        why="the bases of its flows, and its joint posterior, are Gaussian",
        posterior=joint_flows,
        joint_encoder=True,
    ),
    "set": Fusion(
        summary="one posterior from the sum of the encodings (partial-VAE: Ma et al. 2019, arXiv 1809.11142)",
        strategy=None,
        exists=stands_alone,
        why=NOT_ALONE,
    ),
    "unstructured": Fusion(
        summary="one posterior from one network on all values, zeros where absent, and the mask: a baseline",
        strategy=None,
        exists=stands_alone,
        why=NOT_ALONE,
    ),
}


def check_fusion(fusion: str, family: Family) -> None:
    """Refuse a fusion that does not exist for the family.

    Raises:
        InputError: says why.
    """
    require(fusion in FUSIONS, f"there is no fusion {fusion}: there are {', '.join(FUSIONS)}")
    record = FUSIONS[fusion]
    reason = f"there is no fusion {fusion} for {family.name} experts: {record.why}"
    require(record.exists(family), f"{reason}; choose other experts, or another model")
