"""Coherence of constructed models whose coherence is known, and latents that are known to be separable or not."""

from common.data import Examples
from reports.metrics import (
    Judge,
    cross_coherence,
    divergences,
    joint_coherence,
    latent_accuracy,
    read_right,
    sampled_latents,
)
from tests.helpers.coherence import JUDGES, SOURCES, C, examples, model
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw

import pytest
import torch


def crossed(model, judges=JUDGES):
    """{pair: share of right labels} of 4,000 examples."""
    found = cross_coherence(model, *examples(), judges, SOURCES)
    assert all(right.shape == (4000, 1) and right.dtype == torch.bool for right in found.values())
    return {pair: right.double().mean().item() for pair, right in found.items()}


def joint(model, n):
    right = joint_coherence(model, n, JUDGES)
    assert right.shape == (n, 1)
    return right.double().mean().item()


def test_coherence_of_a_perfect_model():
    assert set(crossed(model()).values()) == {1.0}
    assert joint(model(), 700) == 1.0


def test_cross_coherence_tells_the_source_from_the_target():
    torch.manual_seed(0)
    right = {"a -> a": 0.7, "a -> b": 0.7 * 0.8, "b -> a": 1.0, "b -> b": 0.8}
    assert crossed(model(encoder=(0.3, 0.0), decoder=(0.0, 0.2))) == pytest.approx(right, abs=0.03)


def test_a_source_of_several_modalities():
    """The product of two experts, of which one errs at times, lies nearer to neither: a tie, half of them right."""
    torch.manual_seed(0)
    together = {"both": ("a", "b")}
    found = cross_coherence(model(encoder=(0.4, 0.0)), *examples(), JUDGES, together)
    assert found["both -> a"].double().mean().item() == pytest.approx(1 - 0.4 / 2, abs=0.03)


def test_coherence_and_latents_are_of_samples():
    """An expert that knows little: the posterior is nearly the prior, though its mean still points to the class."""
    torch.manual_seed(0)
    vague = model()
    for encoder in vague.encoder.values():
        encoder.logvar = 16.0
    found = crossed(vague)
    assert found == pytest.approx(dict.fromkeys(found, 1 / C), abs=0.04)
    given, labels = examples(900)
    assert (vague.posterior(given[:]).mean.argmax(dim=1) == labels[:, 0]).all()
    assert sampled_latents(vague, given, SOURCES)["a"].std().item() == pytest.approx(1, abs=0.05)


def test_joint_coherence_counts_agreement():
    torch.manual_seed(0)
    assert joint(model(decoder=(0.0, 0.25)), 5000) == pytest.approx(0.75, abs=0.03)
    assert joint(model(decoder=(1.0, 1.0)), 501) == 1.0, "the same wrong class"


def test_latent_accuracy_of_latents_that_say_all_and_nothing():
    torch.manual_seed(0)
    parts = [(5.0 * e.modalities["a"], labels) for e, labels in (examples(3000), examples(1000))]
    noise = [(torch.randn_like(z), labels) for z, labels in parts]

    def share(train, test):
        return latent_accuracy(train, test, C).double().mean().item()

    assert share(*parts) > 0.99
    assert share(*noise) < 0.35
    assert share(parts[0], noise[1]) < 0.35, "what is tested is the test set"


def test_each_step_of_the_latent_classifier_has_its_own_gradient(monkeypatch):
    """Where steps are too small to change anything, all have the same one."""
    gradients, step = [], torch.optim.Adam.step

    def recorded(self, *args, **kwargs):
        gradients.append(torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", recorded)
    part = torch.randn(50, 3), torch.randint(C, (50, 1))
    latent_accuracy(part, part, C, epochs=3, lr=1e-12, batch_size=100)
    assert len(gradients) == 3 and gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(gradients[1:], gradients[:1] * 2)


def test_latent_accuracy_of_several_labels():
    """The first label lies in the latents, the second one does not."""
    torch.manual_seed(0)
    parts = []
    for n in (3000, 1000):
        given, labels = examples(n)
        parts.append((5.0 * given.modalities["a"], torch.cat([labels, torch.randint(C, (n, 1))], dim=1)))
    right = latent_accuracy(*parts, C).double().mean(dim=0)
    assert right.shape == (2,) and right[0] > 0.99 and right[1] < 0.35


@pytest.mark.parametrize("fusion", ["poe", "moe", "mopoe"])
def test_divergences_by_latent(fusion):
    """Against the Gaussian formula; of q(z|x_m) alone, whatever fuses it with others."""
    linear, weights, scales = with_fusion(fusion, 3)
    inputs = draw(weights, scales, 700)
    found = divergences(linear, Examples(inputs), {name: (name,) for name in inputs})
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
    lacking = inputs | {"a": inputs["a"].clone()}
    lacking["a"][:7] = torch.nan
    mask = torch.ones(700, 3, dtype=torch.bool)
    mask[:7, 0] = False
    found = divergences(linear, Examples(lacking, mask=mask), {name: (name,) for name in inputs})
    for name, x in expected.items():
        if "z|a" in name:
            x[:7] = torch.nan
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_a_judge_is_tested_on_the_examples_themselves():
    given, labels = examples(100)
    assert read_right(JUDGES["a"], given, labels).all()
    assert not read_right(JUDGES["a"], given, labels.roll(1, dims=0)).all()


def test_what_no_judge_can_read_is_never_right():
    unreadable = {m: Judge((m,), lambda values, m=m: torch.full((len(values[m]), 1), -1)) for m in ("a", "b")}
    assert not any(crossed(model(), unreadable).values())
    assert not joint_coherence(model(), 40, unreadable).any(), "also where both are unreadable alike"
