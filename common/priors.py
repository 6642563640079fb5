"""Priors p(z): modules whose call gives a Distribution over z."""

import copy

from common.distributions.location_scale import Concatenated, DiagonalGaussian, Spheres
from common.distributions.von_mises_fisher import HypersphericalUniform
from common.errors import require

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily


class LearnedPrior(nn.Module):
    """A prior in the posterior's family, with learned or fixed scales (MMVAE, Shi et al. 2019, arXiv 1911.03393).

    Args:
        family: a `common.variational_posteriors` module with two parameters, location and scale.
        latent_dim: D.
        learn: whether the scale parameter is trained; it starts at 0.
        learn_loc: whether the location is trained too; it starts, and else stays, at 0.
    """

    is_mixture = False
    is_standard = False

    def __init__(self, family: nn.Module, latent_dim: int, learn: bool = True, learn_loc: bool = False) -> None:
        super().__init__()
        self.family = family
        if learn_loc:
            self.loc = nn.Parameter(torch.zeros(latent_dim))
        else:
            self.register_buffer("loc", torch.zeros(latent_dim))
        self.scale = nn.Parameter(torch.zeros(latent_dim), requires_grad=learn)

    def forward(self) -> Distribution:
        """p(z), batch shape (), event shape (D,)."""
        return self.family(self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """The family's parameters, location and scale before its constraint, each (D,)."""
        return self.loc, self.scale

    def private(self, first: int) -> Distribution:
        """p of the latents from the index `first` on."""
        return self().map_parameters(lambda x: x[first:])


class StandardGaussianPrior(nn.Module):
    """N(0, I).

    Args:
        latent_dim: D. Only sampling needs it; log-densities and KLs broadcast.
    """

    is_mixture = False
    is_standard = True  # its parameters are 0, as strategies have them without modalities

    def __init__(self, latent_dim: int = 1) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> DiagonalGaussian:
        """p(z), batch shape (), event shape (D,)."""
        return DiagonalGaussian(*self.params)

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (D,)."""
        return self.zeros, self.zeros

    def private(self, first: int) -> DiagonalGaussian:
        """p of the latents from the index `first` on."""
        return DiagonalGaussian(self.zeros[first:], self.zeros[first:])


class ClusteredPrior(nn.Module):
    r"""A mixture over the shared latents u, independent of the private ones w (CMVAE, Palumbo et al. 2024, ICLR).

    .. math:: p(z) = p(w) \sum_c \pi_c \, p(u|c)

    The clusters' locations and weights are learned. Their scales, and the locations and scales of p(w), stay fixed at
    the family's parameter 0, which is a scale of 1 for Gaussians and for Laplace with a softmax.

    Args:
        family: a `common.variational_posteriors` module with two parameters, location and scale.
        latent_dim: D.
        n_shared: the number of the first latents, which are u.
        n_clusters: C; the locations start uniformly in [-1, 1].

    Raises:
        InputError: no cluster.
    """

    is_mixture = True
    is_standard = False

    def __init__(self, family: nn.Module, latent_dim: int, n_shared: int, n_clusters: int) -> None:
        super().__init__()
        require(n_clusters > 0, f"a clustered prior needs at least one cluster, not {n_clusters}")
        self.family, self.n_shared = family, n_shared
        self.loc = nn.Parameter(torch.rand(n_clusters, n_shared) * 2 - 1)
        self.logits = nn.Parameter(torch.zeros(n_clusters))
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Distribution:
        """p(z), batch shape (), event shape (D,)."""
        mixture = MixtureSameFamily(Categorical(logits=self.log_weights, validate_args=False), self.components(), False)
        return Concatenated(mixture, self.private(self.n_shared))

    @property
    def log_weights(self) -> Tensor:
        """log pi of each cluster, (C,)."""
        return self.logits.log_softmax(dim=0)

    def components(self) -> Distribution:
        """p(u|c), batch shape (C,), event shape (number of shared latents,)."""
        loc = torch.cat([self.loc, self.zeros[self.n_shared :].expand(len(self.loc), -1)], dim=1)
        clusters = self.family((loc, torch.zeros_like(loc)))
        return clusters.map_parameters(lambda x: x[:, : self.n_shared])

    @property
    def params(self) -> tuple[Tensor, Tensor]:
        """The family's parameters of p(w), at the places of w in (D,)."""
        return self.zeros, self.zeros

    def private(self, first: int) -> Distribution:
        """p of the latents from the index `first` on, none of them shared."""
        return self.family(self.params).map_parameters(lambda x: x[first:])

    def cluster_log_probs(self, u: Tensor) -> Tensor:
        """log q(c|u) = log p(c|u) of u (..., number of shared latents): (..., C)."""
        return (self.components().log_prob(u.unsqueeze(-2)) + self.log_weights).log_softmax(dim=-1)

    def only(self, clusters: Tensor) -> "ClusteredPrior":
        """A prior of the indexed clusters (n,) alone, whose weights sum to 1 again."""
        prior = copy.deepcopy(self)
        prior.loc = nn.Parameter(self.loc.detach()[clusters])
        prior.logits = nn.Parameter(self.logits.detach()[clusters])
        return prior


class UniformHypersphericalPrior(nn.Module):
    """The uniform distribution on n unit spheres side by side, each in D / n dimensions.

    Args:
        latent_dim: D, a multiple of n.
    """

    is_mixture = False
    is_standard = True

    def __init__(self, latent_dim: int, n: int = 1) -> None:
        super().__init__()
        require(latent_dim % n == 0, f"{n} spheres need a multiple of {n} latent dimensions (got {latent_dim})")
        self.n = n
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Spheres:
        """p(z), batch shape (), event shape (D,)."""
        return Spheres(HypersphericalUniform(len(self.zeros) // self.n, (self.n,), like=self.zeros))
