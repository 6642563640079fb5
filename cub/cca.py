"""Canonical correlations of two views, and the similarity of pairs that Shi et al. 2019 report."""

from typing import NamedTuple

from common.errors import require

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


class Canonical(NamedTuple):
    """The result of a canonical correlation analysis of two views, see `cca`.

    correlations: (k,), along the canonical directions, in descending order.
    means: the views' means, (P,) and (Q,).
    directions: (P, k) and (Q, k); along them the views have variance 1.
    """

    correlations: Tensor
    means: tuple[Tensor, Tensor]
    directions: tuple[Tensor, Tensor]

    def similarity(self, x: Tensor, y: Tensor) -> Tensor:
        """Cosine similarity of each pair's two views, centred and projected on the canonical directions.

        Its mean over pairs is what Shi et al. 2019 report as the correlation of images and captions.

        Args:
            x, y: (N, P) and (N G, Q), paired as in `cca`.

        Returns:
            (N G,) float64 in [-1, 1].
        """
        x, y = ((v - mean) @ w for v, mean, w in zip((x, y), self.means, self.directions, strict=True))  # (N (G), k)
        return cosine_similarity(x.repeat_interleave(len(y) // len(x), dim=0), y)


def cca(x: Tensor, y: Tensor, k: int, components: int | None = None, eps: float = 1e-12) -> Canonical:
    """Find the k directions of two views whose projections correlate most (Hotelling 1936).

    They solve the MMVAE authors' generalised eigenproblem C w = (1 + r) D w, with C the covariance of both views side
    by side, D its diagonal blocks, and eps added to the diagonals of both. Each view is whitened by its SVD in
    float64, which is exact even if views have more dimensions than examples. Directions in which a view hardly varies
    (less than 1e-7 of its largest variation, the precision of float32) are left out.

    Args:
        x: (N, P).
        y: (N G, Q), G rows for each row of x, in order; each of them is a pair with that row.
        k: the number of directions.
        components: first reduce x to this number of leading principal components.

    Raises:
        InputError: the views vary in fewer than k directions, or x in fewer than `components`.
    """
    (x, x_mean, x_whitening), (y, y_mean, y_whitening) = _whitened(x, eps, components), _whitened(y, eps)
    rank = min(x.shape[1], y.shape[1])
    require(k <= rank, f"there are {rank} canonical directions at most, not {k}: ask for fewer, or give more examples")
    correlation = x.T @ y.unflatten(0, (len(x), -1)).mean(dim=1) / len(x)  # (rank of x, rank of y)
    u, r, vh = torch.linalg.svd(correlation, full_matrices=False)
    return Canonical(r[:k], (x_mean, y_mean), (x_whitening @ u[:, :k], y_whitening @ vh[:k].T))


def _whitened(x: Tensor, eps: float, components: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Whiten a view (N, P): the view with covariance 1 (N, rank), its mean (P,), the whitening matrix (P, rank)."""
    x = x.double()
    mean = x.mean(dim=0)
    u, s, vh = torch.linalg.svd(x - mean, full_matrices=False)
    rank = int((s > 1e-7 * s[0]).sum())
    enough = components is None or components <= rank
    require(enough, f"there are {rank} principal components, not {components}: ask for fewer, or give more examples")
    rank = components or rank
    s = s[:rank]
    scale = (s**2 / len(x) + eps).rsqrt()
    return u[:, :rank] * (s * scale), mean, vh[:rank].T * scale
