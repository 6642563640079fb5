"""Energy-based posteriors: their density is known up to its normaliser."""

from functools import cached_property

from common.distributions.location_scale import DiagonalGaussian
from common.distributions.unnormalised import Unnormalised
from common.experts import product_of_experts

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily


class LocScaleEbm(Unnormalised):
    r"""A product of experts, each a Gaussian times a learned factor exp(-E).

    .. math:: q(z|x_S) \propto p(z) \prod_{m \in S} N(z; \mu_m, \sigma_m^2)
              \exp \Big( -E \Big( \frac{z - \mu_m}{\sigma_m} \Big) \Big)
              \propto \tilde q(z) = N(z; \mu, \sigma^2) \exp \Big( -\sum_{m \in S} E(\ldots) \Big), \qquad E \ge 0

    with :math:`N(z; \mu, \sigma^2)` the Gaussian product of the experts and the prior. (The family of
    github.com/jgoffinet/poe-vae, which leaves a well-defined proposal as an open item.)

    The proposal r is the equally weighted mixture of the present Gaussian experts, their product and the prior. Its
    density is known, and since E is not negative, :math:`\tilde q / r` is at most the number of components, so that
    estimates have a finite variance.

    Args:
        present: which experts take part, (..., M) bool.
        mu, logvar: the experts' means and log-variances, (..., M, D).
        energy: (N, D) -> E (N, 1), not negative.
        n: samples that an estimate draws from each component of r.
    """

    def __init__(self, present: Tensor, mu: Tensor, logvar: Tensor, energy: nn.Module, n: int) -> None:
        super().__init__(present.shape[:-1], mu.shape[-1:], validate_args=False)
        self.present, self.mu, self.logvar, self.energy, self.n = present, mu, logvar, energy, n

    @cached_property
    @torch.enable_grad()  # its first use may be in `sample`, without gradients, and a later one in a density
    def proposal(self) -> MixtureSameFamily:
        """r, a mixture of M + 2 components: the experts, their product, the prior. Absent experts have weight 0."""
        present = self.present.unsqueeze(-1)
        mu, logvar = (x.masked_fill(~present, 0) for x in (self.mu, self.logvar))  # (..., M, D)
        prior = torch.zeros_like(mu[..., :1, :])
        product = (x.unsqueeze(-2) for x in (self.product.mean, self.product.logvar))
        components = [torch.cat([x, y, prior], dim=-2) for x, y in zip((mu, logvar), product, strict=True)]
        logits = torch.cat([torch.zeros_like(mu[..., 0]).masked_fill(~self.present, -torch.inf), prior[..., 0]], dim=-1)
        logits = torch.cat([logits, prior[..., 0]], dim=-1)  # (..., M + 2)
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), DiagonalGaussian(*components), False)

    @cached_property
    @torch.enable_grad()  # its first use may be in `sample`, without gradients, and a later one in a density
    def product(self) -> DiagonalGaussian:
        """The Gaussian product of the present experts and the prior, which is q where E is 0."""
        flat = (x.flatten(0, -3).movedim(-2, 0) for x in (self.mu, self.logvar))  # (M, N, D)
        product = product_of_experts(*flat, self.present.flatten(0, -2))
        return DiagonalGaussian(*(x.view(*self.batch_shape, -1) for x in product))

    def log_density(self, z: Tensor) -> Tensor:
        r"""The unnormalised log-density, log :math:`\tilde q`, at z (..., D): (...), nats."""
        u = (z.unsqueeze(-2) - self.mu) * (-0.5 * self.logvar).exp()  # (..., M, D)
        energy = self.energy(u.flatten(0, -2)).view(u.shape[:-1])  # (..., M)
        return self.product.log_prob(z) - torch.where(self.present, energy, 0).sum(dim=-1)

    def elbo_samples(self, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        r"""Samples for the expectation in an ELBO: a pool with self-normalised weights, and the KL that goes with them.

        The KL is :math:`\sum_j w_j (\log \tilde q(z_j) - \log p(z_j)) - \log \hat Z`. An ELBO with this KL is a lower
        bound for any pool size: it is the ELBO of a posterior that draws a pool and chooses a sample by weight (Lawson
        et al. 2019, arXiv 1910.14265).

        Returns:
            z (J, ..., B, D), their weights in the expectation (J, ..., B), and KL(q || prior), (..., B), nats.
        """
        z, log_q, log_w = self.pool()
        weight = log_w.softmax(dim=0)
        # samples without weight may have an infinite log q
        log_ratio = torch.where(weight > 0, log_q - prior.log_prob(z), 0)
        return z, weight, (weight * log_ratio).sum(dim=0) - log_w.logsumexp(dim=0)
