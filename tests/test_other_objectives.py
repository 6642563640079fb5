"""The objectives of BiVCCA, MoPoE, JMVAE, VAE and CVAE, against formulas written out and exact likelihoods."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, Normal, kl_divergence

import fashionmnist.model
import mnist.data
import mnist.model
import mnist.train
from common.data import Batch, unpair
from common.errors import InputError
from common.estimators import importance_estimates
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.objective_options import OF_SAMPLES
from common.objectives import ArElbo, JmvaeElbo, MixtureElbo, MvaeElbo, StandardElbo
from mnist.model import MODELS, build
from tests.linear_gaussian import D, Gaussian, draw, exact_log_p, exact_posterior, linear_gaussian, standard_error
from tests.test_fusions import Exact, components, mask_of, row, with_fusion
from tests.test_objectives import certain, mnist_inputs

PAIRS = [(name, obj) for name, known in MODELS.items() for obj in known.objectives]
FAMILIES_OF = {"poe": ("gaussian", "vmf"), "quotient": ("gaussian",), "mopoe": ("gaussian", "vmf")}
EVERYTHING = [
    (name, obj, posterior)
    for name, obj in PAIRS
    for posterior in FAMILIES_OF.get(MODELS[name].fusion, ("gaussian", "laplace", "vmf"))
]
LAMBDAS, BETA = {"image": 1.5, "text": 50.0}, 0.3


def model_of(name, n_latents=4):
    return build(SimpleNamespace(n_latents=n_latents, model=name, posterior="gaussian")).double()


def inputs_of(model, n=5):
    return {name: x for name, x in mnist_inputs(n).items() if name in model.modalities}


def kl_to_prior(mean, variance):
    return kl_divergence(Normal(mean, variance.sqrt()), Normal(torch.zeros_like(mean), 1.0)).sum(dim=-1)


def experts_by_hand(model, inputs):
    """Mean and variance of each encoder's own output, {name: ...}."""
    outputs = {name: model.encoder[name](x) for name, x in inputs.items()}
    return {name: (mu, logvar.exp()) for name, (mu, logvar) in outputs.items()}


def log_p_by_hand(model, z, inputs):
    """sum_m lambda_m log p(x_m|z) of mnist's networks, for z (B, D)."""
    image = Independent(Bernoulli(logits=model.decoder["image"](z), validate_args=False), 3)
    text = Categorical(logits=model.decoder["text"](z))
    return LAMBDAS["image"] * image.log_prob(inputs["image"]) + LAMBDAS["text"] * text.log_prob(inputs["text"])


def expected_log_p(weights, scales, inputs, name, mean, variance):
    """E log p(x_m|z) over z ~ N(mean, variance), (B, D), on the linear-Gaussian model."""
    at_mean = Normal(mean @ weights[name].T, scales[name]).log_prob(inputs[name]).sum(dim=-1)
    return at_mean - 0.5 * (variance * weights[name].square().sum(dim=0)).sum(dim=-1) / scales[name] ** 2


def expected_mixture(fusion, weights, scales, inputs, pattern, lambdas, beta):
    """Closed form of MixtureElbo's expectation for one example."""
    mean, variance = components(fusion, weights, scales, inputs, pattern)
    log_p = sum(lambdas.get(n, 1.0) * expected_log_p(weights, scales, inputs, n, mean, variance) for n in pattern)
    return (log_p - beta * kl_to_prior(mean, variance)).mean().item()


def repeated(inputs, n):
    return {name: x.expand(n, *x.shape[1:]) for name, x in inputs.items()}


def hooked(network):
    """The rows of each call to come."""
    rows = []
    network.register_forward_hook(lambda _, args, __: rows.append(len(args[0])))
    return rows


