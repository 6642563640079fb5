"""What every posterior family can do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence


class Posterior(nn.Module):
    """A posterior family: parameters in, a Distribution q over z out, and methods that evaluate such a q.

    The methods here are for a single location-scale distribution, `MixturePosterior`'s for mixtures. T is the number of
    components, 1 without a mixture.

    Each family states its range: the parameters of experts and of a learned prior for which densities, KLs and their
    gradients are finite in float32, whatever the fusion. Outside, an exponent or a square overflows, and training stops
    since the loss or the weights are not finite.
    """

    has_density = True  # log q(z) has a closed form
    has_kl = True  # KL(q_1 || q_2) has a closed form
    is_mixture = False
    is_gaussian = False  # (mu, logvar) are the mean and the log-variance
    is_energy_based = False
    has_flows = False  # one for each modality
    per_latent = False  # private latents have their own parameters, which can be appended to the shared ones
    on_spheres = False  # z lies on unit spheres, so that no latent can move alone
    uses_rejection = False  # sampling takes a random number of operations, which no CUDA graph can hold

    def point(self, q: Distribution) -> Tensor:
        """The z that represents q in reconstructions, its mean: (B, D). NaN where q is uniform on a sphere."""
        return self.project(q.mean)

    def sample_and_point(self, q: Distribution) -> tuple[Tensor, Tensor]:
        """A sample of q, and the point of a component that is drawn for each example: each (B, D)."""
        return q.sample(), self.point(self.drawn_component(q))

    def project(self, z: Tensor) -> Tensor:
        """The point of the latent space nearest to z: (..., D) -> (..., D)."""
        return z

    def weighted_samples(self, q: Distribution, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        """Samples of q for the expectation in an ELBO, and the KL of q.

        Returns:
            z (J, ..., B, D), their weights in the expectation (J, ..., B), and KL(q || prior), (..., B), nats.
        """
        z = q.rsample((1,))
        return z, torch.ones_like(z[..., 0]), kl_divergence(q, prior)

    def proposal(self, q: Distribution) -> Distribution:
        """The distribution, of known density, from which importance sampling draws to estimate likelihoods."""
        return q

    def sample_components(self, q: Distribution, n: int) -> Tensor:
        """Draw n samples from each component (stratified sampling), with gradients: (T, n, B, D)."""
        return q.rsample((1, n))

    def component_weights(self, q: Distribution) -> Tensor:
        """The components' weights in the mixture, (T, B)."""
        return q.mean.new_ones(1, len(q.mean))

    def component_log_probs(self, q: Distribution, z: Tensor) -> Tensor:
        """log pi_t q_t(z) for z (..., B, D): (..., B, T), nats; -inf where pi_t is 0. Their logsumexp is log q(z)."""
        return q.log_prob(z).unsqueeze(-1)

    def private_log_prob(self, q: Distribution, z: Tensor, prior: nn.Module) -> Tensor:
        """log-density of each component's private latents, for z (T, K, B, D): (T, K, B), here 0."""
        return z.new_zeros(z.shape[:-1])

    def by_latent(self, r: Tensor) -> Tensor:
        """Spread r, the responsibility of z's component (T, K, B), over the latents: (T, K, B, 1 or D)."""
        return r.unsqueeze(-1)

    def log_prob_of_each(self, q: Distribution, z: Tensor) -> Tensor:
        """Log-density of each latent of z (..., D) under a q of independent latents, not a mixture: (..., D), nats."""
        return q.base_dist.log_prob(z)

    def only_component(self, q: Distribution) -> Distribution:
        """The only component with positive weight (q(z|x_m) has just one); q itself if it is not a mixture."""
        return q

    def drawn_component(self, q: Distribution) -> Distribution:
        """A component of the mixture for each example, drawn by its weight; q itself if it is not a mixture."""
        return q

    def scales(self, q: Distribution) -> Tensor:
        """The scale of each latent, (B, D), or for a mixture of each component's latents, (B, T, D)."""
        return q.base_dist.scale

    def detached(self, q: Distribution, except_for: Tensor | None = None) -> Distribution:
        """q with its parameters detached, except where `except_for`, (B, D) or (B, T, D) bool, is True."""
        if except_for is None:
            return self.map_parameters(q, Tensor.detach)
        return self.map_parameters(q, lambda x: torch.where(except_for, x, x.detach()))

    def map_parameters(self, q: Distribution, change: Callable[[Tensor], Tensor]) -> Distribution:
        """q with `change` applied to each of its parameters, (..., D)."""
        base = q.base_dist
        changed = (change(getattr(base, name)) for name in base.arg_constraints)
        return Independent(type(base)(*changed, validate_args=False), 1)

    def factors(self, q: Distribution) -> Distribution:
        """Independent factors of a non-mixture posterior: (B, D), one per latent, or (B, n), one per sphere."""
        return q.base_dist
