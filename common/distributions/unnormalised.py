"""Densities known up to their normaliser; weighted samples of a proposal take the place of their own samples."""

import math

from common.distributions.base import LatentDistribution
from common.errors import InputError

import torch
from torch import Size, Tensor


class Unnormalised(LatentDistribution):
    r"""A distribution q whose density is known as :math:`\tilde q \propto q`, and a mixture r to draw from.

    Everything but :math:`\tilde q` is an estimate from new samples of r at each call. A subclass has

        n: samples that an estimate draws from each component of r.
        proposal: r, a MixtureSameFamily of known density. Components that an example does not use have weight 0.
        log_density(z): log :math:`\tilde q` at z (..., D), (...), nats.
    """

    def pool(self, shape: tuple[int, ...] = ()) -> tuple[Tensor, Tensor, Tensor]:
        r"""Draw n samples from each of the T components of r, J = n T in all, and weigh them.

        Returns:
            z (*shape, J, *batch_shape, D), with gradients, and log :math:`\tilde q` and log w, each (*shape, J,
            *batch_shape). A sample of component t, whose weight in r is :math:`\pi_t`, has
            :math:`w = \pi_t \tilde q / (n r)`: the sum of w over J estimates the normaliser. w is 0 where an example
            does not use the component.
        """
        r = self.proposal
        z = r.component_distribution.rsample((*shape, self.n))  # (*shape, n, ..., T, D)
        log_pi = r.mixture_distribution.logits.movedim(-1, 0)  # (T, ...)
        z = z.movedim(-2, len(shape))  # (*shape, T, n, ..., D)
        log_q = self.log_density(z)
        log_w = log_q - r.log_prob(z) + log_pi.unsqueeze(1) - math.log(self.n)
        return tuple(x.flatten(len(shape), len(shape) + 1) for x in (z, log_q, log_w))

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

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Refuse: a sample that is chosen by weight has no gradient.

        Raises:
            InputError: always.
        """
        raise InputError("this posterior's samples have no gradients: take sample(), or pool(), which weighs samples")

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
