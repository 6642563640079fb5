"""The models that --fusion, --obj and --n-clusters of cub make, on drawn birds."""

from cub import train
from cub.model import build
from tests.helpers.authors import WORDS
from training import objective_of

import pytest
import torch
import tyro

MODELS = {  # options: objective, family, K, private latents, whether the prior's scales are learned
    "": ("dreg", "laplace-normal", 50, None, True),
    "--fusion poe": ("mvae", "gaussian", None, None, False),
    "--fusion mopoe": ("dreg", "gaussian", 50, None, False),
    "--fusion product --obj crmvae": ("crmvae", "gaussian", None, None, False),
    "--fusion mopoe-published": ("elbo-one", "gaussian", None, None, False),
    "--obj mmjsd": ("mmjsd", "gaussian", None, None, False),
    "--fusion joint": ("jmvae", "gaussian", None, None, False),
    "--fusion jnf": ("jnf", "gaussian", None, None, False),
    "--fusion poe --obj dmvae": ("dmvae", "gaussian", None, 16, False),
    "--fusion poe --n-private 3": ("dmvae", "gaussian", None, 3, False),
    "--fusion mmvae+ --n-clusters 5": ("iwae", "laplace", 1, 16, False),
}


def config(*options):
    """The config of these options, with a vocabulary of a few words."""
    given = tyro.cli(train.Config, args=[str(x) for x in options])
    given.vocabulary = WORDS
    return given


@pytest.mark.parametrize("options", MODELS)
def test_each_model_has_its_own_defaults(options):
    given = config(*options.split())
    given.check()
    names = ("obj", "posterior", "K", "n_private", "learn_prior")
    assert tuple(getattr(given, name) for name in names) == MODELS[options]
    assert (given.n_latents, given.batch_size) == (128, 64)


@pytest.mark.parametrize("kind", [pytest.param("images", marks=pytest.mark.slow), "features"])
@pytest.mark.parametrize("options", ["--fusion jnf", "--fusion poe --n-private 2", "--fusion mmvae+ --n-clusters 5"])
def test_bounds_reach_all_networks(options, kind):
    """Also where examples lack a photograph or a caption, if the model can learn from those."""
    given = config("--model", kind, "--n-latents", 3, *options.split())
    objective = objective_of(given, build(given))
    source = objective.model.modalities[0]
    x = {"image": torch.rand(6, 3, 64, 64), "feature": torch.rand(6, 2048)}[source]
    words = torch.randint(3, len(WORDS), (6, 32))
    if given.record().unpaired:
        x[0], words[1:3] = torch.nan, -1
    objective({source: x, "caption": words}, 0.5).backward()
    for name, p in objective.model.named_parameters():
        assert not p.requires_grad or (p.grad.isfinite().all() and p.grad.any()), name


@pytest.mark.parametrize("fusion", ["joint", "jnf"])
def test_the_decoder_has_the_joint_encoders_words(fusion):
    """A caption encoder that is fitted to the joint one would else change what is decoded."""
    model = build(config("--model", "features", "--n-latents", 3, "--fusion", fusion))
    joint, vocabulary = model.encoder["feature,caption"].caption[0].weight, model.decoder["caption"][-1].weight
    assert joint is vocabulary and model.encoder["caption"][0].weight is not joint
