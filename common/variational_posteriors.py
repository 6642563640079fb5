"""Posterior families: parameters of q(z|x_S) in, a Distribution over z out. A learned prior is in such a family too."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, kl_divergence
from torch.nn.functional import softplus

from common.distributions.energy import LocScaleEbm
from common.distributions.flows import JointFlows
from common.distributions.location_scale import DiagonalGaussian, Joined, LaplaceOrNormal
from common.distributions.von_mises_fisher import VonMisesFisher
from common.errors import require


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


class DiagonalGaussianPosterior(Posterior):
    """N(mu, diag(exp(logvar))).

    Range: |mu| <= 1e9 and |logvar| <= 40; |logvar| <= 80 where the only other distribution is N(0, I).
    """

    per_latent = is_gaussian = True

    def forward(self, params: tuple[Tensor, Tensor]) -> DiagonalGaussian:
        """(mu, logvar), each (..., D) -> q, batch shape (...)."""
        return DiagonalGaussian(*params)

    def log_prob_of_each(self, q: DiagonalGaussian, z: Tensor) -> Tensor:
        return q.log_prob_of_each(z)

    def map_parameters(self, q: DiagonalGaussian, change: Callable[[Tensor], Tensor]) -> DiagonalGaussian:
        """q with `change` applied to its mean and its log-variance, each (..., D)."""
        return DiagonalGaussian(change(q.mean), change(q.logvar))


class LaplacePosterior(Posterior):
    r"""Laplace with scales :math:`b = D \, softmax(a) + \epsilon`, whose sum is D (Shi et al. 2019, arXiv 1911.03393).

    Range: |loc| <= 1e9, and any a; with epsilon = 0, elements of a that differ by at most 20.

    Args:
        min_scale: epsilon, the smallest scale (authors' code: 1e-6 for posteriors, 0 for the prior of MNIST-SVHN).
        sizes: sizes of groups of latents, the shared ones and each modality's private ones; the scales of a group sum
            to its size (MMVAE+, Palumbo et al. 2023). Default: one group of D.
    """

    def __init__(self, min_scale: float = 1e-6, sizes: Sequence[int] | None = None) -> None:
        super().__init__()
        self.min_scale, self.sizes, self.per_latent = min_scale, sizes, sizes is not None

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., D) -> q, batch shape (...)."""
        loc, a = params
        scales = [part.softmax(dim=-1) * part.shape[-1] for part in a.split(self.sizes or a.shape[-1], dim=-1)]
        return Independent(Laplace(loc, torch.cat(scales, dim=-1) + self.min_scale, validate_args=False), 1)


class SoftplusPosterior(Posterior):
    r"""Laplace or Normal with scales :math:`softplus(a) + \epsilon` (Shi et al. 2019, the authors' code for CUB).

    Range: |loc| and |a| <= 1e9 for Laplace, 1e5 for Normal.

    Args:
        family: torch's Laplace or Normal.
    """

    per_latent = True
    min_scale = 1e-6  # epsilon, the smallest scale

    def __init__(self, family: type[Distribution]) -> None:
        super().__init__()
        self.family = family

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., D) -> q, batch shape (...)."""
        loc, a = params
        return Independent(self.family(loc, softplus(a) + self.min_scale, validate_args=False), 1)


class LaplaceOrNormalPosterior(Posterior):
    r"""The T components of a mixture, some Laplace and some normal, with scales :math:`softplus(a) + \epsilon`.

    Range: |loc| and |a| <= 1e9.

    Args:
        laplace: for each component, True for Laplace and False for normal.
    """

    min_scale = 1e-6  # epsilon, the smallest scale

    def __init__(self, laplace: Sequence[bool]) -> None:
        super().__init__()
        self.register_buffer("laplace", torch.tensor(laplace)[:, None], persistent=False)  # (T, 1)

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., T, D) -> the components of q, batch shape (..., T)."""
        loc, a = params
        return Independent(LaplaceOrNormal(loc, softplus(a) + self.min_scale, self.laplace), 1)


