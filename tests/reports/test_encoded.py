"""Posteriors from encoders that ran once are those that the model gives, whatever the fusion."""

import pytest
import torch

from common.data import Examples
from common.subsets import named_subsets
from reports.subsets import encode
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw
from tests.helpers.private_latents import private_linear_gaussian


def means_and_densities(q, z):
    return q.mean, q.log_prob(z)


@pytest.mark.parametrize("fusion", ["poe", "product", "quotient", "moe", "mopoe", "own"])
def test_posteriors_of_all_subsets_are_the_models(fusion):
    model, weights, scales = with_fusion(fusion, 3)
    x = draw(weights, scales, 8)
    examples = Examples(x, mask=None if fusion == "own" else torch.rand(8, 3) < 0.6)
    encoded, rows = encode(model, examples, torch.arange(8)[:, None]), torch.tensor([6, 1, 3])
    for given in [*named_subsets("abc"), ()]:
        q, expected = encoded.posterior(rows, given), model.posterior(examples[rows], given)
        z = torch.randn(3, model.latent_dim, dtype=torch.float64)
        torch.testing.assert_close(means_and_densities(q, z), means_and_densities(expected, z))
    q = model.posterior(examples[:])
    points = encoded.points(("a", "b", "c"))
    if fusion == "moe":  # each is a component's mean
        means = model.posterior(examples[:]).component_distribution.mean  # (8, 3, D)
        assert ((points[:, None] - means).abs() < 1e-9).all(dim=2).any(dim=1).all()
        assert not torch.allclose(points, q.mean)
    else:
        torch.testing.assert_close(points, q.mean)
    assert encoded.points(()).equal(torch.zeros(8, model.latent_dim).double()), "the prior's mean"
    assert encoded.points(("a",), 5).equal(encoded.points(("a",))[:5])


def test_private_latents_of_what_is_not_given_are_the_priors():
    model, matrices, scales = private_linear_gaussian()
    examples = Examples(draw(matrices, scales, 5))
    encoded, rows = encode(model, examples, torch.zeros(5, 1)), torch.arange(5)
    for given in named_subsets(("a", "b", "c")):
        q, expected = encoded.posterior(rows, given), model.posterior(examples[rows], given)
        torch.testing.assert_close((q.mean, q.stddev), (expected.mean, expected.stddev))


def test_each_encoder_runs_once_for_each_example():
    model, weights, scales = with_fusion("poe", 3)
    seen = dict.fromkeys("abc", 0)
    for name, network in model.encoder.items():
        network.register_forward_hook(lambda _, args, __, name=name: seen.update({name: seen[name] + len(args[0])}))
    encoded = encode(model, Examples(draw(weights, scales, 1200)), torch.zeros(1200, 1))
    for given in named_subsets("abc"):
        encoded.points(given)
    assert seen == dict.fromkeys("abc", 1200)
