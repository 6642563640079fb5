"""Metrics by subset, on models whose coherence is known, and the Frechet distance against closed forms."""

import itertools

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from common.data import Examples
from common.encoded import encode
from common.errors import InputError
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.metrics import Judge
from common.models import MVAE
from common.subset_metrics import (
    by_size,
    conditional,
    features_of,
    frechet_distance,
    linear_accuracy,
    macro_accuracy,
)
from tests.helpers.coherence import C, Decoder, Encoder

NAMES = ("a", "b", "c")


def judge(name):
    read = lambda values: values[name].argmax(dim=1, keepdim=True)  # noqa: E731
    return Judge((name,), read, features=lambda values: values[name])


JUDGES = {name: judge(name) for name in NAMES}


def model(wrong_a=0.0, wrong_c_decoder=0.0):
    """Encodes and decodes classes, a's encoder and c's decoder with a share of wrong ones."""
    return MVAE(
        encoder={"a": Encoder(wrong_a), "b": Encoder(), "c": Encoder()},
        decoder={"a": Decoder(), "b": Decoder(), "c": Decoder(wrong_c_decoder)},
        likelihood=GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0) for name in NAMES}),
        latent_dim=C,
    )


def examples(n=3000):
    label = torch.randint(C, (n,))
    x = nn.functional.one_hot(label, C).float()
    return Examples(dict.fromkeys(NAMES, x)), label[:, None]


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
    assert frechet_distance(x, y) == pytest.approx(expected.item(), rel=0.02)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    z = torch.randn(1000, 3)
    assert frechet_distance(z, 2 * z + 1) == pytest.approx(
        (z.mean(dim=0) + 1).square().sum().item() + z.var(dim=0).sum().item(), rel=1e-4
    )


def test_the_macro_accuracy_gives_classes_equal_weights():
    labels = torch.tensor([0] * 8 + [1] * 2)
    right = torch.tensor([True] * 8 + [False, True])
    assert macro_accuracy(right, labels) == pytest.approx(0.75) and right.double().mean() == pytest.approx(0.9)


def test_scores_given_a_subset():
    test = encode(model(wrong_a=0.3, wrong_c_decoder=0.2), *examples())
    real = features_of(test.examples, JUDGES)
    scores = conditional(test, JUDGES, real, ("b",))
    assert scores["a"]["coherence"] == scores["b"]["coherence"] == 1 and scores["a"]["FD"] < 0.01
    assert scores["c"]["coherence"] == pytest.approx(0.8, abs=0.03) == scores["c"]["macro"]
    scores = conditional(test, JUDGES, real, ("a",))
    assert scores["b"]["coherence"] == pytest.approx(0.7, abs=0.03)
    assert scores["c"]["coherence"] == pytest.approx(0.7 * 0.8, abs=0.04)
    prior = conditional(test, JUDGES, real, ())
    assert set(prior["a"]) == {"FD"} and prior["a"]["FD"] < 0.05, "all classes are as frequent under the prior"


def test_scores_by_size_are_means_over_subsets_and_targets_outside():
    vae = model(wrong_a=0.3)
    train, test = encode(vae, *examples(600)), encode(vae, *examples())
    sizes = by_size(train, test, JUDGES)
    assert list(sizes) == [0, 1, 2, 3] and set(sizes[0]) == {"FD"}
    # of the pairs, a,b and a,c see two certain classes that differ in 30 % of the examples: a's draw ties with b's
    assert sizes[1]["coherence"] == pytest.approx((0.7 + 1 + 1) / 3, abs=0.02)
    assert sizes[1]["itself"] == pytest.approx((0.7 + 1 + 1) / 3, abs=0.02)
    assert sizes[1]["spread"] == pytest.approx(torch.tensor([0.7, 1.0, 1.0]).std(correction=0).item(), abs=0.02)
    by_hand = []
    real = features_of(test.examples, JUDGES)
    for given in itertools.combinations(NAMES, 2):
        (outside,) = set(NAMES) - set(given)
        by_hand.append(conditional(test, JUDGES, real, given)[outside]["coherence"])
    assert sizes[2]["coherence"] == pytest.approx(sum(by_hand) / 3, abs=0.02)
    assert "coherence" not in sizes[3] and "itself" in sizes[3] and "linear accuracy" in sizes[3]


def test_linear_accuracy_is_that_of_the_posteriors_mean():
    vae = model(wrong_a=0.4)
    train, test = encode(vae, *examples(700)), encode(vae, *examples())
    assert linear_accuracy(train, test, ("b",)) == 1
    assert linear_accuracy(train, test, ("a",)) == pytest.approx(0.6, abs=0.03)


def test_linear_accuracy_takes_the_first_training_examples():
    """Those after them, all of wrong classes, play no part."""
    (train, labels), test = examples(500), encode(model(), *examples(300))
    both = Examples({name: torch.cat([x, x]) for name, x in train.modalities.items()})
    doubled = encode(test.model, both, torch.cat([labels, labels.roll(1)]))
    assert linear_accuracy(doubled, test, ("b",)) == 1


def test_too_few_examples_are_refused():
    with pytest.raises(InputError, match="a Frechet distance needs two examples or more"):
        frechet_distance(torch.randn(1, 3), torch.randn(5, 3))
    with pytest.raises(InputError, match="are not finite"):
        frechet_distance(torch.full((4, 3), torch.nan), torch.randn(5, 3))
    (x, labels), vae = examples(20), model()
    with pytest.raises(InputError, match="needs training examples of two labels"):
        linear_accuracy(encode(vae, x, torch.zeros_like(labels)), encode(vae, x, labels), ("b",))
