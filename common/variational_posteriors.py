"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. A learned prior is in such a family too.

Each family states its range: the parameters of experts and of a learned prior for which densities, KLs and their
gradients are finite in float32, whatever the fusion. Outside, an exponent or a square overflows, and training stops
since the loss or the weights are not finite.
"""

from collections.abc import Sequence

from common.distributions.base import Factorised, LatentDistribution
from common.distributions.energy import LocScaleEbm
from common.distributions.flows import JointFlows
from common.distributions.location_scale import DiagonalGaussian, LaplaceOrNormal, Spheres
from common.distributions.mixtures import Mixture, PrivateLatentsMixture
from common.distributions.von_mises_fisher import VonMisesFisher
from common.errors import require

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace
from torch.nn.functional import softplus

MIN_SCALE = 1e-6  # epsilon, as in the MMVAE authors' code


class Posterior(nn.Module):
    """A posterior family: parameters in, a `LatentDistribution` out."""

    has_density = True  # log q(z) has a closed form
    is_mixture = False
    is_gaussian = False  # (mu, logvar) are the mean and the log-variance
    has_flows = False  # one for each modality
    per_latent = False  # private latents have their own parameters, which can be appended to the shared ones
    on_spheres = False  # z lies on unit spheres, and sampling takes a random number of operations

    @property
    def has_kl(self) -> bool:
        """Whether KL(q_1 || q_2) has a closed form."""
        return self.has_density and not self.is_mixture


class DiagonalGaussianPosterior(Posterior):
    """N(mu, diag(exp(logvar))).

    Range: |mu| <= 1e9 and |logvar| <= 40; |logvar| <= 80 where the only other distribution is N(0, I). For D <= 256.
    """

    per_latent = is_gaussian = True

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> q, batch shape (...)."""
        return DiagonalGaussian(*params)


