"""The noise of gradients: against a known one, and of the estimators on the linear-Gaussian model."""

from common.data import Batch
from common.objectives import DregIwaeElbo, IwaeElbo
from mnist import gradients, train
from tests.helpers.linear_gaussian import draw, linear_gaussian

import pytest
import torch
from torch import nn


class KnownNoise(nn.Module):
    """A gradient of mean 2 and standard deviation 0.6 by the first parameter, none by the second."""

    def __init__(self):
        super().__init__()
        self.p, self.unused = nn.Parameter(torch.zeros(4000)), nn.Parameter(torch.zeros(3))

    def backward(self, batch, beta, n):
        self.p.grad = 2 + 0.6 * torch.randn(4000)


def test_noise_is_variance_over_squared_mean():
    objective = KnownNoise()
    found = gradients.noise(objective, Batch({"a": torch.zeros(1, 1)}), objective.parameters(), 5)
    assert found == pytest.approx(0.09, rel=0.1)


def test_the_means_own_noise_is_taken_off_its_square():
    """Gradients 1 and 3: their variance is 2, and the squared mean 4 is too large by half of that."""
    objective = KnownNoise()
    draws = iter((1.0, 3.0))
    objective.backward = lambda *_: setattr(objective.p, "grad", torch.full((4000,), next(draws)))
    assert gradients.noise(objective, Batch({"a": torch.zeros(1, 1)}), objective.parameters(), 2) == 2 / 3


@pytest.mark.slow
def test_noise_grows_with_k_in_iwaes_gradient_and_falls_in_dregs():
    model, weights, scales = linear_gaussian(1)
    for expert in model.encoder.values():  # off the exact posterior, where DReG has no noise at all
        expert.mean.data += 0.2
        expert.precision.data *= 0.8
    batch = Batch(draw(weights, scales, 10))
    iwae, dreg = (
        [gradients.noise(o(model, k), batch, model.encoder.parameters(), 300) for k in (1, 64)]
        for o in (IwaeElbo, DregIwaeElbo)
    )
    assert iwae[1] > 10 * iwae[0]
    assert dreg[1] < 0.5 * dreg[0] < 0.1 * iwae[0]


def test_the_script_tries_each_estimator_of_a_mixture(tmp_path):
    options = {"demo": True, "epochs": 1, "limit": 60, "n_latents": 4}
    train.main(train.Config(save_dir=tmp_path, model="bivcca", obj="iwae", K=2, **options))
    curves = gradients.main(gradients.Config(tmp_path, demo=True, K=(1, 3), n_samples=3, limit=4))
    assert list(curves) == ["IWAE", "STL", "DReG, exact", "DReG, stop-all", "DReG, published"]
    assert all(len(values) == 2 for values in curves.values())
