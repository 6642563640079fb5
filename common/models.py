"""The models by name: assemblies of the one class, `common.multimodal_vae.MultimodalVAE`."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from common.distributions.flows import masked_autoregressive_flow
from common.errors import require
from common.fusions import FAMILIES, FUSIONS, Family, check_fusion, vmf_family
from common.likelihoods import GroupedLikelihood
from common.mixture_posteriors import MixturePosterior, OwnLatentsMixture
from common.modalities import n_elements, shared_latents
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior
from common.variational_posteriors import JointFlowsPosterior
from common.variational_strategies import Strategy
from multivae_api.config import MMVAEConfig
from multivae_api.mmvae import MMVAE

__all__ = ["MMVAE", "MVAE", "VAE", "MMVAEConfig", "MultimodalVAE"]


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
        require(make is not None, f"the fusion {fusion} has its own network: give VAE the strategy, not its name")
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
