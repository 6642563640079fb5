"""The Frechet distance against closed forms, and FID against torch-fidelity's network on images in 8 bits."""

import sys

import common.data.torchvision_import  # noqa: F401 (torch-fidelity imports torchvision)
from common.errors import InputError
from common.io import save_tensors
from polymnist.inception import WEIGHTS, inception_features
from reports.subsets import frechet_distance, moments

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

CPU = torch.device("cpu")


def distance(x, y):
    return frechet_distance(moments(x), moments(y))


def test_the_frechet_distance_of_samples_is_that_of_their_gaussians():
    """For commuting covariances (sum of (s - t)^2 over the axes), and for any against a symmetric root."""
    a, b = (torch.randn(4, 4, dtype=torch.float64) for _ in range(2))
    means = torch.randn(2, 4, dtype=torch.float64)
    covariances = [m @ m.T + 0.1 * torch.eye(4) for m in (a, b)]
    x, y = (MultivariateNormal(m, c).sample((400_000,)) for m, c in zip(means, covariances, strict=True))

    def root(c):
        values, vectors = torch.linalg.eigh(c)
        return vectors @ values.sqrt().diag() @ vectors.T

    s = root(covariances[0])
    cross = root(s @ covariances[1] @ s).trace()
    expected = (means[0] - means[1]).square().sum() + covariances[0].trace() + covariances[1].trace() - 2 * cross
    assert distance(x, y) == pytest.approx(expected.item(), rel=0.02)
    assert distance(x, x) == pytest.approx(0, abs=1e-6)
    z = torch.randn(1000, 3)
    assert distance(z, 2 * z + 1) == pytest.approx(
        (z.mean(dim=0) + 1).square().sum().item() + z.var(dim=0).sum().item(), rel=1e-4
    )


def test_too_few_examples_or_infinite_features_are_refused():
    with pytest.raises(InputError, match="a Frechet distance needs two examples or more"):
        distance(torch.randn(1, 3), torch.randn(5, 3))
    with pytest.raises(InputError, match="are not finite"):
        moments(torch.tensor([[1.0, 2.0], [3.0, torch.nan]]))


@pytest.mark.parametrize(("n", "n_features"), [(2, 40), (50, 3)])
@pytest.mark.parametrize("widest", [1, 3e3])
def test_a_set_has_no_distance_from_itself(n, n_features, widest):
    x = torch.randn(n, n_features, dtype=torch.float64) + 10
    x[:, 0] *= widest
    trace = x.var(dim=0).sum().item()
    assert 0 <= distance(x, x) < 1e-8 * trace
    y = 2 * torch.randn(n + 1, n_features, dtype=torch.float64)
    assert distance(x, y) == pytest.approx(direct(x.numpy(), y.numpy()), rel=1e-6)


def test_one_feature():
    """The squared difference of the means plus that of the standard deviations."""
    x, y = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [8.0]])
    expected = (2 - 4) ** 2 + (2**0.5 - 32**0.5) ** 2
    assert distance(x, y) == pytest.approx(expected)


def direct(x, y):
    """With the trace of the root as the sum of the singular values of the product of the centred features."""
    (x_mean, y_mean), (a, b) = zip(*((v.mean(axis=0), v.astype(np.float64)) for v in (x, y)), strict=True)
    a, b = (a - x_mean) / (len(a) - 1) ** 0.5, (b - y_mean) / (len(b) - 1) ** 0.5
    root = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return np.square(x_mean - y_mean).sum() + np.square(a).sum() + np.square(b).sum() - 2 * root


@pytest.fixture(scope="module")
def network():
    """An untrained Inception-v3: torch-fidelity makes none without a file of weights."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3 as Network

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as untrained:
        untrained.setattr(Network, "load_state_dict", lambda self, state: None)
        untrained.setattr(torch, "load", lambda *args, **kwargs: None)
        return Network("inception", ["2048"], "no file")


@pytest.mark.slow
def test_fid_is_that_of_the_images_in_8_bits(network, tmp_path):
    save_tensors(tmp_path / WEIGHTS, network.state_dict())
    features = inception_features(tmp_path / WEIGHTS, CPU)
    x, y = torch.randn(3, 3, 28, 28) * 0.4 + 0.5, torch.rand(4, 3, 28, 28)
    bits = [torch.from_numpy(np.rint(np.clip(v.numpy(), 0, 1) * 255).astype(np.uint8)) for v in (x, y)]
    expected = [network(v)[0].numpy() for v in bits]
    assert expected[0].shape == (3, 2048) and expected[0].std(axis=0).max() > 0
    for images, by_hand in zip((x, y), expected, strict=True):
        np.testing.assert_allclose(features(images).numpy(), by_hand, rtol=1e-4, atol=1e-6)
    assert distance(features(x), features(y)) == pytest.approx(direct(*expected), rel=1e-3)


def test_other_weights_are_refused(tmp_path):
    path = tmp_path / WEIGHTS
    remedy = f"give {WEIGHTS}, which"
    with pytest.raises(InputError, match=f"is missing: {remedy}"):
        inception_features(path, CPU)
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match=f"is damaged or not a checkpoint.*: {remedy}"):
        inception_features(path, CPU)
    save_tensors(path, {"fc.weight": torch.zeros(1000, 2048)})
    with pytest.raises(InputError, match=f"holds other weights than Inception-v3's: {remedy}"):
        inception_features(path, CPU)


def test_without_torch_fidelity(tmp_path, monkeypatch):
    save_tensors(tmp_path / WEIGHTS, {"fc.weight": torch.zeros(2)})
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.delitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", raising=False)
    with pytest.raises(InputError, match="^FID needs torch-fidelity: pip install torch-fidelity, or leave out --incep"):
        inception_features(tmp_path / WEIGHTS, CPU)
