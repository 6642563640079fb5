"""Posteriors that are mixtures of a family's members."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution

from common.distributions.mixtures import Mixture
from common.variational_posteriors import Posterior


class MixturePosterior(Posterior):
    """A mixture of T components of one family: sum_t softmax(logits)_t q_t(z).

    Args:
        component: the components' family.
    """

    has_kl = False
    is_mixture = True

    def __init__(self, component: Posterior) -> None:
        super().__init__()
        self.component = component
        self.has_density, self.per_latent = component.has_density, component.per_latent
        self.is_gaussian = component.is_gaussian
        self.on_spheres, self.uses_rejection = component.on_spheres, component.uses_rejection

    def forward(self, params: tuple[Tensor, ...]) -> Mixture:
        """Logits (..., T) and the components' parameters, each (..., T, D) -> q, batch shape (...)."""
        logits, *components = params
        return Mixture(Categorical(logits=logits, validate_args=False), self.component(tuple(components)), False)

    def project(self, z: Tensor) -> Tensor:
        return self.component.project(z)

    def sample_components(self, q: Mixture, n: int) -> Tensor:
        return q.component_distribution.rsample((n,)).movedim(-2, 0)

    def component_weights(self, q: Mixture) -> Tensor:
        return q.mixture_distribution.probs.T

    def component_log_probs(self, q: Mixture, z: Tensor) -> Tensor:
        return q.component_distribution.log_prob(z.unsqueeze(-2)) + q.mixture_distribution.logits

    def only_component(self, q: Mixture) -> Distribution:
        t = int(self.component_weights(q).sum(dim=1).argmax())  # examples without any modality weigh all equally
        return self.component.map_parameters(q.component_distribution, lambda x: x[:, t])

    def drawn_component(self, q: Mixture) -> Distribution:
        share = self.component_weights(q)  # (T, B)
        # inverts the distribution function, which needs no check of the weights on the host
        below = share.cumsum(dim=0) <= torch.rand_like(share[0]) * share.sum(dim=0)
        t = below.sum(dim=0).clamp(max=len(share) - 1)[:, None, None]  # (B, 1, 1)
        return self.component.map_parameters(
            q.component_distribution, lambda x: x.gather(1, t.expand(-1, 1, x.shape[-1])).squeeze(1)
        )

    def scales(self, q: Mixture) -> Tensor:
        return self.component.scales(q.component_distribution)

    def map_parameters(self, q: Mixture, change: Callable[[Tensor], Tensor]) -> Mixture:
        """q with `change` applied to each parameter of its components, (B, T, D); the weights stay the same."""
        return Mixture(q.mixture_distribution, self.component.map_parameters(q.component_distribution, change), False)

    def factors(self, q: Distribution) -> Distribution:
        """The independent factors of one component, which `only_component` gives."""
        return self.component.factors(q)


class PrivateLatentsMixture(MixturePosterior):
    r"""A mixture of experts over the shared latents u, whose components have their own private latents (MMVAE+).

    .. math:: q_t(z|X) = q_t(u|x_t) \, q(w_t|x_t) \prod_{n \neq t} r(w_n)

    The importance weight of a sample of component t has the density of u under the whole mixture and that of w_t under
    its encoder. The w_n of other modalities come from auxiliary priors r, whose density is not in the weight (Palumbo
    et al. 2023, ICLR). The methods with z (T, K, B, D) compute this. The model's q(z|x_S) is a plain mixture
    (`common.variational_posteriors.private_latents.with_private`).

    Args:
        component: the components' family.
        private: which latents belong to each component alone, (T, D) bool.
        n_shared: the number of the others, which come first.
    """

    def __init__(self, component: Posterior, private: Tensor, n_shared: int) -> None:
        super().__init__(component)
        self.register_buffer("private", private, persistent=False)
        self.n_shared = n_shared

    def component_log_probs(self, q: Mixture, z: Tensor) -> Tensor:
        """log pi_t q_t(u), over only the shared latents."""
        shared = self.component.map_parameters(q.component_distribution, lambda x: x[..., : self.n_shared])
        return shared.log_prob(z[..., : self.n_shared].unsqueeze(-2)) + q.mixture_distribution.logits

    def private_log_prob(self, q: Mixture, z: Tensor, prior: nn.Module) -> Tensor:
        """log q(w_t|x_t) + sum over n != t of log p(w_n), which cancels against the prior of z in the weights."""
        w, private = z[..., self.n_shared :], self.private[:, None, None, self.n_shared :]
        encoded = self.component.map_parameters(
            q.component_distribution, lambda x: x[..., self.n_shared :].movedim(1, 0).unsqueeze(1)
        )  # (T, 1, B)
        log_q, log_p = (self.component.log_prob_of_each(p, w) for p in (encoded, prior.private(self.n_shared)))
        return torch.where(private, log_q, log_p).sum(dim=-1)

    def by_latent(self, r: Tensor) -> Tensor:
        """r for shared latents, 1 for the component's private ones, 0 for those of other modalities: (T, K, B, D)."""
        shared = torch.arange(self.private.shape[1], device=r.device) < self.n_shared
        return torch.where(shared, r.unsqueeze(-1), self.private[:, None, None].to(r))
