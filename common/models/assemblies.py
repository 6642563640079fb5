"""Models from a fusion and a posterior family."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.modalities import n_shared_latents
from common.models.families import FAMILIES, Family
from common.models.fusions import FUSIONS, Latents, check_fusion
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior
from common.variational_strategies import Strategy


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
) -> MultimodalVAE:
    """The model with a fusion and a posterior family.

    Args:
        fusion: a name in FUSIONS, or a strategy whose posterior is not a mixture.
        encoder, decoder, likelihood, weights, private: see `MultimodalVAE`.
        latent_dim: D, private latents included.
        posterior: a family, or a name in FAMILIES.
        learn_prior: learn the prior's scales, if its family has any.
        n_clusters: number of clusters of a prior that is a mixture (CMVAE); None: the family's own prior.

    Raises:
        InputError: the fusion does not exist for the family, or it needs private latents.
    """
    known = not isinstance(posterior, str) or posterior in FAMILIES
    require(known, f"there is no posterior family {posterior}: there are {', '.join(FAMILIES)}")
    family = FAMILIES[posterior] if isinstance(posterior, str) else posterior
    private_of_each = {name: (private or {}).get(name, 0) for name in encoder}
    latents = Latents(n_shared_latents(latent_dim, private or {}), private_of_each)
    strategy, variational_posterior, auxiliary = fusion, family.posterior(latents.sizes), None
    if isinstance(fusion, str):
        check_fusion(fusion, family)
        record = FUSIONS[fusion]
        require(
            record.strategy is not None, f"the fusion {fusion} has its own network: give VAE the strategy, not its name"
        )
        strategy = record.strategy(family, tuple(encoder))
        variational_posterior = record.posterior(variational_posterior, latents, encoder)
        auxiliary = family.prior(latents.sizes, True) if record.auxiliary else None
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
