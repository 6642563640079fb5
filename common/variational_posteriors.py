"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. Learned priors are members of them too."""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Laplace, MixtureSameFamily

from common.distributions import DiagonalGaussian


class DiagonalGaussianPosterior(nn.Module):
    """N(mu, diag(exp(logvar)))."""

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> a distribution with batch shape (...)."""
        return DiagonalGaussian(*params)


class SoftmaxLaplacePosterior(nn.Module):
    r"""Laplace with :math:`b = D \, softmax(a) + \epsilon`: the D scales sum to D (Shi et al. 2019, arXiv 1911.03393).

    Args:
        eta: epsilon, the smallest scale (authors' code: 1e-6 for posteriors, 0 for the prior of MNIST-SVHN).
    """

    def __init__(self, eta: float = 1e-6) -> None:
        super().__init__()
        self.eta = eta

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., D) -> a distribution with batch shape (...)."""
        loc, a = params
        scale = a.softmax(dim=-1) * a.shape[-1] + self.eta
        return Independent(Laplace(loc, scale, validate_args=False), 1)


class MixturePosterior(nn.Module):
    """sum_t softmax(logits)_t q_t(z), q_t of one family; its components can be sampled apart, with gradients.

    Args:
        component: the family, parameters (..., D) -> a distribution.
    """

    def __init__(self, component: nn.Module) -> None:
        super().__init__()
        self.component = component

    def forward(self, params: tuple[Tensor, ...]) -> MixtureSameFamily:
        """logits (..., T) and the components' parameters (..., T, D) -> a distribution with batch shape (...)."""
        logits, *components = params
        return MixtureSameFamily(
            Categorical(logits=logits, validate_args=False), self.component(tuple(components)), False
        )


def sample_components(q: Distribution, n: int) -> Tensor:
    """n samples of each of a mixture's T components (stratified), with gradients: (T, n, B, D).

    A plain q is a mixture of one.
    """
    if not isinstance(q, MixtureSameFamily):
        return q.rsample((1, n))
    return q.component_distribution.rsample((n,)).movedim(-2, 0)


def component_shares(q: Distribution) -> Tensor:
    """The weights of a mixture's T components, (T, B)."""
    if not isinstance(q, MixtureSameFamily):
        return q.mean.new_ones(1, len(q.mean))
    return q.mixture_distribution.probs.T


def only_component(q: Distribution) -> Distribution:
    """The one component that counts in every example's mixture, as of q(z|x_m) alone; a plain q itself."""
    if not isinstance(q, MixtureSameFamily):
        return q
    (t,) = (component_shares(q) > 0).any(dim=1).nonzero().flatten().tolist()
    base = q.component_distribution.base_dist  # (B, T, D)
    return Independent(type(base)(base.loc[:, t], base.scale[:, t], validate_args=False), 1)


def partly_detached(q: Distribution, free: Tensor) -> Distribution:
    """q, or the mixture, with its components' parameters stopped but where free, (B, D) or (B, T, D) bool."""
    mixture = isinstance(q, MixtureSameFamily)
    base = (q.component_distribution if mixture else q).base_dist
    loc, scale = (torch.where(free, x, x.detach()) for x in (base.loc, base.scale))
    component = Independent(type(base)(loc, scale, validate_args=False), 1)
    return MixtureSameFamily(q.mixture_distribution, component, False) if mixture else component


def component_scales(q: Distribution) -> Tensor:
    """The scales of a mixture's components, (B, T, D), or of a plain q, (B, D)."""
    return (q.component_distribution if isinstance(q, MixtureSameFamily) else q).base_dist.scale


def component_log_probs(q: Distribution, z: Tensor) -> Tensor:
    """log pi_t q_t(z) for z (..., B, D): (..., B, T), whose logsumexp is log q(z); -inf where pi_t is 0."""
    if not isinstance(q, MixtureSameFamily):
        return q.log_prob(z).unsqueeze(-1)
    return q.component_distribution.log_prob(z.unsqueeze(-2)) + q.mixture_distribution.logits
