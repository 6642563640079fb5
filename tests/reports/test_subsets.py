"""Metrics by subset, on models whose coherence is known."""

from common.data import Examples
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE, VAE
from common.variational_posteriors import DiagonalGaussianPosterior, MixturePosterior
from common.variational_strategies import MoeStrategy
from reports.latents import kmeans_accuracy
from reports.metrics import Judge
from reports.subsets import Posteriors, frechet_distance, linear_accuracies, moments, scores_by_size, scores_by_subset
from tests.helpers.coherence import C, Decoder, Encoder
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw

import pytest
import torch
from torch import nn

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


def test_scores_given_a_subset():
    vae = model(wrong_a=0.3, wrong_c_decoder=0.2)
    subsets = scores_by_subset(Posteriors(vae, *examples(600)), Posteriors(vae, *examples()), JUDGES)
    scores = subsets["b",]["targets"]
    assert scores["a"]["coherence"] == scores["b"]["coherence"] == 1 and scores["a"]["FD"] < 0.01
    assert scores["c"]["coherence"] == pytest.approx(0.8, abs=0.03) == scores["c"]["macro"]
    scores = subsets["a",]["targets"]
    assert scores["b"]["coherence"] == pytest.approx(0.7, abs=0.03)
    assert scores["c"]["coherence"] == pytest.approx(0.7 * 0.8, abs=0.04)
    prior = subsets[()]["targets"]
    assert set(prior["a"]) == {"FD"} and prior["a"]["FD"] < 0.05, "all classes are as frequent under the prior"


def test_scores_by_size_are_means_over_subsets_and_targets_outside():
    vae = model(wrong_a=0.3)
    train, test = Posteriors(vae, *examples(600)), Posteriors(vae, *examples())
    subsets = scores_by_subset(train, test, JUDGES)
    sizes = scores_by_size(subsets)
    assert list(sizes) == [0, 1, 2, 3] and set(sizes[0]) == {"FD"}
    # of the pairs, a,b and a,c see two certain classes that differ in 30 % of the examples: a's draw ties with b's
    assert sizes[1]["coherence"] == pytest.approx((0.7 + 1 + 1) / 3, abs=0.02)
    assert sizes[1]["given targets"] == pytest.approx((0.7 + 1 + 1) / 3, abs=0.02)
    assert sizes[1]["spread"] == pytest.approx(torch.tensor([0.7, 1.0, 1.0]).std(correction=0).item(), abs=0.02)
    pairs = [
        subsets[given]["targets"][outside]
        for given, outside in ((("a", "b"), "c"), (("a", "c"), "b"), (("b", "c"), "a"))
    ]
    for score in ("coherence", "macro", "FD"):
        assert sizes[2][score] == pytest.approx(sum(x[score] for x in pairs) / 3)
    assert "coherence" not in sizes[3] and "given targets" in sizes[3] and "linear accuracy" in sizes[3]


def test_fid_by_size_is_a_mean_over_all_targets():
    """With the judges' features in place of Inception's it is FD where the same targets count."""
    vae = model(wrong_c_decoder=0.5)
    train, test = Posteriors(vae, *examples(600)), Posteriors(vae, *examples())
    subsets = scores_by_subset(train, test, JUDGES, inception=lambda x: x)
    sizes = scores_by_size(subsets)
    assert sizes[0]["FID"] == sizes[0]["FD"]
    scores = subsets["c",]["targets"]
    assert all(score["FID"] == score["FD"] for score in scores.values())
    uniform = examples()[0].modalities["a"]
    wrong = torch.where(torch.rand(len(uniform), 1) < 0.5, uniform.roll(1, dims=1), uniform)
    assert scores["c"]["FID"] == pytest.approx(frechet_distance(moments(wrong), moments(uniform)), abs=0.01)
    by_hand = [score["FID"] for name in NAMES for score in subsets[name,]["targets"].values()]
    assert sizes[1]["FID"] == pytest.approx(sum(by_hand) / 9) and "FID" in sizes[3]


def linear_accuracy(train, test, given):
    scores = linear_accuracies(train, test, given, test.points(given))
    assert set(scores) == {"linear accuracy"}
    return scores["linear accuracy"]


