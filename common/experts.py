"""Ways to fuse experts: pure functions on stacked parameters (M, B, D) or log-densities."""

import math

import torch
from torch import Tensor


def product_of_experts(
    mu: Tensor, logvar: Tensor, mask: Tensor | None = None, with_prior: bool | Tensor = True
) -> tuple[Tensor, Tensor]:
    r"""Gaussian product of M experts and the standard normal prior, or of the experts alone.

    .. math:: q(z|x_S) \propto p(z) \prod_{m \in S} N(z; \mu_m, \sigma_m^2), \qquad
              T = 1 + \sum_{m \in S} \sigma_m^{-2}, \quad \mu = T^{-1} \sum_{m \in S} \sigma_m^{-2} \mu_m

    (Wu & Goodman 2018, arXiv 1802.05335, section 2.2; the prior N(0, I) is an expert even if S has one member.)
    Precisions are summed in float64, which is exact and has finite gradients for variances from e^-700 to e^700.

    Args:
        mu, logvar: the experts' means and log-variances, (M, B, D).
        mask: True where an expert takes part, (..., B, M) or broadcastable to it; by default everywhere.
        with_prior: whether the prior is an expert (MVAE) or not (MVTCAE, Hwang et al. 2021), or (..., B) bool.

    Returns:
        mean and log-variance of the product, each (..., B, D); the prior's where no expert takes part.
    """
    precision = (-logvar).double().exp()  # (M, B, D)
    total, moment = masked_sum(torch.cat([precision, precision * mu], dim=-1), mask).chunk(2, dim=-1)  # (..., B, D)
    if mask is not None and with_prior is not True:
        with_prior = (~mask.any(dim=-1) | with_prior).unsqueeze(-1)
    total = total + with_prior
    return (moment / total).to(mu), -total.log().to(mu)


def masked_sum(x: Tensor, mask: Tensor | None) -> Tensor:
    """Sum x (M, B, D) over the experts that a mask (..., B, M) selects, by default all: (..., B, D)."""
    return x.sum(dim=0) if mask is None else torch.einsum("...bm,mbd->...bd", mask.to(x), x)


