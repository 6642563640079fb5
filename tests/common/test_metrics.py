"""Coherence of constructed models whose coherence is known, and latents that are known to be separable or not."""

import pytest
import torch

from common.data import Examples
from common.metrics import cross_coherence, divergences, joint_coherence, latent_accuracy
from tests.helpers.coherence import CLASSIFIERS, C, examples, model
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw


def test_coherence_of_a_perfect_model():
    assert set(cross_coherence(model(), examples(), "label", CLASSIFIERS).values()) == {1.0}
    assert joint_coherence(model(), 700, CLASSIFIERS) == 1.0


def test_cross_coherence_tells_the_source_from_the_target():
    torch.manual_seed(0)
    found = cross_coherence(model(encoder=(0.3, 0.0), decoder=(0.0, 0.2)), examples(), "label", CLASSIFIERS)
    right = {("a", "a"): 0.7, ("a", "b"): 0.7 * 0.8, ("b", "a"): 1.0, ("b", "b"): 0.8}
    assert found == pytest.approx(right, abs=0.03)


def test_a_classifier_looks_at_its_own_modality():
    blind = CLASSIFIERS | {"b": lambda x: torch.eye(C)[torch.zeros(len(x), dtype=torch.long)]}
    found = cross_coherence(model(), examples(), "label", blind)
    assert found["a", "a"] == found["b", "a"] == 1.0
    assert found["a", "b"] == found["b", "b"] == pytest.approx(1 / C, abs=0.04)


def test_joint_coherence_counts_agreement():
    torch.manual_seed(0)
    assert joint_coherence(model(decoder=(0.0, 0.25)), 5000, CLASSIFIERS) == pytest.approx(0.75, abs=0.03)
    assert joint_coherence(model(decoder=(1.0, 1.0)), 501, CLASSIFIERS) == 1.0, "the same wrong class"


def test_latent_accuracy_of_latents_that_say_all_and_nothing():
    torch.manual_seed(0)
    parts = [(5.0 * e.modalities["a"], e.modalities["label"]) for e in (examples(3000), examples(1000))]
    assert latent_accuracy(*parts) > 0.99
    noise = [(torch.randn_like(z), labels) for z, labels in parts]
    assert latent_accuracy(*noise) < 0.35
    assert latent_accuracy(parts[0], noise[1]) < 0.35, "what is tested is the test set"


@pytest.mark.parametrize("fusion", ["poe", "moe", "mopoe"])
def test_divergences_by_latent(fusion):
    """Against the Gaussian formula; of q(z|x_m) alone, whatever fuses it with others."""
    linear, weights, scales = with_fusion(fusion, 3)
    inputs = draw(weights, scales, 700)
    found = divergences(linear, Examples(inputs))
    q = {}
    for name, x in inputs.items():
        mu, logvar = linear.encoder[name](x)
        if fusion != "moe":  # the prior is an expert too
            precision = 1 + (-logvar).exp()
            mu, logvar = mu * (-logvar).exp() / precision, -precision.log()
        q[name] = mu.detach(), logvar.detach().exp()

    def kl(a, b):
        return 0.5 * ((a[1] + (a[0] - b[0]) ** 2) / b[1] - 1 - (a[1] / b[1]).log())

    prior = torch.zeros(()), torch.ones(())
    expected = {f"KL(q(z|{name}) || p(z))": kl(q[name], prior) for name in q}
    for a, b in ("ab", "ac", "bc"):
        expected[f"J(q(z|{a}), q(z|{b}))"] = (kl(q[a], q[b]) + kl(q[b], q[a])) / 2
    torch.testing.assert_close(found, expected)
    assert found["J(q(z|a), q(z|b))"].shape == (700, 2)
