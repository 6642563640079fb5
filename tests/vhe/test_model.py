"""The networks of the homoencoders on Omniglot: sizes, what each part is given, and how they start."""

from types import SimpleNamespace

from vhe.model import LATENTS, build, he_initialised, upsampling

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Normal

SIZES = {"a": 32, "c": 8, "s": 16, "z": 16}


def model_of(name, decoder="deconv"):
    torch.manual_seed(0)
    return build(SimpleNamespace(model=name, decoder=decoder, n_latents=8)).eval()


@pytest.mark.parametrize("name", LATENTS)
def test_latent_variables_images_and_likelihoods(name):
    model = model_of(name)
    latents = LATENTS[name]
    assert set(model.latents) == set(latents)
    sampled = model.sample(batch_size=3)
    assert {v: tuple(sampled[v].shape) for v in sampled} == {v: (3, SIZES[v]) for v in latents} | {"x": (3, 1, 28, 28)}
    assert set(sampled.x.unique().tolist()) <= {0.0, 1.0}
    inputs = {v: torch.rand(3, 2, 1, 28, 28).round() for v in latents}
    value, terms = model.bound(inputs, dict.fromkeys(latents, 2.0), x=sampled.x)
    torch.testing.assert_close(value, terms["log p(x)"] - sum(terms[f"kl {v}"] for v in latents) / 2)
    values = {v: sampled[v] for v in latents}
    code = torch.cat([values[v] for v in latents if v in "cs"], dim=1)
    mean = model.decoder.images.mean(code, values["z"])
    log_p = Bernoulli(mean).log_prob(sampled.x).sum(dim=(1, 2, 3))
    torch.testing.assert_close(model.p("x", values, sampled.x).log_prob, log_p)


@pytest.mark.parametrize(
    ("name", "dependences"), [("hierarchical", {"ac"}), ("factorial", {"cz", "sz"}), ("character", {"cz"})]
)
def test_encoders_depend_on_the_latent_variables_given(name, dependences):
    model = model_of(name)
    inputs = torch.rand(3, 2, 1, 28, 28)
    values = {v: torch.randn(3, SIZES[v]) for v in LATENTS[name]}
    found = set()
    for given in LATENTS[name]:
        for v in LATENTS[name]:
            other = values | {given: values[given] + 1}
            before, after = (model.q(v, inputs, x, values[v]).log_prob for x in (values, other))
            if given != v and not before.allclose(after):
                found.add(given + v)
    assert found == (dependences | {"cz"})


def test_encoders_take_the_mean_over_the_support_set():
    model, value, images = model_of("character"), torch.randn(3, 8), torch.rand(3, 4, 1, 28, 28)
    encoder = model.encoder["c"]
    features = torch.stack([encoder.features(images[:, k]) for k in range(4)]).sum(dim=0) / 4
    mu, logvar = encoder.head(features)
    expected = Normal(mu, (logvar / 2).exp()).log_prob(value).sum(dim=1)
    torch.testing.assert_close(model.q("c", images, {}, value).log_prob, expected)


def test_signals_keep_their_size():
    """The second moment of what ReLUs are given is 2 after each layer, of inputs whose own is 2 E[relu^2] = 1."""
    torch.manual_seed(0)
    layers = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(400, 400), nn.ReLU())))
    x = torch.randn(500, 400)
    assert he_initialised(layers)(x).square().mean().item() == pytest.approx(1, rel=0.3)
    assert all((layer.bias == 0).all() for layer in layers[::2])
    convolutions = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU())
    outputs = he_initialised(convolutions)(torch.randn(50, 8, 16, 16))[..., 4:-4, 4:-4]
    assert outputs.square().mean().item() == pytest.approx(1, rel=0.2), "away from the edges"
    assert upsampling(5, 7)(torch.randn(2, 5)).shape == (2, 7, 28, 28)


def test_densities_and_places_are_float32_under_autocast():
    model = model_of("hierarchical")
    inputs, c, z, a = torch.rand(3, 2, 1, 28, 28), torch.randn(3, 8), torch.randn(3, 16), torch.randn(3, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        results = [model.q("c", inputs, {"a": a}), model.p("c", {"a": a}), model.p("x", {"c": c, "z": z})]
        context = model.decoder.images.context(c, z)
    assert {x.dtype for result in results for x in (result.value, result.log_prob)} == {torch.float32}
    assert context.dtype == torch.float32
