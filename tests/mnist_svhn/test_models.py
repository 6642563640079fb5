"""Every --model of mnist_svhn: its defaults, and whether its bound reaches its networks."""

from mnist_svhn import train
from mnist_svhn.model import Clamp, build
from mnist_svhn.options import MODELS
from training import objective_of

import pytest
import torch
from torch.distributions import Laplace, Normal

DEFAULTS = {  # objective, family, K, whether the prior's scales are learned
    "mmvae": ("dreg", "laplace", None, True),
    "mnist": ("dreg", "laplace", None, True),
    "svhn": ("dreg", "laplace", None, True),
    "mvae": ("mvae", "normal", None, False),
    "mopoe": ("elbo", "normal", None, False),
    "mopoe-published": ("elbo-one", "normal", None, False),
    "mvtcae": ("mvtcae", "normal", None, False),
    "crmvae": ("crmvae", "normal", None, False),
    "mmjsd": ("mmjsd", "normal", None, False),
    "jmvae": ("jmvae", "normal", None, False),
    "jnf": ("jnf", "normal", None, False),
    "telbo": ("telbo", "normal", None, False),
    "dmvae": ("dmvae", "normal", None, False),
    "mmvae+": ("iwae", "laplace", 1, False),
    "cmvae": ("iwae", "laplace", 1, False),
    "idmvae": ("idmvae", "laplace", 1, False),
    "hoelder": ("elbo", "normal", None, False),
    "helvae": ("elbo", "normal", None, False),
    "wb": ("elbo", "normal", None, False),
    "mwb": ("elbo", "normal", None, False),
    "code": ("code", "normal", None, False),
    "mmvm": ("mmvm", "normal", None, False),
}


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_its_own_defaults(name):
    config = train.Config(model=name)
    config.check()
    assert (config.obj, config.prior_and_posterior, config.K, bool(config.learn_prior)) == DEFAULTS[name]
    model = build(config)
    if name != "cmvae":
        assert isinstance(model.prior().base_dist, Laplace if DEFAULTS[name][1] == "laplace" else Normal)
        assert any(x.requires_grad for x in model.prior.parameters()) == DEFAULTS[name][3]


def test_private_latents_are_by_default_those_of_dmvaes_code():
    config = train.Config(model="dmvae")
    model = build(config)
    assert (config.n_latents, config.n_private, model.latent_dim) == (10, (1, 4), 15)
    parts = {name: modality.part_of(torch.arange(15)).tolist() for name, modality in model.modality.items()}
    shared = [*range(10)]
    assert parts == {"mnist": [*shared, 10], "svhn": [*shared, 11, 12, 13, 14]}
    cmvae = train.Config(model="cmvae")
    assert (cmvae.n_latents, cmvae.n_private, cmvae.n_clusters) == (10, (10, 10), 40)
    assert build(cmvae).prior.loc.shape == (40, 10)


@pytest.mark.parametrize("name", ["mmvae", "jnf", "dmvae", "cmvae"])
def test_bounds_reach_all_networks(name):
    """Also where examples lack either image, if the model can learn from those."""
    private = {"n_private": (1, 2)} if MODELS[name].private else {}
    config = train.Config(model=name, n_latents=3, **private)
    objective = objective_of(config, build(config))
    inputs = {"mnist": torch.rand(6, 1, 28, 28), "svhn": torch.rand(6, 3, 32, 32)}
    if MODELS[name].unpaired:
        inputs["mnist"][0], inputs["svhn"][1:3] = torch.nan, torch.nan
    objective(inputs, 0.5).backward()
    for parameter, x in objective.model.named_parameters():
        assert not x.requires_grad or (x.grad.isfinite().all() and x.grad.any()), parameter


def test_the_authors_clamp():
    clamp = Clamp()
    assert clamp(torch.tensor([0.0, 1e-5, 0.5, 1.0], dtype=torch.float64)).tolist() == [1e-6, 1e-5, 0.5, 1 - 1e-6]
