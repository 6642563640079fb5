"""Gaussians transformed by normalizing flows, and JNF's products of them."""

from collections.abc import Sequence
from functools import cached_property

from common.distributions.hamiltonian import hamiltonian_chain
from common.distributions.location_scale import DiagonalGaussian
from common.distributions.mixtures import Mixture
from common.distributions.unnormalised import Unnormalised
from common.errors import require
from common.experts import quotient_of_experts

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from zuko.flows import MAF

Distribution.set_default_validate_args(__debug__)  # torch's default, which zuko's import switches off for everyone

BLOCKS, HIDDEN = 2, (128, 128, 128)  # of a flow, as in the multivae package
MAX_LATENTS = 4096


def masked_autoregressive_flow(d: int) -> nn.Module:
    """Build f, whose call gives a map z (..., D) -> (..., D) with `call_and_ladj` and `inv` (zuko's interface).

    (MAF, Papamakarios et al. 2017, arXiv 1705.07057.) Each of the two blocks maps a latent affinely, given the latents
    before it; the second block has the reverse order. With more than 128 latents, neighbouring latents form groups, and
    a latent depends only on earlier groups, since 128 hidden units cannot tell more apart. The inverse takes one step
    for each latent or group.

    Raises:
        InputError: too many latents.
    """
    require(d <= MAX_LATENTS, f"a flow takes at most {MAX_LATENTS} latents (got {d}): its masks grow with their square")
    with torch.device("cpu"):  # its masks need values, where a checkpoint's sizes are asked for on the meta device
        return MAF(d, transforms=BLOCKS, hidden_features=HIDDEN, passes=min(HIDDEN)).transform


class Flows(Distribution):
    r"""T Gaussians, each transformed by its own map: batch shape (..., T).

    .. math:: q_t(z) = N(f_t(z); \mu_t, \sigma_t^2) \Big| \det \frac{\partial f_t(z)}{\partial z} \Big|

    Args:
        base: the Gaussians, batch shape (..., T).
        maps: the T f_t; None is the identity.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own name)
    has_rsample = True

    def __init__(self, base: DiagonalGaussian, maps: Sequence[Transform | None]) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base, self.maps = base, maps

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-densities at z_t (..., T, D), or at the same z (..., 1, D) for all: (..., T), nats."""
        u, log_det = [], []
        for f, z in zip(self.maps, value.expand(*value.shape[:-2], len(self.maps), -1).unbind(-2), strict=True):
            at_z, slope = (z, torch.zeros_like(z[..., 0])) if f is None else f.call_and_ladj(z)
            u.append(at_z)
            log_det.append(slope)
        return self.base.log_prob(torch.stack(u, dim=-2)) + torch.stack(log_det, dim=-1)

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.inverse(self.base.rsample(sample_shape))

    def inverse(self, u: Tensor) -> Tensor:
        """The z_t with f_t(z_t) = u_t, for u (..., T, D): (..., T, D)."""
        z = [x if f is None else f.inv(x) for f, x in zip(self.maps, u.unbind(-2), strict=True)]
        return torch.stack(z, dim=-2)