def gradients_agree(objective, inputs):
    """gradcheck of the loss, with the same noise each time, by all parameters."""
    parameters = dict(objective.model.named_parameters())

    def loss(*values):
        torch.manual_seed(0)
        names = {f"model.{name}": value for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(objective, names, (inputs, 0.5))

    return torch.autograd.gradcheck(loss, tuple(p.detach().clone().requires_grad_() for p in parameters.values()))


# mixtures: BiVCCA, MoPoE


def test_mixture_is_bivccas_formula_with_both_halves():
    model = certain(model_of("bivcca"))
    inputs = mnist_inputs()
    (mu_x, var_x), (mu_y, var_y) = experts_by_hand(model, inputs).values()
    of_x = log_p_by_hand(model, mu_x, inputs) - BETA * kl_to_prior(mu_x, var_x)
    of_y = log_p_by_hand(model, mu_y, inputs) - BETA * kl_to_prior(mu_y, var_y)
    objective, mu = MixtureElbo(model, weights=LAMBDAS), 0.5
    expected = mu * of_x + (1 - mu) * of_y
    torch.testing.assert_close(objective.bound(inputs, BETA).value, expected)
    torch.testing.assert_close(objective(inputs, BETA), -expected.mean())


def test_mixture_of_mopoe_is_the_mean_over_the_three_products():
    model = certain(model_of("mopoe"))
    inputs = mnist_inputs()
    experts = experts_by_hand(model, inputs)
    total = 0
    for subset in (("image",), ("text",), ("image", "text")):
        precision = 1 + sum(1 / experts[name][1] for name in subset)
        mean = sum(experts[name][0] / experts[name][1] for name in subset) / precision
        total = total + log_p_by_hand(model, mean, inputs) - BETA * kl_to_prior(mean, 1 / precision)
    torch.testing.assert_close(MixtureElbo(model, weights=LAMBDAS).bound(inputs, BETA).value, total / 3)


@pytest.mark.parametrize("name", ["bivcca", "mopoe"])
def test_terms_of_a_mixture_are_unweighted_and_add_up(name):
    model = model_of(name)
    inputs = mnist_inputs()
    value, terms = MixtureElbo(model, weights=LAMBDAS).bound(inputs, BETA)
    assert list(terms) == ["mixture/kl", "mixture/image", "mixture/text"]
    assert all(term.shape == value.shape == (5,) for term in terms.values())
    total = -BETA * terms["mixture/kl"] + sum(LAMBDAS[n] * terms[f"mixture/{n}"] for n in LAMBDAS)
    torch.testing.assert_close(value, total)
    if name == "bivcca":
        kls = [kl_to_prior(*expert) for expert in experts_by_hand(model, inputs).values()]
        torch.testing.assert_close(terms["mixture/kl"], sum(kls) / 2)


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
@pytest.mark.parametrize(
    ("n_modalities", "pattern"), [(2, ("a", "b")), (2, ("b",)), (3, ("a", "b", "c")), (3, ("a", "c")), (3, ("c",))]
)
def test_expectation_of_the_mixtures_bound(fusion, n_modalities, pattern):
    """Its closed form, over what an example has: below log p of that; and with weights and beta."""
    model, weights, scales = with_fusion(fusion, n_modalities)
    one, n = draw(weights, scales, 1), 10_000
    batch = Batch(repeated(one, n), mask_of([pattern], tuple(weights)).expand(n, -1))
    for lambdas, beta in (({}, 1.0), ({"a": 3.0, "c": 0.2}, 0.4)):
        lambdas = {name: x for name, x in lambdas.items() if name in weights}
        expected = expected_mixture(fusion, weights, scales, one, pattern, lambdas, beta)
        with torch.no_grad():
            value = MixtureElbo(model, weights=lambdas).bound(batch, beta).value
        assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
        assert standard_error(value) < 0.3, "the comparison is tight"
        if not lambdas:
            log_p = exact_log_p(weights, scales, one, pattern).item()
            if fusion == "mopoe" and len(pattern) == 1:  # the exact posterior
                assert expected == pytest.approx(log_p)
            else:
                assert expected < log_p


@pytest.mark.parametrize("name", ["bivcca", "mopoe"])
def test_a_row_of_one_modality_carries_its_unimodal_elbo_alone(name):
    model = certain(model_of(name))
    inputs = mnist_inputs(4)
    objective = MixtureElbo(model, weights=LAMBDAS)
    value, terms = objective.bound(
        Batch(inputs, torch.tensor([[True, True], [True, False], [False, True], [False, False]])), BETA
    )
    for i, m in ((1, "image"), (2, "text")):
        mu, variance = experts_by_hand(model, row(inputs, i))[m]
        if name == "mopoe":
            mu, variance = mu / (1 + variance), variance / (1 + variance)
        log_p = model.decode(mu, [m])[m].log_prob(inputs[m][i : i + 1])
        expected = LAMBDAS[m] * log_p - BETA * kl_to_prior(mu, variance)
        torch.testing.assert_close(value[i : i + 1], expected)
        torch.testing.assert_close(terms[f"mixture/{m}"][i : i + 1], log_p)
    torch.testing.assert_close(value[:1], objective.bound(row(inputs, 0), BETA).value)
    assert value[3] == 0, "nothing is there: nothing is bound"
    assert terms["mixture/text"].nonzero().flatten().tolist() == [0, 2]
    assert terms["mixture/image"].nonzero().flatten().tolist() == [0, 1]


def test_a_mixtures_batch_without_a_single_example_of_a_modality():
    model = certain(model_of("bivcca"))
    inputs = mnist_inputs(3)
    mu, variance = experts_by_hand(model, inputs)["text"]
    expected = model.decode(mu, ["text"])["text"].log_prob(inputs["text"]) - kl_to_prior(mu, variance)
    only_text = Batch(inputs, torch.tensor([[False, True]]).expand(3, -1))
    for given in (only_text, {"text": inputs["text"]}):
        torch.testing.assert_close(MixtureElbo(model).bound(given).value, expected)


@pytest.mark.parametrize(("name", "n_components"), [("bivcca", 2), ("mopoe", 3)])
def test_a_mixtures_networks_run_once_and_decode_what_is_scored(name, n_components):
    model = model_of(name)
    counts = {(kind, m): hooked(getattr(model, kind)[m]) for kind in ("encoder", "decoder") for m in model.modalities}
    MixtureElbo(model)(mnist_inputs(5))
    assert all(rows == [5 if kind == "encoder" else 5 * n_components] for (kind, _), rows in counts.items())
    for rows in counts.values():
        rows.clear()
    MixtureElbo(model)(Batch(mnist_inputs(3), torch.tensor([[True, True], [True, False], [True, False]])))
    assert counts == {
        ("encoder", "image"): [3],
        ("encoder", "text"): [1],
        ("decoder", "image"): [n_components + 2],
        ("decoder", "text"): [n_components],
    }


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
def test_gradient_of_the_mixtures_loss_against_finite_differences(fusion):
    model, weights, scales = with_fusion(fusion)
    inputs = draw(weights, scales, 3)
    inputs["b"][0] = torch.nan
    assert gradients_agree(MixtureElbo(model, weights={"a": 2.0}), inputs)


# JMVAE


def exact_jmvae(weights, scales, inputs):
    """log p(a, b), KL(joint || prior), [KL(joint || alone) of a and of b]: all analytic, (B,)."""
    joint, a, b = (
        Normal(mean, variance.sqrt())
        for mean, variance in (exact_posterior(weights, scales, inputs, s) for s in (("a", "b"), ("a",), ("b",)))
    )
    apart = [kl_divergence(joint, alone).sum(dim=-1) for alone in (a, b)]
    kl = kl_divergence(joint, Normal(torch.zeros_like(joint.mean), 1.0)).sum(dim=-1)
    return exact_log_p(weights, scales, inputs, ("a", "b")), kl, apart


@pytest.mark.parametrize("alpha", [0.0, 0.1, 2.0])
def test_jmvae_at_the_exact_posteriors_is_log_p_less_the_kls(alpha):
    model, weights, scales = with_fusion("own")
    one = draw(weights, scales, 1)
    log_p, kl, apart = exact_jmvae(weights, scales, one)
    assert min(a.item() for a in apart) > 0.01, "the posteriors differ"
    with torch.no_grad():
        value, terms = JmvaeElbo(model, alpha=alpha).bound(repeated(one, 20_000))
    expected = (log_p - alpha * sum(apart)).item()
    assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
    assert standard_error(value) < 0.02, "the comparison is tight"
    assert set(terms) == {"joint/kl", "joint/a", "joint/b", "a/kl from joint", "b/kl from joint"}
    for name, exact in (("joint/kl", kl), ("a/kl from joint", apart[0]), ("b/kl from joint", apart[1])):
        torch.testing.assert_close(terms[name], exact.expand(20_000))


def certain_joint(model, inputs):
    """Mean and log-variance of the joint encoder, made so narrow that a sample is its mean."""
    encoder = model.encoder["image,text"]
    with torch.no_grad():
        encoder.head[-1].linear.weight[4:] = 0
        encoder.head[-1].linear.bias[4:] = -60
    return encoder(inputs["image"], inputs["text"])


def test_jmvaes_weights_beta_and_alpha():
    """On mnist's networks, each written out; beta weighs the prior's KL and leaves the others alone."""
    model, alpha = model_of("jmvae"), 0.7
    inputs = mnist_inputs()
    mu, logvar = certain_joint(model, inputs)
    joint = Normal(mu, (0.5 * logvar).exp())
    apart = sum(
        kl_divergence(joint, Normal(m, v.sqrt())).sum(dim=-1) for m, v in experts_by_hand(model, inputs).values()
    )
    for beta in (1.0, BETA, 0.0):
        expected = log_p_by_hand(model, mu, inputs) - beta * kl_to_prior(mu, logvar.exp()) - alpha * apart
        bound = JmvaeElbo(model, alpha=alpha, weights=LAMBDAS).bound(inputs, beta)
        torch.testing.assert_close(bound.value, expected)


def test_jmvaes_alpha_is_suzukis_by_default():
    assert JmvaeElbo(model_of("jmvae")).alpha == 0.1


def test_jmvae_refuses_incomplete_examples():
    model = model_of("jmvae")
    inputs = mnist_inputs(3)
    lacking = {"image": inputs["image"], "text": torch.tensor([3, -1, 2])}
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    for given in (lacking, {"image": inputs["image"]}, Batch(inputs, mask), Batch({"text": inputs["text"]})):
        with pytest.raises(InputError, match="needs every modality of every example"):
            JmvaeElbo(model).bound(given)


def test_only_alpha_trains_jmvaes_unimodal_encoders():
    model, inputs = model_of("jmvae"), mnist_inputs()
    grads = []
    for alpha in (0.0, 1.0):
        model.zero_grad()
        torch.manual_seed(0)
        JmvaeElbo(model, alpha=alpha)(inputs).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[1].items():
        assert grad.isfinite().all() and grad.any(), name
        alone = name.startswith(("encoder.image.", "encoder.text."))
        assert alone != bool(grads[0][name].any()), name
        # the alpha term draws the posteriors alone to the joint one, and the joint one to them
        assert grad.equal(grads[0][name]) == name.startswith("decoder"), name


def test_gradient_of_jmvaes_loss_against_finite_differences():
    model, weights, scales = with_fusion("own")
    inputs = draw(weights, scales, 3)
    with torch.no_grad():  # posteriors that are off, where the KLs' gradients are large
        for encoder in model.encoder.values():
            encoder.log_precision.add_(torch.randn(D))
    assert gradients_agree(JmvaeElbo(model, alpha=0.7, weights={"a": 2.0}), inputs)


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


# decoders with batch norm


def batch_norm_model(fusion):
    model, weights, scales = with_fusion(fusion)
    model.decoder["a"] = nn.Sequential(model.decoder["a"], nn.BatchNorm1d(3).double())
    return model, draw(weights, scales, 8)


def noise_of(objective, batch, seed):
    """The z that the objective is going to draw for its terms, (T, B, D)."""
    model = objective.model
    torch.manual_seed(seed)
    if isinstance(objective, MixtureElbo):
        z = model.fuse(model.experts(batch), batch.mask).component_distribution.rsample().movedim(1, 0)
    else:
        given = objective.subsets()[:, None]
        z = model.fuse(model.experts(batch), given if batch.mask is None else given & batch.mask).rsample()
    torch.manual_seed(seed)
    return z.detach()


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize(("fusion", "objective"), [("poe", MvaeElbo), ("quotient", MvaeElbo), ("moe", MixtureElbo)])
def test_batch_norm_has_the_statistics_of_each_term_alone(fusion, objective, incomplete):
    model, inputs = batch_norm_model(fusion)
    objective = objective(model).train()
    has_a, has_b = torch.ones(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
    if incomplete:
        has_a[:2], has_b[5:] = False, False
    batch = Batch(inputs, torch.stack([has_a, has_b], dim=1) if incomplete else None)
    # the terms that score a, and the rows where they do: q(z|a), and q(z|a, b) of MVAE, or q(z|b) of the mixture
    terms = [(0, has_a), (1 if fusion == "moe" else 2, has_a & has_b)]
    decoder, rows = copy.deepcopy(model.decoder["a"]), hooked(model.decoder["a"])
    z = noise_of(objective, batch, 3)
    _, bound = objective.loss(batch)
    assert rows == [int(where.sum()) for _, where in terms]

    mean, variance, log_p = torch.zeros(3), torch.ones(3), []
    for t, where in terms:
        x = decoder[0](z[t, where])
        mean, variance = 0.9 * mean + 0.1 * x.mean(dim=0), 0.9 * variance + 0.1 * x.var(dim=0)
        x = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
        of_all = torch.zeros(8, dtype=torch.float64)
        of_all[where] = model.likelihood["a"](x).log_prob(inputs["a"][where])
        log_p.append(of_all)
    norm = model.decoder["a"][1]
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    if fusion == "moe":
        share = 1 / (has_a.double() + has_b.double())
        torch.testing.assert_close(bound.terms["mixture/a"], share * sum(log_p))
    else:
        torch.testing.assert_close(bound.terms["a/a"], log_p[0])
        torch.testing.assert_close(bound.terms["joint/a"], log_p[1])


@pytest.mark.parametrize(("fusion", "objective"), [("poe", MvaeElbo), ("moe", MixtureElbo)])
def test_batch_norm_is_decoded_at_once_outside_of_training(fusion, objective):
    model, inputs = batch_norm_model(fusion)
    objective, rows = objective(model).eval(), hooked(model.decoder["a"])
    state = copy.deepcopy(model.decoder["a"].state_dict())
    objective.loss(inputs)
    assert rows == [16]
    objective.loss(Batch(inputs, torch.tensor([[True, True]] * 5 + [[True, False]] * 2 + [[False, True]])))
    assert rows[1:] == [5 + 7]
    torch.testing.assert_close(dict(model.decoder["a"].state_dict()), dict(state))
    plain = hooked(model.decoder["b"])
    objective.train().loss(inputs)
    assert plain == [16], "and a decoder without it in training too"


def test_a_term_that_scores_nothing_leaves_batch_norm_alone():
    """No example has both: the joint term is nowhere, and the decoder of a runs for ELBO(a) only."""
    model, inputs = batch_norm_model("poe")
    rows = hooked(model.decoder["a"])
    mask = torch.tensor([[True, False]] * 5 + [[False, True]] * 3)
    MvaeElbo(model).train().loss(Batch(inputs, mask))
    assert rows == [5] and model.decoder["a"][1].num_batches_tracked == 1


# students


def test_a_joint_encoder_takes_no_notice_of_its_students():
    """Its gradient is the ELBO's, theirs JMVAE's."""
    model, inputs = model_of("jmvae"), mnist_inputs()

    def gradients(objective):
        torch.manual_seed(0)
        model.zero_grad()
        objective(inputs).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    student, jmvae, teacher = (
        gradients(JmvaeElbo(model, a, students=s)) for a, s in ((0.7, True), (0.7, False), (0, True))
    )
    for name, gradient in student.items():
        of_student = name.startswith(("encoder.image.", "encoder.text."))
        torch.testing.assert_close(gradient, jmvae[name] if of_student else teacher[name], msg=name)
    assert any(not student[name].equal(jmvae[name]) for name in student if name.startswith("encoder.image,text"))


def test_students_of_an_exact_teacher_come_to_the_exact_posteriors():
    """Over the data, the KL's gradient is zero at p(z|x_m), and not elsewhere."""
    model, weights, scales = with_fusion("own")
    objective, gradients = JmvaeElbo(model, 1.0, students=True), []
    students = [*model.encoder["a"].parameters(), *model.encoder["b"].parameters()]
    for shift in (0.0, 0.1):
        for p in students:
            p.data += shift
        chunks = []
        for _ in range(60):
            model.zero_grad()
            objective(draw(weights, scales, 300)).backward()
            chunks.append(torch.cat([p.grad.flatten() for p in students]))
        chunks = torch.stack(chunks)
        gradients.append(chunks.mean(dim=0) / (chunks.std(dim=0) / math.sqrt(60)))
    assert gradients[0].abs().max() < 4.5
    assert gradients[1].abs().median() > 8, "the comparison is tight"


# AR-ELBO


def test_ar_is_the_chain_rule_where_the_posteriors_are_exact():
    """In any order, and of what an example has."""
    model, weights, scales = linear_gaussian(3)
    inputs = draw(weights, scales, 3)
    inputs["a"][1], inputs["b"][2], inputs["c"][2] = torch.nan, torch.nan, torch.nan
    with torch.no_grad():
        value, terms = ArElbo(model).bound({name: x.repeat(8000, 1) for name, x in inputs.items()})
    value = value.view(8000, 3)
    for i, present in enumerate([("a", "b", "c"), ("b", "c"), ("a",)]):
        exact = exact_log_p(weights, scales, row(inputs, i), present).item()
        assert value[:, i].mean().item() == pytest.approx(exact, abs=5 * standard_error(value[:, i]))
        assert standard_error(value[:, i]) < 0.05, "the comparison is tight"
    assert (terms["ar/a"].view(8000, 3)[:, 1] == 0).all()


def test_ar_in_either_order_written_out():
    """Posteriors off the exact ones, weights and beta."""
    model, weights, scales = with_fusion("quotient")
    for expert in model.encoder.values():
        expert.log_precision.data -= 0.7
    inputs, lambdas, beta, n = draw(weights, scales, 1), {"a": 0.5, "b": 2.0}, 0.3, 20_000
    many = repeated(inputs, n)
    with torch.no_grad():
        found = ArElbo(model, lambdas).bound(many, beta).value
        q = {given: model.posterior(many, given) for given in (("a",), ("b",), ("a", "b"))}

        def term(name, given):
            return lambdas[name] * model.decode(q[given].sample())[name].log_prob(many[name])

        orders = []
        for first, second in (("a", "b"), ("b", "a")):
            kl = kl_divergence(q[first,], model.prior()) + kl_divergence(q["a", "b"], q[first,])
            orders.append(term(first, (first,)) + term(second, ("a", "b")) - beta * kl)
        expected = sum(orders) / 2
    noise = math.hypot(standard_error(found), standard_error(expected))
    assert found.mean().item() == pytest.approx(expected.mean().item(), abs=5 * noise)
    assert noise < 0.05 * abs(orders[0].mean() - orders[1].mean()), "the comparison tells one order from both"


def test_ar_of_mixtures_is_refused():
    with pytest.raises(InputError, match="have no closed form"):
        ArElbo(model_of("bivcca"))


# every --model


def goal(model, name, obj=None, **options):
    return mnist.train.objective(mnist.train.Config(model=name, obj=obj, **options), model)


@pytest.mark.parametrize("experiment", [mnist.model, fashionmnist.model])
@pytest.mark.parametrize(("name", "obj", "posterior"), EVERYTHING)
def test_every_parameter_gets_a_gradient(experiment, name, obj, posterior):
    model = experiment.build(SimpleNamespace(n_latents=4, model=name, posterior=posterior))
    inputs = {"image": torch.rand(12, 1, 28, 28), "text": torch.randint(10, (12,))}
    several = {"K": 4} if obj in OF_SAMPLES else {}
    goal(model, name, obj, **several)({m: inputs[m] for m in model.modalities}).backward()
    for parameter, p in model.named_parameters():
        if parameter != "prior.scale":  # Laplace's, which mnist does not learn
            assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), parameter


@pytest.mark.parametrize(("name", "obj"), PAIRS)
def test_names_of_terms(name, obj):
    model = model_of(name)
    mixture = name in ("bivcca", "mopoe")
    terms = {
        "mvae": "image/kl text/kl joint/kl image/image joint/image text/text joint/text",
        "jmvae": "joint/kl joint/image joint/text image/kl_from_joint text/kl_from_joint",
        "student": "joint/kl joint/image joint/text image/kl_from_joint text/kl_from_joint",
        "ar": "ar/kl ar/image ar/text",
        "elbo-importance": "mixture/kl mixture/image mixture/text",
        "elbo": "mixture/kl mixture/image mixture/text" if mixture else "joint/kl joint/image joint/text",
    }.get(obj, "joint/kl joint/image joint/text")
    expected = [term for term in terms.split() if name not in ("vae", "cvae") or "text" not in term]
    value, named = goal(model, name, obj).bound(inputs_of(model))
    assert {term.replace(" ", "_") for term in named} == set(expected)
    assert value.shape == (5,) and all(term.shape == (5,) for term in named.values())


@pytest.mark.parametrize("name", ["mvae", "mvae-q", "jmvae", "bivcca", "mopoe"])
def test_each_model_fuses_its_experts_in_its_own_way(name):
    """Mean and variance of q(z|image, text) from its encoders' outputs, by the papers' formulas."""
    model, inputs = model_of(name).eval(), mnist_inputs()
    (mu_x, var_x), (mu_y, var_y) = experts_by_hand(model, inputs).values()
    t_x, t_y = 1 / var_x, 1 / var_y
    product = ((t_x * mu_x + t_y * mu_y) / (1 + t_x + t_y), 1 / (1 + t_x + t_y))
    alone = [(t * mu / (1 + t), 1 / (1 + t)) for t, mu in ((t_x, mu_x), (t_y, mu_y))]
    joint = model.encoder["image,text"](inputs["image"], inputs["text"]) if name == "jmvae" else None
    parts = {
        "mvae": [product],
        "mvae-q": [(((1 + t_x) * mu_x + (1 + t_y) * mu_y) / (1 + t_x + t_y), 1 / (1 + t_x + t_y))],
        "jmvae": [(joint[0], joint[1].exp())] if joint else [],
        "bivcca": [(mu_x, var_x), (mu_y, var_y)],
        "mopoe": [*alone, product],
    }[name]
    mean = sum(m for m, _ in parts) / len(parts)
    q = model.posterior(inputs)
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.variance, sum(v + m.square() for m, v in parts) / len(parts) - mean.square())


