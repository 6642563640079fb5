"""CVAE, whose decoder sees the label, against exact conditional likelihoods."""

import math

from common.data import Batch
from common.errors import InputError
from common.estimators import importance_estimates
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.objectives import (
    ArElbo,
    CrmvaeElbo,
    DmvaeElbo,
    IwaeElbo,
    MvaeElbo,
    MvtcaeElbo,
    StandardElbo,
)
from tests.helpers.digits import mnist_inputs, model_of
from tests.helpers.fusions import Exact
from tests.helpers.linear_gaussian import D, Gaussian, draw, exact_log_p, linear_gaussian

import pytest
import torch
from torch import nn


class Given(nn.Module):
    """p(a|z, b): a mean that is linear in both."""

    def __init__(self, weight, shift):
        super().__init__()
        self.weight, self.shift = nn.Parameter(weight), nn.Parameter(shift)

    def forward(self, z, b):
        assert z.dim() == b.dim() == 2 and len(z) == len(b), "networks only ever see (N, ...)"
        return z @ self.weight.T + b @ self.shift.T


class Nothing(nn.Module):
    """N(0, I), what b alone says of z."""

    def forward(self, b):
        nothing = b.new_zeros(len(b), D)
        return nothing, nothing


class Residual(nn.Module):
    """The exact p(z|a, b): what is left of a without b."""

    def __init__(self, expert, shift):
        super().__init__()
        self.expert, self.shift = expert, nn.Parameter(shift)

    def forward(self, a, b):
        return self.expert(a - b @ self.shift.T)


def conditional_model():
    """A linear-Gaussian CVAE, a = W z + V b + noise, with its exact posterior; W, s and V."""
    _, weights, scales = linear_gaussian(1)
    shift = torch.randn(3, 3, dtype=torch.float64)
    model = VAE(
        "own",
        {"a,b": Residual(Exact(weights, scales, ("a",)), shift), "b": Nothing()},
        {"a|b": Given(weights["a"].clone(), shift.clone())},
        GroupedLikelihood(a=Gaussian(scales["a"])),
        latent_dim=D,
    )
    return model.double().eval(), weights, scales, shift


def conditional_log_p(weights, scales, shift, inputs):
    return exact_log_p(weights, scales, {"a": inputs["a"] - inputs["b"] @ shift.T}, ("a",))


@pytest.mark.parametrize("objective", [StandardElbo, MvaeElbo, DmvaeElbo, MvtcaeElbo, CrmvaeElbo, ArElbo])
def test_a_modality_is_scored_where_what_its_decoder_sees_is_present(objective):
    exact, weights, scales = linear_gaussian(3)
    decoder = {"a|b": Given(weights["a"].clone(), torch.randn(3, 3)), "b": exact.decoder["b"], "c": exact.decoder["c"]}
    model = VAE("product", dict(exact.encoder), decoder, exact.likelihood, latent_dim=D).double()
    inputs = draw(weights, scales, 4)
    mask = torch.ones(4, 3, dtype=torch.bool)

    def bound(batch):
        torch.manual_seed(0)
        return objective(model).bound(batch)

    torch.testing.assert_close(bound(Batch(inputs, mask)), bound(inputs))
    mask[:2, 1] = False
    shifted = inputs | {"b": inputs["b"] + torch.tensor([5.0, 5, 0, 0])[:, None]}
    torch.testing.assert_close(bound(Batch(shifted, mask)), bound(Batch(inputs, mask)))
    terms = bound(Batch(inputs, mask)).terms
    for name in (name for name in terms if name.endswith("/a")):
        assert not terms[name][:2].any() and terms[name][2:].all(), name
    assert any(terms[name][:2].any() for name in terms if name.endswith("/c"))


@pytest.mark.parametrize("given", [("a", "b"), ("b",)])
def test_estimates_of_cvaes_conditional_likelihood(given):
    model, weights, scales, shift = conditional_model()
    b = torch.randn(4, 3, dtype=torch.float64)
    inputs = {"a": b @ shift.T + 0.5 * torch.randn_like(b), "b": b}  # near enough for the prior to find
    log_p = conditional_log_p(weights, scales, shift, inputs)
    if given == ("a", "b"):  # the exact posterior: no variance
        torch.testing.assert_close(IwaeElbo(model, K=3).bound(inputs).value, log_p)
        (estimate,) = importance_estimates(model, inputs, [("a",)], given, n_samples=3)
        torch.testing.assert_close(estimate.value, log_p)
    else:  # the prior
        many = {name: x.repeat(100, 1) for name, x in inputs.items()}
        (estimate,) = importance_estimates(model, many, [("a",)], given, n_samples=1000)
        ratio = (estimate.value.view(100, 4) - log_p).exp()
        error = ratio.std(dim=0) / math.sqrt(100)
        assert ((ratio.mean(dim=0) - 1).abs() < 5 * error).all() and (error < 0.1).all()


@pytest.mark.parametrize("leading", [(), (2, 3)])
def test_cvaes_decoder_sees_each_examples_label(leading):
    model = model_of("cvae").eval()
    z = torch.randn(*leading, 4, 4, dtype=torch.float64)
    text = torch.tensor([3, 1, 4, 1])
    p = model.decode(z, given={"text": text})["image"]
    assert p.mean.shape == (*leading, 4, 1, 28, 28)
    other = model.decode(z, given={"text": torch.tensor([3, 5, 4, 1])})["image"]
    assert other.logits[..., [0, 2, 3], :, :, :].equal(p.logits[..., [0, 2, 3], :, :, :])
    assert not other.logits[..., 1, :, :, :].allclose(p.logits[..., 1, :, :, :])
    x = torch.cat([z, nn.functional.one_hot(text, 10).expand(*leading, 4, 10)], dim=-1)
    expected = nn.Sequential(*model.decoder["image"])(x.reshape(-1, 14))
    torch.testing.assert_close(p.logits, expected.view(*leading, 4, 1, 28, 28))


def test_what_cvae_lacks_is_named():
    model, inputs, z = model_of("cvae").eval(), mnist_inputs(3), torch.zeros(2, 4, dtype=torch.float64)
    image, unlabelled = {"image": inputs["image"]}, inputs | {"text": torch.tensor([1, -1, 3])}
    of_image = torch.tensor([[True, False]]).expand(3, 2)  # the model's modalities are image and text
    refused = [
        (lambda: model.decode(z, ["image"], {"image": image["image"][:2]}), r"p\(image|z, text\): give it the text"),
        (lambda: model.generate(2), r"p\(image|z, text\): give it the text"),
        (lambda: model.posterior(image), "no encoder for just image"),
        (lambda: importance_estimates(model, inputs, [("image", "text")], ("text",), 5), r"no p\(text\|z\): it models"),
        (lambda: importance_estimates(model, unlabelled, [("image",)], (), 2), "needs text in every example"),
        (lambda: importance_estimates(model, unlabelled, [of_image], ("text",), 2), "sees one that it lacks"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
