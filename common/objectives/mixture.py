"""ELBOs of posteriors that are mixtures, CoDE-VAE, MMVM and mmJSD."""

from collections.abc import Mapping

from common.data.batches import Batch
from common.distributions.location_scale import DiagonalGaussian
from common.errors import require
from common.execution.rows import rows_where
from common.experts import product_of_experts
from common.multimodal_vae import MultimodalVAE
from common.objectives.base import Bound, MultimodalObjective, bound_of, by_modality

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution


class MmvaeElbo(MultimodalObjective):
    r"""The ELBO of a posterior that is a mixture, with one sample of each component (stratified).

    .. math:: \sum_t \pi_t \Big[ E_{q_t(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q_t(z|X) || p(z)) \Big]

    Every decoder decodes every component's sample. pi_t is the weight of component t in the mixture, 0 if the example
    lacks one of its modalities. A lower bound on log p(X), looser than the mixture's ELBO: the components' mean KL
    exceeds the KL of the mixture.
    Another bound than poe-vae's MmvaeElbo, which is `DregIwaeElbo` of a mixture, without `looser`.
    Over single experts it is BiVCCA's objective with mu = 1/2 (Wang et al. 2016, arXiv 1610.03454) and the ELBO of Shi
    et al. 2019; over the products of all subsets MoPoE's (Sutter et al. 2021, arXiv 2105.02470).

    Args:
        draw_one: for each example decode one component, drawn by the weights, instead of all T; the expectation is the
            same. (MoPoE's code assigns components to the rows of a batch in order, with unequal frequencies.)
    """

    of_mixtures = True

    def __init__(
        self, model: MultimodalVAE, weights: Mapping[str, float] | None = None, draw_one: bool = False
    ) -> None:
        super().__init__(model, weights)
        self.check_weights(self.model, not draw_one)
        self.draw_one = draw_one

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        pi = q.weights  # (T, B)
        kl = (pi * q.components.kl(self.model.prior()).T).sum(dim=0)
        if self.draw_one:
            z, pi = q.drawn_component().rsample((1,)), torch.ones_like(pi[:1])  # T = 1
        else:
            z = q.sample_components(1).squeeze(1)  # (T, B, D)
        rows = rows_where(self.model, batch, pi[..., None] > 0)
        log_p = self.score(self.model, batch, z[None], rows)  # {name: (1, T, B)}
        means = {name: (pi * x[0]).sum(dim=0) for name, x in log_p.items()}
        return self.elbo("mixture", means, kl, beta, batch.mask)