class LaplacePosterior(Posterior):
    r"""Laplace with scales :math:`b = D \, softmax(a) + \epsilon`, whose sum is D (Shi et al. 2019, arXiv 1911.03393).

    Range: |loc| <= 1e9, and any a; with epsilon = 0, elements of a that differ by at most 20.

    Args:
        min_scale: epsilon, the smallest scale (authors' code: 1e-6 for posteriors, 0 for the prior of MNIST-SVHN).
        sizes: sizes of groups of latents, the shared ones and each modality's private ones; the scales of a group sum
            to its size (MMVAE+, Palumbo et al. 2023). Default: one group of D.
    """

    def __init__(self, min_scale: float = MIN_SCALE, sizes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.min_scale, self.sizes, self.per_latent = min_scale, sizes, sizes is not None

    def forward(self, params: tuple[Tensor, Tensor]) -> Factorised:
        """(loc, a), each (..., D) -> q, batch shape (...)."""
        loc, a = params
        scales = [part.softmax(dim=-1) * part.shape[-1] for part in a.split(self.sizes or a.shape[-1], dim=-1)]
        return Factorised(Laplace(loc, torch.cat(scales, dim=-1) + self.min_scale, validate_args=False))


class SoftplusPosterior(Posterior):
    r"""Laplace, Normal or Student-t with scales :math:`softplus(a) + \epsilon` (Shi et al. 2019, the code for CUB).

    Range: |loc| and |a| <= 1e9 for Laplace and Student-t, 1e5 for Normal.

    Args:
        family: torch's Laplace or Normal, or `common.distributions.location_scale.StudentT`.
    """

    per_latent = True

    def __init__(self, family: type[Distribution]) -> None:
        super().__init__()
        self.family = family

    def forward(self, params: tuple[Tensor, Tensor]) -> Factorised:
        """(loc, a), each (..., D) -> q, batch shape (...)."""
        loc, a = params
        return Factorised(self.family(loc, softplus(a) + MIN_SCALE, validate_args=False))


class LaplaceOrNormalPosterior(Posterior):
    r"""The T components of a mixture, some Laplace and some normal, with scales :math:`softplus(a) + \epsilon`.

    Range: |loc| and |a| <= 1e9.

    Args:
        laplace: for each component, True for Laplace and False for normal.
    """

    def __init__(self, laplace: Sequence[bool]) -> None:
        super().__init__()
        self.register_buffer("laplace", torch.tensor(laplace)[:, None], persistent=False)  # (T, 1)

    def forward(self, params: tuple[Tensor, Tensor]) -> Factorised:
        """(loc, a), each (..., T, D) -> the components of q, batch shape (..., T)."""
        loc, a = params
        n, given = len(self.laplace), loc.shape[-2]
        require(n == given, f"laplace-normal is for {n} modalities (got {given}): choose softplus-laplace or -normal")
        return Factorised(LaplaceOrNormal(loc, softplus(a) + MIN_SCALE, self.laplace))


class VmfProductPosterior(Posterior):
    r"""n von Mises-Fisher variables side by side, each on a unit sphere in D / n dimensions.

    The parameter is the natural one divided by the dimensions of a sphere, :math:`\kappa \mu / d`. The mean's length is
    near kappa / d, so that network outputs of order 1 are informative in any dimension. 0 is the uniform distribution.
    Range: up to 1e18 / d^1.5, so that kappa is at most 1e18; KLs are right up to kappa = 1e12.

    Args:
        n: the number of spheres.
    """

    on_spheres = True

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = n

    def forward(self, params: tuple[Tensor]) -> Spheres:
        """One parameter, (..., D) -> q, batch shape (...)."""
        (eta,) = params
        d = eta.shape[-1]
        require(d % self.n == 0, f"{self.n} spheres need a multiple of {self.n} latent dimensions (got {d})")
        eta = d // self.n * eta.unflatten(-1, (self.n, d // self.n))
        kappa = eta.norm(dim=-1)
        first = torch.zeros_like(eta)
        first[..., 0] = 1  # where kappa is 0, any direction will do
        loc = torch.where(kappa[..., None] > 0, eta / kappa.clamp(min=1e-30)[..., None], first)
        return Spheres(VonMisesFisher(loc, kappa))


class LocScaleEbmPosterior(Posterior):
    """An energy-based product of experts (`common.distributions.LocScaleEbm`).

    Range: |mu| <= 1e9 and |logvar| <= 80.

    Args:
        energy: z standardised by an expert's location and scale, (N, D) -> (N, 1), not negative.
        n: samples that an estimate draws from each expert, from their Gaussian product and from the prior.
    """

    has_density = False

    def __init__(self, energy: nn.Module, n: int = 4) -> None:
        super().__init__()
        require(n > 0, f"an energy-based posterior needs at least 1 sample from each expert (got {n})")
        self.energy, self.n = energy, n

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> LocScaleEbm:
        """Which experts take part (..., M), and (mu, logvar), each (..., M, D) -> q, batch shape (...)."""
        return LocScaleEbm(*params, self.energy, self.n)


class JointFlowsPosterior(Posterior):
    """A Gaussian given all modalities, a flow given one, a product given several (`common.distributions.JointFlows`).

    Range: |mu| <= 1e3 and |logvar| <= 20, with flows whose weights are of order 1.

    Args:
        flows: f_m of each modality, see `common.distributions.flows.masked_autoregressive_flow`.
        n: samples that an estimate draws from each flow, and from a Gaussian that stands for their product.
        moves: of the Hamiltonian chains that sample a product. Few, since a product of trained flows may not be
            integrable: longer chains then go ever farther away.
    """

    has_density = False
    has_flows = True

    def __init__(self, flows: Sequence[nn.Module], n: int = 8, moves: int = 8) -> None:
        super().__init__()
        require(n > 3, f"products of flows need at least 4 samples from each (got {n})")
        self.flows, self.n, self.moves = nn.ModuleList(flows), n, moves

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> JointFlows:
        """Which modalities are given (..., M), and (mu, logvar), each (..., M + 1, D) -> q, batch shape (...)."""
        return JointFlows(*params, self.flows, self.n, self.moves)


class MixturePosterior(Posterior):
    """A mixture of T components of one family.

    Args:
        component: the components' family.
    """

    is_mixture = True

    def __init__(self, component: Posterior) -> None:
        super().__init__()
        self.component = component
        for capability in ("has_density", "per_latent", "is_gaussian", "on_spheres"):
            setattr(self, capability, getattr(component, capability))

    def forward(self, params: tuple[Tensor, ...]) -> LatentDistribution:
        """Logits (..., T) and the components' parameters, each (..., T, D) -> q, batch shape (...)."""
        logits, *components = params
        return Mixture(logits, self.component(tuple(components)))


class PrivateLatentsMixturePosterior(MixturePosterior):
    """A mixture whose components have their own private latents (`common.distributions.PrivateLatentsMixture`).

    Args:
        component: the components' family.
        private: which latents belong to each component alone, (T, D) bool.
        n_shared: the number of the others, which come first.
    """

    def __init__(self, component: Posterior, private: Tensor, n_shared: int) -> None:
        super().__init__(component)
        self.register_buffer("private", private, persistent=False)
        self.n_shared = n_shared

    def forward(self, params: tuple[Tensor, ...]) -> LatentDistribution:
        logits, *components = params
        return PrivateLatentsMixture(logits, self.component(tuple(components)), self.private, self.n_shared)
