"""Mixtures with samples that have gradients, and MMVAE+'s."""

from collections.abc import Callable

from common.distributions.base import LatentDistribution

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily


class Mixture(LatentDistribution, MixtureSameFamily):
    r"""A mixture of T components, :math:`q(z) = \sum_t \pi_t q_t(z)`, pi = softmax(logits).

    Its samples have gradients wherever those of its components do. The gradients reach the parameters of the drawn
    component, not pi. They are exact if pi depends on no parameters, as in mixtures of experts.

    Args:
        logits: (..., T).
        components: batch shape (..., T), event shape (D,).
    """

    def __init__(self, logits: Tensor, components: Distribution) -> None:
        pi = Categorical(logits=logits, validate_args=False)
        MixtureSameFamily.__init__(self, pi, components, validate_args=False)

    @property
    def has_rsample(self) -> bool:
        return self.components.has_rsample

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Samples of components that are drawn by their weights, (*sample_shape, ..., D)."""
        t = self.mixture_distribution.sample(sample_shape)  # (*sample_shape, ...)
        z = self.components.rsample(sample_shape)  # (*sample_shape, ..., T, D)
        index = t[..., None, None].expand(*t.shape, 1, z.shape[-1])
        return z.gather(-2, index).squeeze(-2)

    @property
    def components(self) -> Distribution:
        return self.component_distribution

    @property
    def weights(self) -> Tensor:
        return self.mixture_distribution.probs.movedim(-1, 0)

    @property
    def scales(self) -> Tensor:
        """The scales of each component's latents, (..., T, D)."""
        return self.components.scales

    def project(self, z: Tensor) -> Tensor:
        return self.components.project(z)

    def sample_components(self, n: int) -> Tensor:
        return self.components.rsample((n,)).movedim(-2, 0)

    def component_log_probs(self, z: Tensor) -> Tensor:
        return self.components.log_prob(z.unsqueeze(-2)) + self.mixture_distribution.logits

    def only_component(self) -> Distribution:
        t = int(self.weights.sum(dim=1).argmax())  # examples without any modality weigh all equally
        return self.components.map_parameters(lambda x: x[:, t])

    def drawn_component(self) -> Distribution:
        pi = self.weights  # (T, B)
        # inverts the distribution function, which needs no check of the weights on the host
        below = pi.cumsum(dim=0) <= torch.rand_like(pi[0]) * pi.sum(dim=0)
        t = below.sum(dim=0).clamp(max=len(pi) - 1)[:, None, None]  # (B, 1, 1)
        return self.components.map_parameters(lambda x: x.gather(1, t.expand(-1, 1, x.shape[-1])).squeeze(1))

    def map_parameters(self, change: Callable[[Tensor], Tensor]) -> "Mixture":
        """q with `change` applied to each parameter of its components, (..., T, D); pi stays the same."""
        return Mixture(self.mixture_distribution.logits, self.components.map_parameters(change))


class PrivateLatentsMixture(Mixture):
    r"""A mixture of experts over the shared latents u, whose components have their own private latents (MMVAE+).

    .. math:: q_t(z|X) = q_t(u|x_t) \, q(w_t|x_t) \prod_{n \neq t} r(w_n)

    The importance weight of a sample of component t has the density of u under the whole mixture and that of w_t under
    its encoder. The w_n of other modalities come from auxiliary priors r, whose density is not in the weight (Palumbo
    et al. 2023, ICLR).

    Args:
        private: which latents belong to each component alone, (T, D) bool.
        n_shared: the number of the others, which come first.
    """

    def __init__(self, logits: Tensor, components: Distribution, private: Tensor, n_shared: int) -> None:
        super().__init__(logits, components)
        self.private, self.n_shared = private, n_shared

    def map_parameters(self, change: Callable[[Tensor], Tensor]) -> "PrivateLatentsMixture":
        components = self.components.map_parameters(change)
        return PrivateLatentsMixture(self.mixture_distribution.logits, components, self.private, self.n_shared)

    def component_log_probs(self, z: Tensor) -> Tensor:
        """log pi_t q_t(u), over only the shared latents."""
        shared = self.components.map_parameters(lambda x: x[..., : self.n_shared])
        return shared.log_prob(z[..., : self.n_shared].unsqueeze(-2)) + self.mixture_distribution.logits

    def private_log_prob(self, z: Tensor, prior: nn.Module) -> Tensor:
        """log q(w_t|x_t) + sum over n != t of log p(w_n), which cancels against the prior of z in the weights."""
        w, private = z[..., self.n_shared :], self.private[:, None, None, self.n_shared :]
        encoded = self.components.map_parameters(lambda x: x[..., self.n_shared :].movedim(1, 0).unsqueeze(1))
        log_q, log_p = (p.log_prob_of_each(w) for p in (encoded, prior.private(self.n_shared)))  # (T, K, B, D_w)
        return torch.where(private, log_q, log_p).sum(dim=-1)

    def responsibility_per_latent(self, r: Tensor) -> Tensor:
        """r for shared latents, 1 for the component's private ones, 0 for those of other modalities: (T, K, B, D)."""
        shared = torch.arange(self.private.shape[1], device=r.device) < self.n_shared
        return torch.where(shared, r.unsqueeze(-1), self.private[:, None, None].to(r))