class JointFlows(Unnormalised):
    r"""JNF's posterior: a Gaussian given all modalities, a flow given one, otherwise a product of flows.

    .. math:: q(z|x_S) \propto \tilde q(z) = \frac{\prod_{m \in S} q_m(z)}{p(z)^{|S| - 1}}, \qquad
              q_m(z) = N(f_m(z); \mu_m, \sigma_m^2) \Big| \det \frac{\partial f_m(z)}{\partial z} \Big|

    (Senellart et al. 2023, arXiv 2305.11832.) p is N(0, I). Given no modality q = p; given all, :math:`\tilde q` is the
    joint encoder's Gaussian.

    Given none, one or all modalities, the proposal r is q itself: samples and densities are exact. Otherwise r mixes
    the given flows and one Gaussian with equal weights. The Gaussian approximates q: it is the quotient of Gaussians
    that have the moments of n samples of each flow. The weights :math:`\tilde q / r` are then unbounded, and
    :math:`\tilde q` is integrable only if the product of the flows decays faster than :math:`p^{|S| - 1}`. So samples
    and means use the weights only to choose the start of a Hamiltonian chain (as in the paper).

    Args:
        present: which modalities are given, (..., M) bool.
        mu, logvar: means and log-variances, (..., M + 1, D): of each modality's base, and of the joint encoder.
        flows: the M f_m, see `masked_autoregressive_flow`.
        n: samples that an estimate draws from each component of r, four or more.
        moves: of a chain.
    """

    def __init__(
        self, present: Tensor, mu: Tensor, logvar: Tensor, flows: Sequence[nn.Module], n: int, moves: int
    ) -> None:
        super().__init__(present.shape[:-1], mu.shape[-1:], validate_args=False)
        self.present, self.mu, self.logvar, self.n, self.moves = present, mu, logvar, n, moves
        self.experts = Flows(DiagonalGaussian(mu[..., :-1, :], logvar[..., :-1, :]), [flow() for flow in flows])
        self.joint = DiagonalGaussian(mu[..., -1, :], logvar[..., -1, :])
        self.prior = DiagonalGaussian(*[torch.zeros_like(mu[..., -1, :])] * 2)
        self.n_given, self.all_given = present.sum(dim=-1), present.all(dim=-1)  # (...)

    @cached_property
    def in_between(self) -> Tensor:
        """Where q is a product of flows: more than one modality is given, and not all; (...) bool."""
        return (self.n_given > 1) & ~self.all_given

    @cached_property
    def is_gaussian(self) -> Tensor:
        """Where q is the Gaussian of the proposal: all modalities are given, or none; (..., 1) bool."""
        return (self.all_given | (self.n_given == 0)).unsqueeze(-1)

    @cached_property
    def maps(self) -> list[Transform | None]:
        """The maps that an example uses; an inverse takes many steps, so that others are left out."""
        used = self.present & ~self.all_given.unsqueeze(-1)  # (..., M)
        needed = used.flatten(0, -2).any(dim=0).tolist()
        return [f if use else None for f, use in zip(self.experts.maps, needed, strict=True)]

    @cached_property
    @torch.enable_grad()  # its first use may be in `sample`, without gradients, and a later one in a density
    def proposal(self) -> Mixture:
        """r, a mixture of M + 1 components: the flows, and a Gaussian."""
        used = self.present & ~self.all_given.unsqueeze(-1)  # (..., M)
        gaussian = (
            torch.where(self.all_given.unsqueeze(-1), joint, other)
            for joint, other in zip((self.joint.mean, self.joint.logvar), self._quotient(), strict=True)
        )
        base = (
            torch.cat([x[..., :-1, :], y.unsqueeze(-2)], dim=-2)
            for x, y in zip((self.mu, self.logvar), gaussian, strict=True)
        )
        used = torch.cat([used, self.n_given.unsqueeze(-1) != 1], dim=-1)  # (..., M + 1)
        logits = torch.zeros_like(used, dtype=self.mu.dtype).masked_fill(~used, -torch.inf)
        components = Flows(DiagonalGaussian(*base), [*self.maps, None])
        return Mixture(logits, components)

    @torch.no_grad()
    def _quotient(self) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, (..., D), of the Gaussian quotient of the present flows' moments; else the prior's."""
        if not self.in_between.any():
            return self.prior.mean, self.prior.logvar
        z = Flows(self.experts.base, self.maps).rsample((self.n,))  # (n, ..., M, D)
        unbiased = (self.n - 3) / (self.n - 1)  # of Gaussian samples; the quotient would raise a bias to powers
        precision = unbiased / z.var(dim=0).clamp(min=torch.finfo(z.dtype).tiny)
        moments = (z.mean(dim=0), -(precision - 1).clamp(min=0).log())
        flat = (x.flatten(0, -3).movedim(-2, 0) for x in moments)  # (M, N, D)
        quotient = quotient_of_experts(*flat, self.present.flatten(0, -2))
        return tuple(x.view(*self.batch_shape, -1) for x in quotient)

    def log_density(self, z: Tensor) -> Tensor:
        r"""log :math:`\tilde q` of z (..., D): (...), nats."""
        log_q = self.proposal.component_distribution.log_prob(z.unsqueeze(-2))[..., :-1]  # (..., M)
        log_p = self.prior.log_prob(z)
        product = torch.where(self.present, log_q, 0).sum(dim=-1) - (self.n_given - 1) * log_p
        return torch.where(self.all_given, self.joint.log_prob(z), product)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Exact samples; given several modalities but not all, the ends of Hamiltonian chains."""
        return self._chain(sample_shape)[-1] if self.in_between.any() else self.proposal.sample(sample_shape)

    @property
    def has_rsample(self) -> bool:
        """Whether samples have gradients: those of a product of flows have none."""
        return not self.in_between.any()

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Samples with gradients.

        Raises:
            InputError: q is a product of flows for an example, whose samples have none.
        """
        return self.proposal.rsample(sample_shape) if self.has_rsample else super().rsample(sample_shape)

    def _chain(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """The kept points of Hamiltonian chains, (T, *sample_shape, ..., D); samples of r where it is q."""
        z = super().sample(sample_shape)
        scale = (0.5 * self.proposal.component_distribution.base.logvar[..., -1, :]).exp()
        chain = hamiltonian_chain(self.log_density, z, scale.expand_as(z), self.moves)
        return torch.where(self.in_between.unsqueeze(-1), chain, z)

    @property
    def mean(self) -> Tensor:
        """(..., D): exact given all modalities or none, the mean of a chain given several, an estimate given one."""
        if self.in_between.all():
            return self._chain().mean(dim=0)
        mean = torch.where(self.is_gaussian, self.proposal.component_distribution.base.mean[..., -1, :], super().mean)
        if not self.in_between.any():
            return mean
        return torch.where(self.in_between.unsqueeze(-1), self._chain().mean(dim=0), mean)

    def sample_and_point(self) -> tuple[Tensor, Tensor]:
        """A sample and the point, each (..., D): of one chain if every example has several modalities, but not all."""
        if not self.in_between.all():
            return self.sample(), self.point
        chain = self._chain()
        return chain[-1], chain.mean(dim=0)

    @property
    def variance(self) -> Tensor:
        """The variance of each latent, (..., D): exact given all modalities or none, else an estimate."""
        base = self.proposal.component_distribution.base
        return torch.where(self.is_gaussian, base.variance[..., -1, :], super().variance)

    @property
    def point(self) -> Tensor:
        """The z that represents q, (..., D), in three cases.

        Given all modalities or none, the Gaussian's mean; given one, the flow's inverse at the mean of its base; given
        several, the mean of a chain.
        """
        if self.in_between.all():
            return self.mean
        r = self.proposal
        at_means = r.component_distribution.inverse(r.component_distribution.base.mean)  # (..., M + 1, D)
        exact = (r.mixture_distribution.probs.unsqueeze(-1) * at_means).sum(dim=-2)
        return torch.where(self.in_between.unsqueeze(-1), self.mean, exact) if self.in_between.any() else exact
