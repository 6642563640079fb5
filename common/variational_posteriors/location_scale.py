"""Gaussian and Laplace posteriors."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace
from torch.nn.functional import softplus

from common.distributions.location_scale import DiagonalGaussian, LaplaceOrNormal
from common.errors import require
from common.variational_posteriors.base import Posterior

MIN_SCALE = 1e-6  # epsilon, as in the MMVAE authors' code


class DiagonalGaussianPosterior(Posterior):
    """N(mu, diag(exp(logvar))).

    Range: |mu| <= 1e9 and |logvar| <= 40; |logvar| <= 80 where the only other distribution is N(0, I). For D <= 256.
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

    def __init__(self, min_scale: float = MIN_SCALE, sizes: Sequence[int] | None = None) -> None:
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

    def __init__(self, family: type[Distribution]) -> None:
        super().__init__()
        self.family = family

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., D) -> q, batch shape (...)."""
        loc, a = params
        return Independent(self.family(loc, softplus(a) + MIN_SCALE, validate_args=False), 1)


class LaplaceOrNormalPosterior(Posterior):
    r"""The T components of a mixture, some Laplace and some normal, with scales :math:`softplus(a) + \epsilon`.

    Range: |loc| and |a| <= 1e9.

    Args:
        laplace: for each component, True for Laplace and False for normal.
    """

    def __init__(self, laplace: Sequence[bool]) -> None:
        super().__init__()
        self.register_buffer("laplace", torch.tensor(laplace)[:, None], persistent=False)  # (T, 1)

    def forward(self, params: tuple[Tensor, Tensor]) -> Independent:
        """(loc, a), each (..., T, D) -> the components of q, batch shape (..., T)."""
        loc, a = params
        n, given = len(self.laplace), loc.shape[-2]
        require(n == given, f"laplace-normal is for {n} modalities (got {given}): choose softplus-laplace or -normal")
        return Independent(LaplaceOrNormal(loc, softplus(a) + MIN_SCALE, self.laplace), 1)
