"""How many samples are decoded at a time, for decoders of a known size."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.errors import InputError
from common.likelihoods import CategoricalLikelihood, FunctionLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.objectives.decoding import CACHED, DECODED_AT_ONCE, samples_at_once, samples_that_fit
from mnist.model import build as build_digits
from polymnist.model import build as build_polymnist
from tests.helpers.linear_gaussian import linear_gaussian

D = 64


class Exponential(nn.Module):
    """Its backward pass needs its output: 4 D bytes for each sample."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, z):
        return (z + self.shift).exp()


def test_few_samples_are_decoded_at_once_where_layers_are_large():
    """Whatever the layers' order; measuring draws nothing and leaves statistics and modes as they are."""
    model, _, _ = linear_gaussian(2)
    large = nn.Sequential(nn.Linear(2, 3000), nn.BatchNorm1d(3000), nn.Dropout(0.5), nn.Linear(3000, 3)).double()
    assert samples_at_once(model, 2) == DECODED_AT_ONCE["cpu"]
    model, _, _ = linear_gaussian(2)
    model.decoder["a"] = large
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert samples_at_once(model, 2) == CACHED // 3000 < DECODED_AT_ONCE["cpu"]
    assert torch.get_rng_state().equal(state) and large[1].num_batches_tracked == 0
    assert [module.training for module in model.modules()] == modes


def test_the_statistics_of_batch_norm_stay_as_they_are():
    decoder = {"a": nn.Sequential(nn.Linear(D, D), nn.BatchNorm1d(D))}
    encoder, likelihood = {"a": nn.Linear(1, 1)}, GroupedLikelihood(a=SphericalGaussianLikelihood(1.0))
    model = VAE("poe", encoder, decoder, likelihood, latent_dim=D).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    samples_that_fit(model, 1.0)
    assert before.keys() >= {"decoder.a.1.running_mean", "decoder.a.1.num_batches_tracked"}
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("names", ["a", "abc"])
def test_samples_that_fit(names):
    squares = {name: FunctionLikelihood(lambda output, x: (output - x).square()) for name in names}
    encoders, decoders = ({name: make() for name in names} for make in (nn.Identity, Exponential))
    model = VAE("poe", encoders, decoders, GroupedLikelihood(**squares), latent_dim=D)
    state = torch.get_rng_state()
    # bytes of each modality's output and of its difference, and the same for gradients
    one = 2 * len(names) * (4 * D + 4 * D)
    assert samples_that_fit(model, 1.0) == 2**30 // one
    assert samples_that_fit(model, 2.5) == int(2.5 * 2**30 / one)
    assert samples_that_fit(model, one / 2**30) == 1
    assert torch.get_rng_state().equal(state), "a run draws the same with and without it"
    with pytest.raises(InputError, match="less than one sample takes"):
        samples_that_fit(model, 0.9 * one / 2**30)


def test_samples_of_words_fit_too():
    """A distribution of words has no mean."""
    likelihood = GroupedLikelihood(text=CategoricalLikelihood())
    decoder = nn.Linear(D, 10)
    model = VAE("poe", {"text": nn.Identity()}, {"text": decoder}, likelihood, latent_dim=D)
    bytes_of_one = 2**30 / samples_that_fit(model, 1.0) / 2
    z, probabilities = 4 * D, 4 * 10
    assert z + probabilities < bytes_of_one < z + 4 * probabilities


def test_samples_of_a_prior_of_clusters_fit_too():
    latents = {"n_latents": 4, "n_private": 4, "n_clusters": 3}
    options = SimpleNamespace(model="cmvae", n_modalities=2, posterior="laplace", networks="small", **latents)
    model = build_polymnist(options)
    assert samples_that_fit(model, 4.0) == pytest.approx(4 * samples_that_fit(model, 1.0), abs=4)


def test_decoders_that_see_more_than_z_are_refused():
    options = SimpleNamespace(model="cvae", n_latents=4, posterior="gaussian")
    with pytest.raises(InputError, match="needs decoders of z alone, that of image has more inputs: leave it out"):
        samples_that_fit(build_digits(options), 1.0)