@pytest.mark.parametrize("name", list(MODELS))
def test_shapes_of_what_each_model_gives(name):
    model = build(SimpleNamespace(n_latents=4, model=name, posterior="gaussian")).eval()
    inputs = {m: x.float() if m == "image" else x for m, x in inputs_of(model).items()}
    assert model.modalities == (("image",) if name == "vae" else ("image", "text"))
    q = model.posterior(inputs)
    assert q.batch_shape == (5,) and q.event_shape == (4,) and q.mean.shape == (5, 4)
    z = q.sample((3,))
    assert z.shape == (3, 5, 4) and q.log_prob(z).shape == (3, 5)
    decoded = ("image",) if name in ("vae", "cvae") else ("image", "text")
    p = model.decode(z, given=inputs)
    assert tuple(p) == decoded
    assert all(p[m].log_prob(inputs[m]).shape == (3, 5) for m in decoded)
    shapes = {"image": (5, 1, 28, 28), "text": (5,)}
    subsets = {"vae": [("image",)], "cvae": [("text",), ("image", "text")]}
    made = [model.reconstruct(inputs)]
    made += [model.reconstruct(inputs, given) for given in subsets.get(name, [("image",), ("text",)])]
    made += [model.generate(5)] if name != "cvae" else []
    for out in made:
        assert {m: x.shape for m, x in out.items()} == {m: shapes[m] for m in decoded}
        assert 0 <= out["image"].min() <= out["image"].max() <= 1


