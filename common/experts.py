"""Products of experts: pure functions on stacked parameters (M, B, D)."""

import torch
from torch import Tensor


def product_of_experts(mu: Tensor, logvar: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Gaussian product of M experts and the standard normal prior.

    .. math:: q(z|x_S) \propto p(z) \prod_{m \in S} N(z; \mu_m, \sigma_m^2), \qquad
              T = 1 + \sum_{m \in S} \sigma_m^{-2}, \quad \mu = T^{-1} \sum_{m \in S} \sigma_m^{-2} \mu_m

    (Wu & Goodman 2018, arXiv 1802.05335, section 2.2; the prior N(0, I) is an expert, also when S has one member.)
    Computed as mean = sum of softmax(-logvar) * mu, logvar = -logsumexp(-logvar) over the experts, which is exact
    and has finite gradients where precisions or variances would overflow.

    Args:
        mu, logvar: the experts' means and log-variances, (M, B, D).
        mask: True where an expert takes part, (..., B, M) or broadcastable to it; all of them by default.

    Returns:
        mean and log-variance of the product, (..., B, D); those of the prior where no expert takes part.
    """
    prior = torch.zeros_like(mu[:1])
    mu = torch.cat([prior, mu]).movedim(0, -2)  # (B, M + 1, D)
    log_precision = torch.cat([prior, -logvar]).movedim(0, -2)
    if mask is not None:
        present = torch.cat([mask.new_ones(*mask.shape[:-1], 1), mask], dim=-1).unsqueeze(-1)  # (..., B, M + 1, 1)
        log_precision = log_precision.masked_fill(~present, -torch.inf)  # (..., B, M + 1, D)
    share = log_precision.softmax(dim=-2)
    return (share * mu).sum(dim=-2), -log_precision.logsumexp(dim=-2)