class VmfProductPosterior(Posterior):
    r"""n von Mises-Fisher variables side by side, each on a unit sphere in D / n dimensions.

    The parameter is the natural one divided by the dimensions of a sphere, :math:`\kappa \mu / d`. The mean's length is
    near kappa / d, so that network outputs of order 1 are informative in any dimension. 0 is the uniform distribution.
    Range: up to 1e18.

    Args:
        n: the number of spheres.
    """

    on_spheres = uses_rejection = True

    def __init__(self, n: int = 1) -> None:
        super().__init__()
        self.n = n

    def forward(self, params: tuple[Tensor]) -> Joined:
        """One parameter, (..., D) -> q, batch shape (...)."""
        (eta,) = params
        d = eta.shape[-1]
        require(d % self.n == 0, f"{self.n} spheres need a multiple of {self.n} latent dimensions (got {d})")
        eta = d // self.n * eta.unflatten(-1, (self.n, d // self.n))
        kappa = eta.norm(dim=-1)
        first = torch.zeros_like(eta)
        first[..., 0] = 1  # where kappa is 0, any direction will do
        loc = torch.where(kappa[..., None] > 0, eta / kappa.clamp(min=1e-30)[..., None], first)
        return Joined(VonMisesFisher(loc, kappa))

    def project(self, z: Tensor) -> Tensor:
        """Scale each sphere's part of z to length 1: (..., D) -> (..., D)."""
        z = z.unflatten(-1, (self.n, -1))
        return (z / z.norm(dim=-1, keepdim=True)).flatten(-2)

    def scales(self, q: Joined) -> Tensor:
        """1 / sqrt(kappa) of each latent's sphere, (..., D)."""
        return self._by_latent(q).rsqrt()

    def map_parameters(self, q: Joined, change: Callable[[Tensor], Tensor]) -> Joined:
        kappa = change(self._by_latent(q)).unflatten(-1, q.shape)[..., 0]
        return Joined(VonMisesFisher(change(q.factors.loc.flatten(-2)).unflatten(-1, q.shape), kappa))

    def factors(self, q: Joined) -> Distribution:
        return q.factors

    def _by_latent(self, q: Joined) -> Tensor:
        """kappa of each latent's sphere, (..., D)."""
        return q.factors.concentration.repeat_interleave(q.shape[1], dim=-1)


class LocScaleEbmPosterior(Posterior):
    """An energy-based product of experts (`common.distributions.LocScaleEbm`).

    Range: |mu| <= 1e9 and |logvar| <= 80.

    Args:
        energy: z standardised by an expert's location and scale, (N, D) -> (N, 1), not negative.
        n: samples that an estimate draws from each expert, from their Gaussian product and from the prior.
    """

    has_density = has_kl = False
    is_energy_based = True

    def __init__(self, energy: nn.Module, n: int = 4) -> None:
        super().__init__()
        require(n > 0, f"an energy-based posterior needs at least 1 sample from each expert (got {n})")
        self.energy, self.n = energy, n

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> LocScaleEbm:
        """Which experts take part (..., M), and (mu, logvar), each (..., M, D) -> q, batch shape (...)."""
        return LocScaleEbm(*params, self.energy, self.n)

    def weighted_samples(self, q: LocScaleEbm, prior: Distribution) -> tuple[Tensor, Tensor, Tensor]:
        return q.weighted_samples(prior)

    def proposal(self, q: LocScaleEbm) -> Distribution:
        return q.proposal


class JointFlowsPosterior(Posterior):
    """A Gaussian given all modalities, a flow given one, a product given several (`common.distributions.JointFlows`).

    Range: |mu| <= 1e3 and |logvar| <= 20, with flows whose weights are of order 1.

    Args:
        flows: f_m of each modality, see `common.distributions.flows.masked_autoregressive_flow`.
        n: samples that an estimate draws from each flow, and from a Gaussian that stands for their product.
        moves: of the Hamiltonian chains that sample a product. Few, since a product of trained flows may not be
            integrable: longer chains then go ever farther away.
    """

    has_density = has_kl = False
    has_flows = True

    def __init__(self, flows: Sequence[nn.Module], n: int = 8, moves: int = 8) -> None:
        super().__init__()
        require(n > 3, f"products of flows need at least 4 samples from each (got {n})")
        self.flows, self.n, self.moves = nn.ModuleList(flows), n, moves

    def forward(self, params: tuple[Tensor, Tensor, Tensor]) -> JointFlows:
        """Which modalities are given (..., M), and (mu, logvar), each (..., M + 1, D) -> q, batch shape (...)."""
        return JointFlows(*params, self.flows, self.n, self.moves)

    def point(self, q: JointFlows | Distribution) -> Tensor:
        return q.point if isinstance(q, JointFlows) else q.mean  # the prior's

    def sample_and_point(self, q: JointFlows) -> tuple[Tensor, Tensor]:
        return q.sample_and_point()

    def proposal(self, q: JointFlows) -> Distribution:
        return q.proposal
