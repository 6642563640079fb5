"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. Learned priors are members of them too."""

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


def sample_components(q: Distribution, n: int) -> tuple[Tensor, Tensor]:
    """n samples of each of a mixture's T components (stratified), with gradients; a plain q is a mixture of one.

    Returns:
        z (T, n, B, D), and the components' weights (T, B).
    """
    if not isinstance(q, MixtureSameFamily):
        z = q.rsample((1, n))
        return z, z.new_ones(1, z.shape[2])
    return q.component_distribution.rsample((n,)).movedim(-2, 0), q.mixture_distribution.probs.T


def component_log_probs(q: Distribution, z: Tensor) -> Tensor:
    """log pi_t q_t(z) for z (..., B, D): (..., B, T), whose logsumexp is log q(z); -inf where pi_t is 0."""
    if not isinstance(q, MixtureSameFamily):
        return q.log_prob(z).unsqueeze(-1)
    return q.component_distribution.log_prob(z.unsqueeze(-2)) + q.mixture_distribution.logits
