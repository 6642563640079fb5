"""VAE and CVAE, against formulas written out and exact likelihoods."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Independent, Normal

from common.data import Batch, observe
from common.errors import InputError
from common.estimators import importance_estimates
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.objectives import (
    ArElbo,
    CrmvaeElbo,
    DmvaeElbo,
    DregIwaeElbo,
    IwaeElbo,
    MvaeElbo,
    MvtcaeElbo,
    StandardElbo,
    StlElbo,
)
from tests.helpers.digits import BETA, LAMBDAS, certain_joint, mnist_inputs, model_of
from tests.helpers.fusions import Exact
from tests.helpers.linear_gaussian import D, Gaussian, draw, exact_log_p, linear_gaussian, standard_error
from tests.helpers.objectives import kl_to_prior, repeated

# VAE


def test_vae_is_the_elbo_of_the_image_alone():
    model = model_of("vae")
    linear = model.encoder["image"][-1].linear
    with torch.no_grad():
        linear.weight[4:] = 0
        linear.bias[4:] = -60
    image = torch.rand(5, 1, 28, 28, dtype=torch.float64)
    mu, logvar = model.encoder["image"](image)
    log_p = -nn.functional.binary_cross_entropy_with_logits(model.decoder["image"](mu), image, reduction="none")
    log_p = log_p.sum(dim=(1, 2, 3))
    kl = 0.5 * (logvar.exp() + mu.square() - 1 - logvar).sum(dim=1)
    value, terms = StandardElbo(model, weights={"image": 1.5}).bound({"image": image}, BETA)
    torch.testing.assert_close(value, 1.5 * log_p - BETA * kl)
    torch.testing.assert_close(terms, {"joint/kl": kl, "joint/image": log_p})
    with pytest.raises(InputError, match="unknown modality text"):
        model.posterior({"image": image, "text": torch.zeros(5, dtype=torch.long)})


# CVAE


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


def test_cvae_is_a_lower_bound_of_log_p_of_the_image_given_the_label():
    model, weights, scales, shift = conditional_model()
    inputs = {name: torch.randn(1, 3, dtype=torch.float64) for name in ("a", "b")}
    log_p = conditional_log_p(weights, scales, shift, inputs).item()
    many, elbo = repeated(inputs, 10_000), StandardElbo(model)
    with torch.no_grad():
        exact = elbo.bound(many).value
        model.encoder["a,b"].expert.log_precision -= 1
        off = elbo.bound(many).value
    assert exact.mean().item() == pytest.approx(log_p, abs=5 * standard_error(exact))
    assert off.mean().item() < log_p - 5 * standard_error(off)
    assert max(standard_error(exact), standard_error(off)) < 0.05, "the comparison is tight"


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
        (estimate,) = importance_estimates(model, inputs, [("a",)], given, n_samples=3)
        torch.testing.assert_close(estimate.value, log_p)
    else:  # the prior
        many = {name: x.repeat(100, 1) for name, x in inputs.items()}
        (estimate,) = importance_estimates(model, many, [("a",)], given, n_samples=1000)
        ratio = (estimate.value.view(100, 4) - log_p).exp()
        error = ratio.std(dim=0) / math.sqrt(100)
        assert ((ratio.mean(dim=0) - 1).abs() < 5 * error).all() and (error < 0.1).all()


def test_cvaes_estimate_equals_a_loop_over_examples_and_samples():
    model = model_of("cvae").eval()
    inputs, k = mnist_inputs(4), 3
    torch.manual_seed(5)
    (estimate,) = importance_estimates(model, inputs, [("image",)], ("image", "text"), n_samples=k)
    torch.manual_seed(5)
    q = model.posterior(inputs)
    z = q.sample((k,))  # (K, B, D)
    prior = Normal(0.0, 1.0)
    for b in range(4):
        log_w = []
        for i in range(k):
            x = torch.cat([z[i, b], nn.functional.one_hot(inputs["text"][b], 10).double()])[None]
            for layer in model.decoder["image"]:
                x = layer(x)
            log_p = Independent(Bernoulli(logits=x, validate_args=False), 3).log_prob(inputs["image"][b])
            log_q = Normal(q.mean[b], q.stddev[b]).log_prob(z[i, b]).sum()
            log_w.append(log_p + prior.log_prob(z[i, b]).sum() - log_q)
        torch.testing.assert_close(estimate.value[b], torch.cat(log_w).logsumexp(dim=0) - math.log(k))


def test_cvaes_bound_by_hand_and_its_label_is_never_scored():
    model = model_of("cvae")
    inputs = mnist_inputs()
    mu, logvar = certain_joint(model, inputs)
    x = torch.cat([mu, nn.functional.one_hot(inputs["text"], 10)], dim=1)
    for layer in model.decoder["image"]:
        x = layer(x)
    log_p = Independent(Bernoulli(logits=x, validate_args=False), 3).log_prob(inputs["image"])
    value, terms = StandardElbo(model, weights=LAMBDAS).bound(inputs, BETA)
    torch.testing.assert_close(value, 1.5 * log_p - BETA * kl_to_prior(mu, logvar.exp()))
    assert set(terms) == {"joint/kl", "joint/image"}


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
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


def test_cvae_cannot_decode_without_a_label():
    model = model_of("cvae").eval()
    z = torch.zeros(2, 4, dtype=torch.float64)
    image = torch.rand(2, 1, 28, 28, dtype=torch.float64)
    for decode in (
        lambda: model.decode(z),
        lambda: model.decode(z, ["image"], {"image": image}),
        lambda: model.generate(2),
    ):
        with pytest.raises(InputError, match="p\\(image|z, text\\): give it the text"):
            decode()


def test_cvae_has_no_posterior_of_an_image_alone():
    model, inputs = model_of("cvae").eval(), mnist_inputs()
    for ask in (
        lambda: model.posterior({"image": inputs["image"]}),
        lambda: model.posterior(inputs, given=("image",)),
        lambda: model.reconstruct(inputs, given=("image",)),
    ):
        with pytest.raises(InputError, match="no encoder for just image"):
            ask()


def test_cvae_does_not_model_the_label():
    model, inputs = model_of("cvae").eval(), mnist_inputs()
    with pytest.raises(InputError, match=r"no p\(text\|z\): it models image"):
        importance_estimates(model, inputs, [("image", "text")], ("image", "text"), 5)


def test_the_prior_is_a_proposal_for_cvae_too():
    """Its q(z|text) is the prior: the same estimate to within their noise, each near the exact value."""
    model, weights, scales, shift = conditional_model()
    b = torch.randn(4, 3, dtype=torch.float64)
    inputs = {"a": b @ shift.T + 0.5 * torch.randn_like(b), "b": b}
    (estimate,) = importance_estimates(model, inputs, [("a",)], (), n_samples=50_000)
    log_p = conditional_log_p(weights, scales, shift, inputs)
    torch.testing.assert_close(estimate.value, log_p, rtol=0, atol=0.15)


@pytest.mark.parametrize("objective", [StandardElbo, IwaeElbo, DregIwaeElbo, StlElbo])
def test_an_image_without_a_label_teaches_cvae_nothing(objective):
    model, inputs = model_of("cvae").train(), mnist_inputs(3)
    batch = observe(inputs | {"text": torch.tensor([1, -1, 3])}, model.columns)
    terms = objective(model).bound(batch).terms
    assert (terms["joint/image"] != 0).tolist() == [True, False, True]


@pytest.mark.parametrize("given", [(), ("text",)])
def test_an_image_without_a_label_has_no_estimate(given):
    model, inputs = model_of("cvae").eval(), mnist_inputs(3)
    with pytest.raises(InputError, match=r"log p\(image\) needs text in every example"):
        importance_estimates(model, inputs | {"text": torch.tensor([1, -1, 3])}, [("image",)], given, n_samples=2)
    image = torch.tensor([[True, False]]).expand(3, 2)  # the model's modalities are image and text
    with pytest.raises(InputError, match="whose decoder sees one that it lacks"):
        importance_estimates(model, inputs | {"text": torch.tensor([1, -1, 3])}, [image], given, n_samples=2)


def test_precision_of_what_cvaes_label_says():
    model = model_of("cvae").eval()
    assert model.posterior({"text": torch.tensor([1])}).mean.dtype == torch.float64