class CodeElbo(MmvaeElbo):
    r"""CoDE-VAE: the mean of the ELBOs with the posteriors of all subsets, by learned weights (arXiv 2505.01134).

    .. math:: \sum_S \pi_S \Big[ E_{q_S(z|X)} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q_S(z|X) || p(z)) \Big]

    A lower bound on log p(X). The loss adds -H(pi), the entropy of the weights over all subsets, as in the authors'
    code; without it all of the weight would go to one subset.

    Args:
        entropy: the weight of H(pi) in the loss; 1000 in the authors' code.

    Raises:
        InputError: a mixture without learned weights.
    """

    def __init__(
        self, model: MultimodalVAE, weights: Mapping[str, float] | None = None, entropy: float = 1000.0
    ) -> None:
        super().__init__(model, weights)
        learned = getattr(self.model.variational_strategy, "logits", None) is not None  # of all subsets
        require(learned, "CodeElbo needs a mixture with learned weights, the fusion code: take MmvaeElbo for others")
        self.entropy = entropy

    def penalised(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> tuple[Tensor, Tensor, Bound]:
        surrogate, _, found = super().penalised(inputs, beta)
        pi = Categorical(logits=self.model.variational_strategy.logits, validate_args=False)
        return surrogate, -self.entropy * pi.entropy(), found


class MmvmElbo(MultimodalObjective):
    r"""MMVM: each modality is decoded from its own latents; KLs draw the experts together (arXiv 2403.05300).

    .. math:: \sum_{m \in S} E_{q_m} \lambda_m \log p(x_m|z) - \beta \sum_{m \in S} \Big[
              \frac{1 - \alpha}{|S|} \sum_{n \in S} KL(q_m || q_n) + \alpha KL(q_m || p(z)) \Big]

    This is the authors' code, an upper bound of the paper's KLs from each expert to the mixture of all,
    `to_mixture`. The code lowers alpha from 1 to 0 in training; here it is constant. There is no joint posterior: given
    some modalities z comes from one of their experts. With alpha = 0 nothing draws z towards p(z), so that draws of the
    prior show nothing: fit a density to the latents.

    Args:
        alpha: the weight of the KLs to the prior, 0 to 1.
        to_mixture: the KLs are those to the mixture of the experts, by one sample of each.

    Raises:
        InputError: an alpha outside its range, a posterior that has not one expert for each modality, or private
            latents.
    """

    of_mixtures = True

    def __init__(
        self,
        model: MultimodalVAE,
        alpha: float = 0.0,
        weights: Mapping[str, float] | None = None,
        to_mixture: bool = False,
    ) -> None:
        super().__init__(model, weights)
        require(0 <= alpha <= 1, f"alpha must lie between 0 and 1, it is {alpha}")
        fits = self.model.n_columns == len(self.model.modalities) and not self.model.private
        require(fits, "MMVM needs one expert for each modality, no sets and no private latents: take MmvaeElbo")
        self.alpha, self.to_mixture = alpha, to_mixture

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """What is maximised for each example, (B,); the term kl is the KLs to the prior."""
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        pi, experts = q.weights, q.components  # (M, B), batch shape (B, M)
        present = (pi > 0).T  # (B, M)
        z = experts.rsample()  # (B, M, D)
        rows = rows_where(self.model, batch, pi[..., None] > 0, torch.eye(len(pi), dtype=torch.bool))
        log_p = self.score(self.model, batch, z.movedim(1, 0)[None], rows)  # {name: (1, M, B)}
        if self.to_mixture:
            between = experts.log_prob(z) - q.log_prob(z.movedim(1, 0)).T
        else:
            pairs = experts.map_parameters(lambda x: x.unsqueeze(2)).kl(
                experts.map_parameters(lambda x: x.unsqueeze(1))
            )
            between = (pairs * pi.T.unsqueeze(1)).sum(dim=2)  # (B, M)
        to_prior, between = (torch.where(present, kl, 0).sum(dim=1) for kl in (experts.kl(self.model.prior()), between))
        sums = {name: x.sum(dim=(0, 1)) for name, x in log_p.items()}
        kl = (1 - self.alpha) * between + self.alpha * to_prior
        terms = {"kl": to_prior, "kl between": between} | sums
        return bound_of(self.weighted_sum(sums) - beta * kl, by_modality("mixture", terms), batch.mask)


class MmjsdElbo(MultimodalObjective):
    r"""mmJSD: a mixture of the experts and the prior, with KLs to their geometric mean (Sutter et al. 2020, eq. 8).

    .. math:: \sum_k \pi_k \Big[ E_{q_k} \sum_m \lambda_m \log p(x_m|z) - \beta KL(q_k || f(z|X)) \Big], \qquad
              f(z|X) \propto \prod_k q_k^{\pi_k}, \quad q_0 = p(z), \quad \pi_k = \frac1{1 + |X|}

    arXiv 2006.08242. A lower bound on :math:`\log \int f(z|X) p(X|z) dz`, with the geometric mean f in place of the
    prior, not on log p(X). One sample of each component (stratified).

    Raises:
        InputError: a posterior that is not a mixture, experts that are no Gaussians, or private latents.
    """

    of_mixtures = True

    def __init__(self, model: MultimodalVAE, weights: Mapping[str, float] | None = None) -> None:
        super().__init__(model, weights)
        fits = self.model.variational_posterior.is_gaussian and not self.model.private
        require(fits, "mmJSD needs Gaussian experts and prior, and no private latents: take MmvaeElbo")

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The bound of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        of_prior, of_experts = self.model.prior.params, self.model.experts(batch)
        mu, logvar = (
            torch.cat([p.expand_as(x[:1]), x]) for p, x in zip(of_prior, of_experts, strict=True)
        )  # (1 + M, B, D)
        present = mu.new_ones(mu.shape[1], len(mu), dtype=torch.bool)
        if batch.mask is not None:
            present = torch.cat([present[:, :1], batch.mask], dim=1)  # (B, 1 + M)
        pi = present.T.to(mu) / present.sum(dim=1)  # (1 + M, B)
        powers = logvar + present.sum(dim=1).to(mu).log()[:, None]  # precisions times pi
        mean = DiagonalGaussian(*product_of_experts(mu, powers, present, with_prior=False))
        components = DiagonalGaussian(mu, logvar)
        kl = (pi * components.kl(mean)).sum(dim=0)
        z = components.rsample((1,))  # (1, 1 + M, B, D)
        rows = rows_where(self.model, batch, pi[..., None] > 0)
        log_p = self.score(self.model, batch, z, rows)  # {name: (1, 1 + M, B)}
        means = {name: (pi * x[0]).sum(dim=0) for name, x in log_p.items()}
        return self.elbo("mixture", means, kl, beta, batch.mask)


class ReweightedElbo(MultimodalObjective):
    r"""The ELBO of a mixture of experts as in MMVAE's code: each decoder sees only its own encoder's sample.

    .. math:: \sum_r \pi_r \Big[ \sum_d E_{q_d(z|x_d)} \frac{q_r(z|x_r)}{q_d(z|x_d)} \lambda_d \log p(x_d|z)
              - \beta KL(q_r(z|x_r) || p(z)) \Big]

    Its expectation is MmvaeElbo's, but the ratios of trained experts are nearly all zero (on MNIST-SVHN the median is
    e^-30), and samples miss the others: for comparison, not for use. As in the code, q_d and z are held fixed in
    the ratio (`m_elbo` of github.com/iffsid/mmvae), which makes the gradient biased. In float32 a ratio above e^88
    overflows, and training stops.
    """

    of_mixtures = True

    def bound(self, inputs: Mapping[str, Tensor] | Batch, beta: float = 1.0) -> Bound:
        """The estimate of each example, (B,), with the KLs weighted by beta."""
        batch = self.model.observe(inputs)
        q = self.model.fuse(self.model.experts(batch), batch.mask)
        pi, experts = q.weights, q.components  # (M, B), batch shape (B, M)
        one_each = len(pi) == len(self.model.modalities) == self.model.n_columns
        require(one_each, "the reweighted ELBO needs a mixture with one expert for each modality: take MmvaeElbo")
        z = experts.rsample().movedim(1, 0)  # (M, B, D)
        ratio = self._ratios(experts, z, pi > 0)
        kl = (pi * experts.kl(self.model.prior()).T).sum(dim=0)
        rows = rows_where(self.model, batch, pi[..., None] > 0, torch.eye(len(z), dtype=torch.bool))
        log_p = self.score(self.model, batch, z[None], rows)  # {name: (1, M, B)}
        mean_ratio = dict(zip(self.model.modalities, (pi[:, None] * ratio).sum(dim=0), strict=True))  # {name: (B,)}
        means = {name: mean_ratio[name] * x.sum(dim=(0, 1)) for name, x in log_p.items()}  # of its own expert alone
        return self.elbo("mixture", means, kl, beta, batch.mask)

    @staticmethod
    def _ratios(experts: Distribution, z: Tensor, present: Tensor) -> Tensor:
        """q_r(z_d) / q_d(z_d) of experts r at the sample of expert d, (M, M, B); 0 where one of them is absent."""
        log_q = experts.log_prob(z.detach().unsqueeze(2)).movedim(2, 0)  # (M, M, B)
        log_ratio = (log_q - log_q.diagonal().T.detach()).masked_fill(~(present[:, None] & present), -torch.inf)
        same = torch.eye(len(z), dtype=torch.bool, device=z.device).unsqueeze(2)
        return torch.where(same, 1, log_ratio.exp())