# what they learn


def accuracy(name, epochs, paired=1.0, seed=0):
    """Of the label inferred from held-out images, after some epochs on the demo's digits."""
    torch.manual_seed(seed)
    model = build(SimpleNamespace(n_latents=8, model=name, posterior="gaussian"))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):  # wider than usual, so that a hundred steps are enough
            nn.init.normal_(layer.weight, std=1.5 / math.sqrt(layer.in_features))
    digits = mnist.data.load("train", Path(), demo=True)
    train, held_out = digits.take(slice(1000)), digits.take(slice(1000, None))[:]
    train = unpair(train, paired, seed)
    objective = goal(model, name, lambda_text=20.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
    for _ in range(epochs):
        for batch in train.batches(50, torch.randperm(len(train))):
            optimizer.zero_grad()
            objective(batch, 0.1).backward()
            optimizer.step()
    inferred = model.eval().reconstruct({"image": held_out.modalities["image"]})["text"]
    return (inferred == held_out.modalities["text"]).double().mean().item()


@pytest.mark.parametrize(("name", "epochs"), [("mvae", 5), ("mvae-q", 5), ("jmvae", 3), ("bivcca", 2), ("mopoe", 2)])
def test_models_learn_to_infer_the_label_from_the_image(monkeypatch, name, epochs):
    """Guessing gives 0.1, with a standard error of 0.013; seeds 0 to 5 gave 0.59 and more."""
    monkeypatch.setattr(mnist.model, "WIDTH", 128)
    assert accuracy(name, epochs) > 0.4


def test_mvae_learns_from_few_pairs(monkeypatch):
    """100 pairs, and 900 images and 900 labels alone; seeds 0 to 5 gave 0.40 and more."""
    monkeypatch.setattr(mnist.model, "WIDTH", 128)
    assert accuracy("mvae", 4, paired=0.1) > 0.25


def test_cvae_has_no_posterior_of_an_image_alone():
    model, inputs = model_of("cvae").eval(), mnist_inputs()
    for ask in (
        lambda: model.posterior({"image": inputs["image"]}),
        lambda: model.posterior(inputs, given=("image",)),
        lambda: model.reconstruct(inputs, given=("image",)),
    ):
        with pytest.raises(InputError, match="no encoder for just these modalities"):
            ask()


def test_cvae_does_not_model_the_label():
    model, inputs = model_of("cvae").eval(), mnist_inputs()
    with pytest.raises(InputError, match="never models the text"):
        importance_estimates(model, inputs, [("image", "text")], ("image", "text"), 5)


def test_the_prior_is_a_proposal_for_cvae_too():
    """Its q(z|text) is the prior: the same estimate to within their noise, each near the exact value."""
    model, weights, scales, shift = conditional_model()
    b = torch.randn(4, 3, dtype=torch.float64)
    inputs = {"a": b @ shift.T + 0.5 * torch.randn_like(b), "b": b}
    (estimate,) = importance_estimates(model, inputs, [("a",)], (), n_samples=50_000)
    log_p = conditional_log_p(weights, scales, shift, inputs)
    torch.testing.assert_close(estimate.value, log_p, rtol=0, atol=0.15)


def test_an_image_without_a_label_teaches_cvae_nothing():
    model, inputs = model_of("cvae").train(), mnist_inputs(3)
    value, _ = StandardElbo(model).bound(inputs | {"text": torch.tensor([1, -1, 3])})
    assert (value != 0).tolist() == [True, False, True]


def test_jmvae_takes_a_mask_of_complete_examples():
    model, inputs = model_of("jmvae"), mnist_inputs(3)
    assert JmvaeElbo(model)(Batch(inputs, torch.ones(3, 2, dtype=torch.bool))).isfinite()


def test_precision_of_what_cvaes_label_says():
    model = model_of("cvae").eval()
    assert model.posterior({"text": torch.tensor([1])}).mean.dtype == torch.float64
