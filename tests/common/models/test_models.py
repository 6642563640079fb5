"""Models by name: what each family's encoders return, and which fusions are mixtures."""

import pytest
import torch
from torch import nn

from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS

D = 4


def model_of(fusion, posterior):
    heads = (D,) * FAMILIES[posterior].n_params
    encoder = {name: SplitLinearLayer(3, heads) for name in "ab"}
    decoder = {name: nn.Linear(D, 3) for name in "ab"}
    likelihood = GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0) for name in "ab"})
    return VAE(fusion, encoder, decoder, likelihood, D, posterior=posterior)


@pytest.mark.parametrize("posterior", FAMILIES)
def test_an_encoder_returns_a_familys_parameters(posterior):
    exists = [name for name, fusion in FUSIONS.items() if fusion.exists(FAMILIES[posterior])]
    for fusion in {"poe", "moe", "mopoe"} & set(exists):
        model = model_of(fusion, posterior)
        q = model.posterior({name: torch.randn(5, 3) for name in "ab"})
        assert q.sample((2,)).shape == (2, 5, D)
        assert model.variational_posterior.is_mixture == (fusion != "poe") == FUSIONS[fusion].is_mixture
        assert model.prior().sample((2,)).shape == (2, D)
    assert {name for name in FUSIONS if FUSIONS[name].is_mixture} == {"moe", "mmvae+", "mopoe", "mopoe-published"}


def test_the_first_of_laplace_and_normal_experts_is_laplace():
    q = model_of("moe", "laplace-normal").posterior({name: torch.randn(5, 3) for name in "ab"})
    assert q.component_distribution.base_dist.laplace[0].tolist() == [[True] * D, [False] * D]


def test_there_is_one_sphere_unless_more_are_asked_for():
    z = model_of("poe", "vmf").posterior({"a": torch.randn(5, 3)}).sample()
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(5))
    assert FAMILIES["vmf"].posterior((D,)).n == FAMILIES["vmf"].prior((D,), False).n == 1
