"""Energy-based posteriors, whose density is known but for its normaliser."""

import math
from functools import cached_property

import torch
from torch import Size, Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily

from common.distributions.location_scale import DiagonalGaussian
from common.experts import product_of_experts


class LocScaleEbm(Distribution):
    r"""A product of experts of a location-scale family whose base density is a Gaussian times a learned exp(-E).

    .. math:: q(z|x_S) \propto p(z) \prod_{m \in S} N(z; \mu_m, \sigma_m^2)
              \exp \Big( -E \Big( \frac{z - \mu_m}{\sigma_m} \Big) \Big)
              \propto \tilde q(z) = N(z; \mu, \sigma^2) \exp \Big( -\sum_{m \in S} E(\ldots) \Big), \qquad E \ge 0

    with :math:`N(z; \mu, \sigma^2)` the Gaussian product of the experts and the prior.

    (github.com/jgoffinet/poe-vae; its open item is a well-defined proposal.) The proposal r is the mixture, in equal
    parts, of the Gaussian experts that are there, of their product and of the prior: of known density, and, since E is
    not negative, :math:`\tilde q / r` is at most the number of components, so that estimates have a finite variance.
    Whatever is not :math:`\tilde q` is an estimate with samples of r, anew at each call.

    Args:
        present: which experts take part, (..., M) bool.
        mu, logvar: theirs, (..., M, D).
        energy: (N, D) -> E (N, 1).
        n: samples of each of r's components in an estimate.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)

    def __init__(self, present: Tensor, mu: Tensor, logvar: Tensor, energy: nn.Module, n: int) -> None:
        super().__init__(present.shape[:-1], mu.shape[-1:], validate_args=False)
        self.present, self.mu, self.logvar, self.energy, self.n = present, mu, logvar, energy, n

    @cached_property
    def proposal(self) -> MixtureSameFamily:
        """r, of M + 2 components: the experts, their product, the prior."""
        there = self.present.unsqueeze(-1)
        mu, logvar = (x.masked_fill(~there, 0) for x in (self.mu, self.logvar))  # (..., M, D)
        prior = torch.zeros_like(mu[..., :1, :])
        product = (x.unsqueeze(-2) for x in (self.product.mean, self.product.logvar))
        components = [torch.cat([x, y, prior], dim=-2) for x, y in zip((mu, logvar), product, strict=True)]
        logits = torch.cat([torch.zeros_like(mu[..., 0]).masked_fill(~self.present, -torch.inf), prior[..., 0]], dim=-1)
        logits = torch.cat([logits, prior[..., 0]], dim=-1)  # (..., M + 2)
        return MixtureSameFamily(Categorical(logits=logits, validate_args=False), DiagonalGaussian(*components), False)

    @cached_property
    def product(self) -> DiagonalGaussian:
        """The Gaussian product of the experts that are there and the prior: q where E is 0."""
        flat = (x.flatten(0, -3).movedim(-2, 0) for x in (self.mu, self.logvar))  # (M, N, D)
        product = product_of_experts(*flat, self.present.flatten(0, -2))
        return DiagonalGaussian(*(x.view(*self.batch_shape, -1) for x in product))

    def log_density(self, z: Tensor) -> Tensor:
        r"""log :math:`\tilde q`, not normalised, of z (..., D): (...)."""
        u = (z.unsqueeze(-2) - self.mu) * (-0.5 * self.logvar).exp()  # (..., M, D)
        energy = self.energy(u.flatten(0, -2)).view(u.shape[:-1])  # (..., M)
        return self.product.log_prob(z) - torch.where(self.present, energy, 0).sum(dim=-1)

    def pool(self, shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
        r"""Samples of r, n of each component, and their weights.

        Returns:
            z (*shape, J, *batch_shape, D), with gradients, and log :math:`\tilde q` and log w, (*shape, J,
            *batch_shape): w is :math:`\tilde q / r` over the number of samples, so that its sum over J estimates the
            normaliser. w is 0 for the J that are of experts that are not there.
        """
        r = self.proposal
        z = r.component_distribution.rsample((*shape, self.n))  # (*shape, n, ..., M + 2, D)
        share = r.mixture_distribution.logits.movedim(-1, 0)  # (M + 2, ...)
        z = z.movedim(-2, len(shape))  # (*shape, M + 2, n, ..., D)
        log_q = self.log_density(z)
        log_w = log_q - r.log_prob(z) + share.unsqueeze(1) - math.log(self.n)
        return tuple(x.flatten(len(shape), len(shape) + 1) for x in (z, log_q, log_w))

    def weighted_samples(self, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        r"""What an ELBO takes: a pool with self-normalised weights in place of samples, and a KL that goes with it.

        The KL is :math:`\sum_j w_j (\log \tilde q(z_j) - \log p(z_j)) - \log \hat Z`. With it the ELBO is that of the
        distribution that choosing from a pool has, and so a bound for any size of the pool (Lawson et al. 2019, arXiv
        1910.14265).

        Returns:
            z (J, ..., B, D), their weights in the expectation (J, ..., B), and KL(q || prior), (..., B), nats.
        """
        z, log_q, log_w = self.pool()
        weight = log_w.softmax(dim=0)
        # samples without weight may have an infinite log q
        log_ratio = torch.where(weight > 0, log_q - prior.log_prob(z), 0)
        return z, weight, (weight * log_ratio).sum(dim=0) - log_w.logsumexp(dim=0)

    def log_normaliser(self, shape: tuple[int, ...] = ()) -> Tensor:
        r"""log of an unbiased estimate of the integral of :math:`\tilde q`."""
        return self.pool(shape)[-1].logsumexp(dim=len(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """An estimate: log q~ less the logarithm of an estimated normaliser."""
        return self.log_density(value) - self.log_normaliser()

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """One of each pool, by its weight (sampling-importance-resampling): nearly of q if n is large."""
        with torch.no_grad():
            z, _, log_w = self.pool(Size(sample_shape))
            return chosen(z, log_w, dim=len(sample_shape))[0]

    @property
    def mean(self) -> Tensor:
        z, _, log_w = self.pool()
        return (log_w.softmax(dim=0).unsqueeze(-1) * z).sum(dim=0)

    @property
    def variance(self) -> Tensor:
        z, _, log_w = self.pool()
        w = log_w.softmax(dim=0).unsqueeze(-1)
        return (w * (z - (w * z).sum(dim=0)).square()).sum(dim=0)


def chosen(z: Tensor, log_w: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """One of each pool's samples, by its weight: (..., D), and the index among the J, (...).

    Args:
        z, log_w: (.., J, .., D) and (.., J, ..).
        dim: that of J.
    """
    # Gumbel noise: unlike torch's multinomial it lets NaN through, to where losses are checked
    noise = torch.empty_like(log_w, requires_grad=False).exponential_().log()
    index = (log_w.detach() - noise).argmax(dim=dim, keepdim=True)
    z = z.gather(dim, index.unsqueeze(-1).expand(*index.shape, z.shape[-1])).squeeze(dim)
    return z, index.squeeze(dim)