def test_linear_accuracy_is_that_of_the_posteriors_mean():
    vae = model(wrong_a=0.4)
    train, test = Posteriors(vae, *examples(700)), Posteriors(vae, *examples())
    assert linear_accuracy(train, test, ("b",)) == 1
    assert linear_accuracy(train, test, ("a",)) == pytest.approx(0.6, abs=0.03)


def test_a_mixtures_linear_accuracy_is_the_mean_of_its_components():
    """Averages of the components' means would tell more than each of them."""
    vae = model(wrong_a=0.4)
    vae.variational_strategy, vae.variational_posterior = MoeStrategy(), MixturePosterior(DiagonalGaussianPosterior())
    train, test = Posteriors(vae, *examples(700)), Posteriors(vae, *examples())
    for given, expected in ((("a",), 0.6), (("b", "c"), 1.0), (("a", "b"), 0.8), (NAMES, 2.6 / 3)):
        assert linear_accuracy(train, test, given) == pytest.approx(expected, abs=0.03), given


class SharedAndPrivate(Encoder):
    """Classes in the shared or in the private latents, noise in the others."""

    def __init__(self, in_shared):
        super().__init__()
        self.in_shared = in_shared

    def forward(self, x):
        known, noise = 10 * x, 10 * torch.randn_like(x)
        mu = torch.cat([known, noise] if self.in_shared else [noise, known], dim=1)
        return mu, torch.full_like(mu, self.logvar)


@pytest.mark.parametrize("in_shared", [True, False])
def test_shared_and_private_latents_are_scored_apart(in_shared):
    vae = VAE(
        "poe",
        encoder={name: SharedAndPrivate(in_shared) for name in "ab"},
        decoder={name: nn.Linear(2 * C, C) for name in "ab"},
        likelihood=GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0) for name in "ab"}),
        latent_dim=3 * C,
        private=dict.fromkeys("ab", C),
    )
    train, test = (Posteriors(vae, x.only(("a", "b")), y) for x, y in (examples(700), examples()))
    scores = linear_accuracies(train, test, ("a",), test.points(("a",)))
    shared, private = scores["linear accuracy"], scores["linear accuracy, private"]
    known, chance = (shared, private) if in_shared else (private, shared)
    assert known == 1 and chance == pytest.approx(1 / C, abs=0.05)
    clusters = kmeans_accuracy(train, test).mean().item()
    assert clusters > 0.9 if in_shared else clusters == pytest.approx(1 / C, abs=0.08)


class WrongOfFirstClass(nn.Module):
    """z as it is, but for class 0, which becomes another."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return torch.where(z.argmax(dim=1, keepdim=True) == 0, z.roll(1, dims=1), z)


def test_the_macro_score_weighs_classes_equally():
    """b is decoded wrongly for class 0 alone, which nine of ten examples show."""
    torch.manual_seed(0)
    vae = model()
    vae.decoder["b"] = WrongOfFirstClass()
    n_classes = vae.latent_dim
    label = torch.where(torch.arange(1000) < 900, 0, torch.arange(1000) % n_classes)
    x = nn.functional.one_hot(label, n_classes).float()
    test = Posteriors(vae, Examples(dict.fromkeys(NAMES, x)), label[:, None])
    scores = scores_by_subset(Posteriors(vae, *examples(600)), test, JUDGES)["a",]["targets"]["b"]
    assert scores["coherence"] == pytest.approx((label != 0).double().mean().item(), abs=0.01)
    assert scores["macro"] == pytest.approx(1 - 1 / n_classes, abs=0.01)


@pytest.mark.parametrize("fusion", ["poe", "product", "quotient", "moe", "mopoe", "own"])
def test_a_point_is_the_posteriors_mean_or_that_of_a_component(fusion):
    linear, weights, scales = with_fusion(fusion, 3)
    x = Examples(draw(weights, scales, 8))
    data, q = Posteriors(linear, x, torch.arange(8)[:, None]), linear.posterior(x[:])
    points = data.points(("a", "b", "c"))
    if fusion == "moe":
        means = q.component_distribution.mean  # (8, 3, D)
        assert ((points[:, None] - means).abs() < 1e-9).all(dim=2).any(dim=1).all()
        assert not torch.allclose(points, q.mean)
    else:
        torch.testing.assert_close(points, q.mean)
    assert data.points(()).equal(torch.zeros(8, linear.latent_dim).double()), "the prior's mean"
    assert len(data.points(("a",), 5)) == 5
