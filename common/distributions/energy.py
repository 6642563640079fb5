"""Energy-based posteriors: their density is known up to its normaliser."""

import math
from functools import cached_property

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from common.distributions.location_scale import DiagonalGaussian
from common.experts import product_of_experts


class LocScaleEbm(Distribution):
    r"""A product of experts of one location-scale family, its base density a Gaussian times a learned exp(-E).

    .. math:: q(z|x_S) \propto p(z) \prod_{m \in S} N(z; \mu_m, \sigma_m^2)
              \exp \Big( -E \Big( \frac{z - \mu_m}{\sigma_m} \Big) \Big)
              \propto \tilde q(z) = N(z; \mu, \sigma^2) \exp \Big( -\sum_{m \in S} E(\ldots) \Big), \qquad E \ge 0

    with :math:`N(z; \mu, \sigma^2)` the Gaussian product of the experts and the prior. (The family of
    github.com/jgoffinet/poe-vae, which leaves a well-defined proposal as an open item.)

    The proposal r is the equally weighted mixture of the present Gaussian experts, their product and the prior. Its
    density is known, and since E is not negative, :math:`\tilde q / r` is at most the number of components, so that
    estimates have a finite variance. Everything but :math:`\tilde q` is an estimate from new samples of r at each call.

    Args:
        present: which experts take part, (..., M) bool.
        mu, logvar: the experts' means and log-variances, (..., M, D).
        energy: (N, D) -> E (N, 1), not negative.
        n: samples that an estimate draws from each component of r.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)

    def __init__(self, present: Tensor, mu: Tensor, logvar: Tensor, energy: nn.Module, n: int) -> None:
        super().__init__(present.shape[:-1], mu.shape[-1:], validate_args=False)
        self.present, self.mu, self.logvar, self.energy, self.n = present, mu, logvar, energy, n

    @cached_property
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

    def pool(self, shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw n samples from each component of r, J = n (M + 2) in all, and weigh them.

        Returns:
            z (*shape, J, *batch_shape, D), with gradients, and log :math:`\tilde q` and log w, each (*shape, J,
            *batch_shape). w is :math:`\tilde q / r` divided by the number of samples, so that its sum over J estimates
            the normaliser; it is 0 for samples from absent experts.
        """
        r = self.proposal
        z = r.component_distribution.rsample((*shape, self.n))  # (*shape, n, ..., M + 2, D)
        share = r.mixture_distribution.logits.movedim(-1, 0)  # (M + 2, ...)
        z = z.movedim(-2, len(shape))  # (*shape, M + 2, n, ..., D)
        log_q = self.log_density(z)
        log_w = log_q - r.log_prob(z) + share.unsqueeze(1) - math.log(self.n)
        return tuple(x.flatten(len(shape), len(shape) + 1) for x in (z, log_q, log_w))

    def weighted_samples(self, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        r"""Samples for the expectation in an ELBO: a pool with self-normalised weights, and the KL that fits them.

        The KL is :math:`\sum_j w_j (\log \tilde q(z_j) - \log p(z_j)) - \log \hat Z`. With it the ELBO is the one of
        the distribution of a sample chosen from the pool by weight, so that it is a lower bound for any pool size
        (Lawson et al. 2019, arXiv 1910.14265).

        Returns:
            z (J, ..., B, D), their weights in the expectation (J, ..., B), and KL(q || prior), (..., B), nats.
        """
        z, log_q, log_w = self.pool()
        weight = log_w.softmax(dim=0)
        # samples without weight may have an infinite log q
        log_ratio = torch.where(weight > 0, log_q - prior.log_prob(z), 0)
        return z, weight, (weight * log_ratio).sum(dim=0) - log_w.logsumexp(dim=0)

    def log_normaliser(self, shape: tuple[int, ...] = ()) -> Tensor:
        r"""The logarithm of an unbiased estimate of the integral of :math:`\tilde q`: (*shape, *batch_shape), nats."""
        return self.pool(shape)[-1].logsumexp(dim=len(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Estimated log-density: log q~ minus the logarithm of an estimated normaliser, (...), nats."""
        return self.log_density(value) - self.log_normaliser()

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """One sample of each pool, chosen by weight (sampling-importance-resampling); nearly from q if n is large."""
        with torch.no_grad():
            z, _, log_w = self.pool(Size(sample_shape))
            return resample(z, log_w, dim=len(sample_shape))[0]

    @property
    def mean(self) -> Tensor:
        """Estimated mean, (..., D)."""
        z, _, log_w = self.pool()
        return (log_w.softmax(dim=0).unsqueeze(-1) * z).sum(dim=0)

    @property
    def variance(self) -> Tensor:
        """Estimated variance of each dimension, (..., D)."""
        z, _, log_w = self.pool()
        w = log_w.softmax(dim=0).unsqueeze(-1)
        return (w * (z - (w * z).sum(dim=0)).square()).sum(dim=0)


def resample(z: Tensor, log_w: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Choose one sample of each pool with probability proportional to its weight.

    Args:
        z, log_w: samples (..., J, ..., D) and their log-weights (..., J, ...).
        dim: the dimension of J.

    Returns:
        the chosen z (..., D), and their indices among the J, (...).
    """
    # Gumbel noise: unlike torch's multinomial it passes NaN on, to the check of the loss
    noise = torch.empty_like(log_w, requires_grad=False).exponential_().log()
    index = (log_w.detach() - noise).argmax(dim=dim, keepdim=True)
    z = z.gather(dim, index.unsqueeze(-1).expand(*index.shape, z.shape[-1])).squeeze(dim)
    return z, index.squeeze(dim)