def mixture_log_prob(log_q: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Log-density of the equally weighted mixture of the experts that take part; they may be of different families.

    .. math:: \log q(z|x_S) = \log \frac{1}{|S|} \sum_{m \in S} q_m(z|x_m)

    (MMVAE, Shi et al. 2019, arXiv 1911.03393.)

    Args:
        log_q: log q_m(z) for K samples, (M, K, B), nats.
        mask: True where an expert takes part, (B, M); by default everywhere.

    Returns:
        (K, B), nats; -inf where no expert takes part.
    """
    if mask is None:
        return log_q.logsumexp(dim=0) - math.log(len(log_q))
    present = mask.T.unsqueeze(1)  # (M, 1, B)
    n = present.sum(dim=0).clamp(min=1)
    return log_q.masked_fill(~present, -torch.inf).logsumexp(dim=0) - n.to(log_q).log()


def quotient_of_experts(mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Gaussian product of M posteriors, divided by the standard normal priors that it counts too often.

    .. math:: q(z|x_S) \propto \frac{\prod_{m \in S} N(z; \mu_m, T_m^{-1})}{p(z)^{|S| - 1}}, \qquad
              T_m = 1 + \sigma_m^{-2}, \quad T = 1 + \sum_{m \in S} \sigma_m^{-2}, \quad
              \mu = T^{-1} \sum_{m \in S} T_m \mu_m

    (MVAE-Q, Wu & Goodman 2018, arXiv 1802.05335, eq. 3.) The quotient exists only if each posterior is narrower than
    the prior. So an encoder's logvar is not the posterior's log-variance: exp(-logvar) is the posterior's precision
    minus the prior's.

    Args:
        mu, logvar: means and log(sigma^2), (M, B, D).
        mask: True where a posterior takes part, (..., B, M) or broadcastable to it; by default everywhere.

    Returns:
        mean and log-variance, each (..., B, D); the prior's where no posterior takes part.
    """
    mu, log_excess = mu.movedim(0, -2), -logvar.movedim(0, -2)  # (B, M, D)
    log_precision = torch.logaddexp(log_excess, log_excess.new_zeros(()))
    if mask is not None:
        log_excess, log_precision = (
            x.masked_fill(~mask.unsqueeze(-1), -torch.inf) for x in (log_excess, log_precision)
        )  # (..., B, M, D)
    total = torch.cat([torch.zeros_like(log_excess[..., :1, :]), log_excess], dim=-2).logsumexp(dim=-2)  # (..., B, D)
    weight = (log_precision - total.unsqueeze(-2)).exp()
    return (weight * mu).sum(dim=-2), -total


def wasserstein_barycentre(mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The Gaussian with the least mean squared 2-Wasserstein distance to the experts, which have equal weights.

    .. math:: \mu = \frac{1}{|S|} \sum_{m \in S} \mu_m, \qquad \sigma = \frac{1}{|S|} \sum_{m \in S} \sigma_m

    (WB-VAE, arXiv 2412.20487.)

    Args:
        mu, logvar: the experts' means and log-variances, (M, B, D).
        mask: True where an expert takes part, (..., B, M); by default everywhere.

    Returns:
        mean and log-variance, each (..., B, D); 0 where no expert takes part.
    """
    experts = torch.cat([mu.double(), (0.5 * logvar.double()).exp()], dim=-1)
    if mask is None:
        mean, scale = experts.mean(dim=0).chunk(2, dim=-1)
    else:
        n = mask.sum(dim=-1, keepdim=True)
        mean, scale = (masked_sum(experts, mask) / n.clamp(min=1)).chunk(2, dim=-1)
        scale = scale + (n == 0)
    return mean.to(mu), 2 * scale.log().to(mu)


def dependent_experts(mu: Tensor, logvar: Tensor, rho: float, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""The consensus of Gaussian experts whose errors have the correlation rho; for rho = 0 the product of experts.

    .. math:: q(z|x_S) = N(z; v \, 1^\top \Sigma^{-1} \mu, \, v), \qquad v = (1^\top \Sigma^{-1} 1)^{-1}, \qquad
              \Sigma_{mn} = \sigma_m \sigma_n \, (1 \text{ if } m = n, \text{ else } \rho)

    in each dimension (CoDE-VAE, arXiv 2505.01134). The mean can lie outside the experts' ones.

    Args:
        mu, logvar: the experts' means and log-variances, (M, B, D).
        rho: from 0 up to, but not including, 1.
        mask: True where an expert takes part, (..., B, M); by default everywhere.

    Returns:
        mean and log-variance, each (..., B, D); 0 where no expert takes part.
    """
    a = (-0.5 * logvar.double()).exp()  # 1 / sigma_m
    sums = masked_sum(torch.cat([a, a * mu, a.square(), a.square() * mu], dim=-1), mask)
    a_sum, a_mu_sum, precision, moment = sums.chunk(4, dim=-1)  # (..., B, D)
    n = len(mu) if mask is None else mask.sum(dim=-1, keepdim=True, dtype=a.dtype)
    c = rho / (1 + (n - 1) * rho)  # R^-1 = (I - c 1 1^T) / (1 - rho)
    total, moment = (x / (1 - rho) for x in (precision - c * a_sum.square(), moment - c * a_sum * a_mu_sum))
    if mask is not None:
        total = total + (n == 0)
    return (moment / total).to(mu), -total.log().to(mu)


def hoelder_components(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The components of the Hoelder pooling of Gaussian experts, a mixture (arXiv 2601.06572, 2606.13381).

    .. math:: q(z|x_S) \propto \Big( \sum_{m \in S} \sqrt{q_m(z)} \Big)^2
              = \sum_{m \in S} q_m(z) + \sum_{i < j} 2 S_{ij} \frac{\sqrt{q_i(z) q_j(z)}}{S_{ij}}

    S_ij, the Bhattacharyya coefficient of the experts i and j, normalises their pair, which is a Gaussian too.

    .. math:: \log S_{ij} = \sum_d \frac12 \log \frac{2 \sigma_i \sigma_j}{\sigma_i^2 + \sigma_j^2}
              - \frac{(\mu_i - \mu_j)^2}{4 (\sigma_i^2 + \sigma_j^2)}

    Args:
        mu, logvar: the experts' means and log-variances, (M, B, D).

    Returns:
        the pairs i <= j, (T, 2), in which i = j stands for an expert; logits (T, B), means and log-variances (T, B, D).
    """
    pairs = torch.triu_indices(len(mu), len(mu), device=mu.device).T  # (T, 2)
    (mu_i, logvar_i), (mu_j, logvar_j) = ((mu[index], logvar[index]) for index in pairs.T)
    log_sum = torch.logaddexp(logvar_i, logvar_j)
    weight = (logvar_j - logvar_i).sigmoid()  # of mu_i
    means = weight * mu_i + (1 - weight) * mu_j
    log_s = (
        0.5 * (math.log(2) + 0.5 * (logvar_i + logvar_j) - log_sum)
        - 0.25 * ((mu_i - mu_j) * (-0.5 * log_sum).exp()).square()
    )
    is_pair = (pairs[:, 0] != pairs[:, 1])[:, None]
    logits = torch.where(is_pair, math.log(2) + log_s.sum(dim=-1), 0)
    return pairs, logits, means, math.log(2) + logvar_i + logvar_j - log_sum
