"""What a distribution over the latents z can do beside torch's methods."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence


class LatentDistribution(Distribution):
    """A distribution over z (..., D) with T components, of which each example has the same number.

    The methods here are those of a single distribution, T = 1. Posteriors have the batch shape (B,).
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)

    @property
    def components(self) -> Distribution:
        """The q_t, batch shape (..., T) if it is a mixture, else q itself."""
        return self

    @property
    def weights(self) -> Tensor:
        """pi of the components, (T, B)."""
        return self.mean.new_ones(1, *self.batch_shape)

    @property
    def point(self) -> Tensor:
        """The z that represents q in reconstructions, its mean: (..., D). NaN where q is uniform on a sphere."""
        return self.project(self.mean)

    @property
    def proposal(self) -> Distribution:
        """The distribution, of known density, from which importance sampling draws to estimate likelihoods."""
        return self

    def project(self, z: Tensor) -> Tensor:
        """The point of the latent space nearest to z: (..., D) -> (..., D)."""
        return z

    def kl(self, p: Distribution) -> Tensor:
        """KL(q || p) in closed form, (...), nats."""
        return kl_divergence(self, p)

    def elbo_samples(self, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        """Samples for the expectation in an ELBO, and the KL that goes with them.

        Returns:
            z (J, ..., B, D), their weights in the expectation (J, ..., B), and KL(q || prior), (..., B), nats.
        """
        z = self.rsample((1,))
        return z, torch.ones_like(z[..., 0]), self.kl(prior)

    def sample_components(self, n: int) -> Tensor:
        """Draw n samples from each component (stratified sampling), with gradients: (T, n, B, D)."""
        return self.rsample((1, n))

    def component_log_probs(self, z: Tensor) -> Tensor:
        """log pi_t q_t(z) for z (..., B, D): (..., B, T), nats; -inf where pi_t is 0. Their logsumexp is log q(z)."""
        return self.log_prob(z).unsqueeze(-1)

    def private_log_prob(self, z: Tensor, prior: nn.Module) -> Tensor:
        """log-density of each component's private latents at its own samples z (T, K, B, D): (T, K, B), here 0."""
        return z.new_zeros(z.shape[:-1])

    def responsibility_per_latent(self, r: Tensor) -> Tensor:
        """The responsibility r (T, K, B) of z's component for each latent of z: (T, K, B, 1 or D)."""
        return r.unsqueeze(-1)

    def only_component(self) -> Distribution:
        """The only component with positive weight (q(z|x_m) has just one); q itself if it is not a mixture."""
        return self

    def drawn_component(self) -> Distribution:
        """A component of the mixture for each example, drawn by its weight; q itself if it is not a mixture."""
        return self

    def sample_and_point(self) -> tuple[Tensor, Tensor]:
        """A sample of q, and the point of a component that is drawn for each example: each (B, D)."""
        return self.sample(), self.drawn_component().point

    def detached(self, except_for: Tensor | None = None) -> Distribution:
        """q with its parameters detached, except where `except_for`, (B, D) or (B, T, D) bool, is True."""
        if except_for is None:
            return self.map_parameters(Tensor.detach)
        return self.map_parameters(lambda x: torch.where(except_for, x, x.detach()))


class Factorised(LatentDistribution, Independent):
    """Independent latents, each of one of torch's location-scale families: batch shape (...), event shape (D,)."""

    def __init__(self, factors: Distribution) -> None:
        Independent.__init__(self, factors, 1, validate_args=False)

    def expand(self, batch_shape: tuple[int, ...], _instance: None = None) -> "Factorised":
        return Factorised(self.factors.expand((*batch_shape, *self.event_shape)))

    @property
    def factors(self) -> Distribution:
        """The latents one by one, batch shape (..., D)."""
        return self.base_dist

    @property
    def scales(self) -> Tensor:
        """The scale of each latent, (..., D)."""
        return self.base_dist.scale

    def log_prob_of_each(self, z: Tensor) -> Tensor:
        """Log-density of each latent of z (..., D): (..., D), nats."""
        return self.base_dist.log_prob(z)

    def map_parameters(self, change: Callable[[Tensor], Tensor]) -> "Factorised":
        """q with `change` applied to each of its parameters, (..., D)."""
        changed = (change(getattr(self.factors, name)) for name in self.factors.arg_constraints)
        return Factorised(type(self.factors)(*changed, validate_args=False))
