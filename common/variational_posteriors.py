"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. Learned priors are members of them too."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Laplace, MixtureSameFamily
from torch.nn.functional import softplus

from common.distributions import DiagonalGaussian, Joined, LaplaceOrNormal
from common.energy import LocScaleEbm
from common.errors import require
from common.von_mises_fisher import VonMisesFisher


class Posterior(nn.Module):
    """What families share: `point(q)`, the z that stands for q in reconstructions, its mean; `onto(z)`, the nearest z
    that there is."""

    rejects = False  # whether samples take as many operations as it happens, which no CUDA graph can hold

    def point(self, q: Distribution) -> Tensor:
        return self.onto(q.mean)

    def onto(self, z: Tensor) -> Tensor:
        return z


class DiagonalGaussianPosterior(Posterior):
    """N(mu, diag(exp(logvar)))."""

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> a distribution with batch shape (...)."""
        return DiagonalGaussian(*params)


class LaplacePosterior(Posterior):
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


class SoftplusPosterior(Posterior):
    r"""Independent locations and scales :math:`softplus(a) + \epsilon` of a family (Shi et al. 2019, the birds' code).

    Args:
        family: torch's Laplace or Normal.
        eta: epsilon, the smallest scale.
    """

    def __init__(self, family: type[Distribution], eta: float = 1e-6) -> None:
        super().__init__()
        self.family, self.eta = family, eta

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., D) -> a distribution with batch shape (...)."""
        loc, a = params
        return Independent(self.family(loc, softplus(a) + self.eta, validate_args=False), 1)


class LaplaceOrNormalPosterior(Posterior):
    r"""The T components of a mixture, each of a family of its own, with scales :math:`softplus(a) + \epsilon`.

    Args:
        laplace: which components are Laplace; the others are normal.
        eta: epsilon, the smallest scale.
    """

    def __init__(self, laplace: Sequence[bool], eta: float = 1e-6) -> None:
        super().__init__()
        self.eta = eta
        self.register_buffer("laplace", torch.tensor(laplace)[:, None], persistent=False)  # (T, 1)

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., T, D) -> a distribution with batch shape (..., T)."""
        loc, a = params
        return Independent(LaplaceOrNormal(loc, softplus(a) + self.eta, self.laplace), 1)


class VmfProductPosterior(Posterior):
    r"""n von Mises-Fisher variables side by side, each on a unit sphere in D / n dimensions.

    The parameter is the natural one over the dimensions, :math:`\kappa \mu / d` of each: the mean's length is near
    kappa / d, so that networks' outputs of order 1 tell something in any dimension. 0 is the uniform distribution.

    Args:
        n: the number of spheres.
    """

    rejects = True

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = n

    def forward(self, params: tuple[Tensor]) -> Joined:
        """One parameter, (..., D) -> a distribution with batch shape (...)."""
        (eta,) = params
        d = eta.shape[-1]
        require(d % self.n == 0, f"{d} latent dimensions are not {self.n} spheres of one size")
        eta = d // self.n * eta.unflatten(-1, (self.n, d // self.n))
        kappa = eta.norm(dim=-1)
        first = torch.zeros_like(eta)
        first[..., 0] = 1  # any direction serves where kappa is 0
        loc = torch.where(kappa[..., None] > 0, eta / kappa.clamp(min=1e-30)[..., None], first)
        return Joined(VonMisesFisher(loc, kappa))

    def onto(self, z: Tensor) -> Tensor:
        """On each sphere, in the same direction."""
        z = z.unflatten(-1, (self.n, -1))
        return (z / z.norm(dim=-1, keepdim=True)).flatten(-2)


class LocScaleEbmPosterior(Posterior):
    """An energy-based product of experts (`common.energy.LocScaleEbm`).

    Args:
        energy: z (N, D), in units of an expert's scale and from its location -> (N, 1), not negative.
        n: samples of each expert, of their Gaussian product and of the prior, that estimates are made of.
    """

    def __init__(self, energy: nn.Module, n: int = 4) -> None:
        super().__init__()
        require(n > 0, f"an energy-based posterior needs at least one proposal of each expert, not {n}")
        self.energy, self.n = energy, n

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> LocScaleEbm:
        """Which experts there are (..., M), (mu, logvar), each (..., M, D) -> a distribution with batch shape (...)."""
        return LocScaleEbm(*params, self.energy, self.n)


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

    @property
    def rejects(self) -> bool:
        return self.component.rejects

    def point(self, q: Distribution) -> Tensor:
        return self.component.point(q)

    def onto(self, z: Tensor) -> Tensor:
        return self.component.onto(z)


DiagonalGaussianMixturePosterior = partial(MixturePosterior, DiagonalGaussianPosterior())


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
    return _changed(q.component_distribution, lambda x: x[:, t])


def proposal(q: Distribution) -> Distribution:
    """What importance sampling draws from to estimate likelihoods with q: itself, if its density is known."""
    return q.proposal if isinstance(q, LocScaleEbm) else q


def factors(q: Distribution) -> Distribution:
    """The independent variables that q, no mixture, is made of: one a latent, of vMF one a sphere."""
    return q.parts if isinstance(q, Joined) else q.base_dist


def partly_detached(q: Distribution, free: Tensor) -> Distribution:
    """q, or the mixture, with its components' parameters stopped but where free, (B, D) or (B, T, D) bool."""
    mixture = isinstance(q, MixtureSameFamily)
    component = _changed(q.component_distribution if mixture else q, lambda x: torch.where(free, x, x.detach()))
    return MixtureSameFamily(q.mixture_distribution, component, False) if mixture else component


def component_scales(q: Distribution) -> Tensor:
    """The scales of a mixture's components, (B, T, D), or of a plain q, (B, D); of a vMF 1 / sqrt(kappa)."""
    q = q.component_distribution if isinstance(q, MixtureSameFamily) else q
    return _of_each_dimension(q.parts.concentration, q).rsqrt() if isinstance(q, Joined) else q.base_dist.scale


def _changed(q: Distribution, change: Callable[[Tensor], Tensor]) -> Distribution:
    """A distribution of q's family with its parameters, (..., D) each, changed."""
    if isinstance(q, Joined):
        kappa = change(_of_each_dimension(q.parts.concentration, q)).unflatten(-1, q.shape)[..., 0]
        return Joined(VonMisesFisher(change(q.parts.loc.flatten(-2)).unflatten(-1, q.shape), kappa))
    base = q.base_dist
    changed = (change(getattr(base, name)) for name in base.arg_constraints)
    return Independent(type(base)(*changed, validate_args=False), 1)


def _of_each_dimension(x: Tensor, q: Joined) -> Tensor:
    """What each of n spheres has, (..., n), for each of their d dimensions: (..., n d)."""
    return x.repeat_interleave(q.shape[1], dim=-1)


def component_log_probs(q: Distribution, z: Tensor) -> Tensor:
    """log pi_t q_t(z) for z (..., B, D): (..., B, T), whose logsumexp is log q(z); -inf where pi_t is 0."""
    if not isinstance(q, MixtureSameFamily):
        return q.log_prob(z).unsqueeze(-1)
    return q.component_distribution.log_prob(z.unsqueeze(-2)) + q.mixture_distribution.logits
