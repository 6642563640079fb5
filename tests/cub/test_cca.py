"""Canonical correlations that are known."""

import math

from common.errors import InputError
from cub.cca import cca

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag, eigh
from scipy.special import gamma, hyp2f1
from torch import nn


def views(n=400, p=6, q=4):
    """Two views that share three sources, float64."""
    s = torch.randn(n, 3).double()
    x = torch.cat([s + torch.randn(n, 3), torch.randn(n, p - 3)], dim=1) @ torch.randn(p, p).double()
    y = torch.cat([s + 2 * torch.randn(n, 3), torch.randn(n, q - 3)], dim=1) @ torch.randn(q, q).double()
    return x + 5, y - 3


def test_canonical_correlations_that_are_known():
    """The data's sample covariance is exact, and mixed within each view."""
    r = torch.tensor([0.9, 0.5, 0.2]).double()
    z = torch.randn(500, 8).double()
    basis = torch.linalg.qr(z - z.mean(dim=0)).Q  # centred, orthonormal
    x, y = basis[:, :5], basis[:, 5:]
    y = r * x[:, :3] + (1 - r**2).sqrt() * y
    x, y = x @ torch.randn(5, 5).double() + 3, 100 * y @ torch.randn(3, 3).double() - 1
    found = cca(x, y, 3)
    torch.testing.assert_close(found.correlations, r, rtol=0, atol=1e-9)
    a, b = ((v - mean) @ w for v, mean, w in zip((x, y), found.means, found.directions, strict=True))
    torch.testing.assert_close(a.T @ a / 500, torch.eye(3).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(b.T @ b / 500, torch.eye(3).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close(a.T @ b / 500, r.diag(), rtol=0, atol=1e-8)


def test_cca_is_the_authors_eigenproblem():
    """Also its regulariser, where it matters."""
    x, y = views()
    x_new, y_new = views()
    eps = 0.3
    blocks = block_diag(np.cov(x.T, bias=True), np.cov(y.T, bias=True)) + eps * np.eye(10)
    joint = np.cov(torch.cat([x, y], dim=1).T, bias=True) + eps * np.eye(10)
    values, vectors = eigh(joint, blocks)
    found = cca(x, y, 3, eps=eps)
    assert found.correlations.tolist() == pytest.approx(list(values[::-1][:3] - 1), abs=1e-9)
    assert abs(cca(x, y, 3).correlations[0] - found.correlations[0]) > 1e-3
    vectors = torch.from_numpy(vectors[:, ::-1][:, :3].copy())
    a, b = (x_new - x.mean(dim=0)) @ vectors[:6], (y_new - y.mean(dim=0)) @ vectors[6:]
    torch.testing.assert_close(found.similarity(x_new, y_new), nn.functional.cosine_similarity(a, b))


def test_directions_in_which_nothing_varies_do_not_count():
    """2048 features of a few images lie in few dimensions; float32, as features are."""
    x, y = views(30, 5)
    new, y_new = views(30, 5)
    mixing = torch.linalg.qr(torch.randn(2048, 5).double()).Q.T
    few, many = cca(x, y, 3), cca((x @ mixing).float(), y, 3)
    torch.testing.assert_close(many.correlations, few.correlations, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        many.similarity((new @ mixing).float(), y_new), few.similarity(new, y_new), atol=1e-3, rtol=0
    )
    constant = torch.cat([x, torch.ones(30, 2), x[:, :1]], dim=1)
    torch.testing.assert_close(cca(constant, y, 3).correlations, few.correlations, rtol=0, atol=1e-9)


def test_captions_of_an_image_are_pairs():
    x, _ = views(40)
    y = x.repeat_interleave(10, dim=0)[:, :4] + 4 * torch.randn(400, 4)
    found, expected = cca(x, y, 3), cca(x.repeat_interleave(10, dim=0), y, 3)
    torch.testing.assert_close(found.correlations, expected.correlations)
    similarity = found.similarity(x, y)
    assert similarity.shape == (400,) and similarity.abs().max() <= 1
    torch.testing.assert_close(similarity, expected.similarity(x.repeat_interleave(10, dim=0), y))


def test_leading_principal_components():
    x, y = views()
    x_new, y_new = views()
    axes = torch.linalg.svd(x - x.mean(dim=0), full_matrices=False).Vh[:3].T
    found, expected = cca(x, y, 2, components=3), cca(x @ axes, y, 2)
    torch.testing.assert_close(found.correlations, expected.correlations)
    torch.testing.assert_close(found.similarity(x_new, y_new), expected.similarity(x_new @ axes, y_new))
    assert found.correlations[0] < cca(x, y, 2).correlations[0] - 1e-4


@pytest.mark.parametrize("k", [1, 3])
def test_similarity_of_gaussians(k):
    """The expected cosine of k-dimensional normal vectors that correlate by r: 2 asin(r) / pi for k = 1."""
    r = 0.6
    x = torch.randn(40_000, k).double()
    y = r * x + (1 - r**2) ** 0.5 * torch.randn(40_000, k)
    expected = 2 / k * (gamma((k + 1) / 2) / gamma(k / 2)) ** 2 * r * hyp2f1(0.5, 0.5, k / 2 + 1, r**2)
    if k == 1:
        assert expected == pytest.approx(2 * math.asin(r) / math.pi)
    found = cca(x[:20_000] + 7, y[:20_000], k)
    assert found.similarity(x[20_000:] + 7, y[20_000:]).mean().item() == pytest.approx(expected, abs=0.02)
    assert found.similarity(x[20_000:] + 7, y[20_000:].roll(1, 0)).mean().item() == pytest.approx(0, abs=0.02)


def test_too_many_directions_or_components_are_refused():
    x, y = views(4)
    with pytest.raises(InputError, match="there are 3 canonical directions at most, not 4"):
        cca(x, y, 4)
    with pytest.raises(InputError, match="there are 3 principal components, not 4: ask for fewer"):
        cca(torch.randn(10, 3), torch.randn(10, 3), 1, components=4)
