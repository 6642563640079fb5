"""MMVAE under MultiVae's names: what it gives is what the pieces give, and exact where the model is linear."""

import math
import re
from collections import OrderedDict
from types import SimpleNamespace

from common.errors import InputError
from common.likelihoods import BernoulliLikelihood
from common.models import MMVAE, MMVAEConfig
from common.objectives import DregIwaeElbo, IwaeElbo
from multivae_api import IncompleteDataset, ModelOutput, MultimodalBaseDataset
from tests.helpers.linear_gaussian import Decoder, Expert, draw, exact_log_p, linear_gaussian, standard_error
from tests.helpers.scripts import ROOT

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal

DIMS = {"a": (1, 4, 4), "b": (6,)}


def small(**options):
    torch.manual_seed(0)
    return MMVAE(MMVAEConfig(n_modalities=2, latent_dim=3, input_dims=DIMS, K=5, **options))


def pair(n=4):
    return {name: torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)) for name, shape in DIMS.items()}


def linear(n=3, **options):
    """Linear decoders, Gaussian throughout: log p(X) is known."""
    _, weights, scales = linear_gaussian(n)
    config = MMVAEConfig(
        n_modalities=n,
        latent_dim=2,
        prior_and_posterior_dist="normal",
        learn_prior=False,
        decoder_dist_params={name: {"scale": scale} for name, scale in scales.items()},
        **options,
    )
    experts = {name: Expert(weights[name], scales[name]) for name in weights}
    return MMVAE(config, experts, {name: Decoder(w) for name, w in weights.items()}).double(), weights, scales


def incomplete(data, **masks):
    """What MultiVae's datasets look like."""
    return SimpleNamespace(data=data, masks=masks)


@pytest.mark.parametrize(
    ("loss", "objective", "family"),
    [("dreg_looser", DregIwaeElbo, "laplace_with_softmax"), ("iwae_looser", IwaeElbo, "normal")],
)
def test_forward_is_the_objective(loss, objective, family):
    model = small(loss=loss, prior_and_posterior_dist=family, beta=0.3)
    torch.manual_seed(0)
    output = model(pair())
    output.loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    expected, bound = objective(model, 5, looser=True).loss(pair(), beta=0.3)
    expected.backward()
    torch.testing.assert_close(found, [p.grad for p in model.parameters()])
    assert output["loss"].item() == pytest.approx(-bound.value.mean().item()), "also where the loss is a surrogate"
    assert output.metrics["bound"].item() == pytest.approx(bound.value.mean().item())
    assert output.metrics["joint/a"].item() == pytest.approx(bound.terms["joint/a"].mean().item())


def pieces(model, inputs, fixed):
    """What the losses take: posteriors (of detached parameters), samples, reconstructions, inputs."""
    torch.manual_seed(0)
    output = model(inputs, detailed_output=True)
    return output.qz_xs_detach if fixed else output.qz_xs, output.zss, output.recon, inputs


@pytest.mark.parametrize("rule", ["stop-all", "iwae"])
def test_losses_of_given_samples(rule):
    model = small(
        beta=0.4,
        uses_likelihood_rescaling=True,
        rescale_factors={"a": 0.2, "b": 3.0},
        decoders_dist={"a": "laplace"},
        decoder_dist_params={"a": {"scale": 0.75}},
    )
    method = model.dreg_looser if rule == "stop-all" else model.iwae_looser
    output = method(*pieces(model, pair(), fixed=rule == "stop-all"))
    output.loss.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    objective = DregIwaeElbo(model, 5, True, gradient="stop-all") if rule == "stop-all" else IwaeElbo(model, 5, True)
    loss, bound = objective.loss(pair(), beta=0.4)
    loss.backward()
    assert output.loss.item() == pytest.approx(-bound.value.mean().item(), rel=1e-5)
    torch.testing.assert_close(found, [p.grad for p in model.parameters()], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loss", ["dreg_looser", "iwae_looser"])
def test_partially_observed_inputs(loss):
    """A mask, a NaN and a modality left out are the same; values under a mask are never looked at."""
    model, inputs = small(loss=loss), pair()
    masked = {name: x.clone() for name, x in inputs.items()}
    masked["b"][1] = torch.nan
    here = torch.tensor([True, False, True, True])
    hidden = {"a": inputs["a"], "b": torch.where(here[:, None], inputs["b"], 1e6)}
    results = []
    for given in (masked, incomplete(hidden, a=torch.ones(4, dtype=torch.bool), b=here)):
        torch.manual_seed(0)
        model.zero_grad()
        output = model(given)
        output.loss.backward()
        results.append((output.loss.item(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(*results)
    for forms in (SimpleNamespace(data=masked), OrderedDict(data=masked, masks={"a": torch.ones(4).bool()})):
        torch.manual_seed(0)
        assert model(forms).loss.item() == results[0][0]
    qs, samples, outputs, _ = pieces(model, inputs, fixed=loss == "dreg_looser")
    method = getattr(model, loss)
    whole = method(qs, samples, outputs, incomplete(hidden, b=here)).loss.item()
    torch.manual_seed(0)
    assert whole == pytest.approx(-IwaeElbo(model, 5, True).bound(masked).value.mean().item(), rel=1e-5)


def test_predictions_are_made_in_evaluation_mode():
    decoders = {name: nn.Sequential(nn.Linear(3, n), nn.BatchNorm1d(n)) for name, n in (("a", 5), ("b", 6))}
    encoders = {name: nn.Sequential(nn.Dropout(), Halves(nn.Linear(n, 6))) for name, n in (("a", 5), ("b", 6))}
    model = MMVAE(MMVAEConfig(2, latent_dim=3), encoders, decoders)
    decoders["b"][1].eval()
    inputs = {"a": torch.randn(4, 5), "b": torch.randn(4, 6)}
    outputs = [model.predict(inputs, return_mean=True) for _ in range(2)]
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*(model.decode(model.generate_from_prior(3) | {"z": torch.ones(3, 3)}) for _ in "ab"))
    assert decoders["a"][1].running_mean.eq(0).all()
    assert model.training and decoders["a"][1].training and not decoders["b"][1].training


def test_one_hot_vectors_are_scored_by_cross_entropy(tmp_path):
    dims = {"class": (10,), "word": (4, 26)}
    config = MMVAEConfig(2, latent_dim=3, input_dims=dims, decoders_dist=dict.fromkeys(dims, "categorical"))
    model, x = MMVAE(config), {name: torch.zeros(5, *shape) for name, shape in dims.items()}
    for values in x.values():
        values[..., 3] = 1
    logits = model.decoder_outputs(torch.randn(5, 3), dims)
    p = model.likelihood(logits)
    expected = -torch.nn.functional.cross_entropy(
        logits["word"].transpose(1, 2), torch.full((5, 4), 3), reduction="none"
    )
    torch.testing.assert_close(p["word"].log_prob(x["word"]), expected.sum(dim=1))
    torch.testing.assert_close(p["class"].log_prob(x["class"]), logits["class"].log_softmax(dim=1)[:, 3])
    generated = model.generate(2)
    torch.testing.assert_close(generated["word"].sum(dim=-1), torch.ones(2, 4))
    model.save(tmp_path)
    assert MMVAE.load_from_folder(tmp_path).model_config.decoders_dist == config.decoders_dist


class Halves(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x).chunk(2, dim=1)


def test_draws_of_the_prior():
    model = small(prior_and_posterior_dist="normal")
    with torch.no_grad():
        model.prior.loc += torch.tensor([1.0, 0.0, -1.0])
        model.prior.scale += torch.tensor([0.0, 2.0, -2.0])
    z = model.generate_from_prior(20_000).z
    assert z.shape == (20_000, 3) and model.generate_from_prior(1).z.shape == (1, 3)
    mean, std = model.pz_params
    assert mean.tolist() == [1, 0, -1] and std.tolist() == pytest.approx([1, torch.e, 1 / torch.e])
    torch.testing.assert_close(z.mean(dim=0), mean, rtol=0, atol=0.1)
    torch.testing.assert_close(z.std(dim=0), std, rtol=0.03, atol=0)


@pytest.mark.parametrize("batch_size_K", [7, 5000])
def test_the_joint_likelihood_is_exact_and_sums_over_the_batch(batch_size_K):
    """Weights and beta play no part; what an example has is what is scored."""
    factors = {"a": 0.1, "b": 5.0, "c": 1.0}
    model, weights, scales = linear(beta=0.2, uses_likelihood_rescaling=True, rescale_factors=factors)
    inputs = draw(weights, scales, 6)
    exact = exact_log_p(weights, scales, inputs, ("a", "b", "c")).sum().item()
    nll = model.compute_joint_nll(inputs, K=20_000 if batch_size_K > 7 else 3000, batch_size_K=batch_size_K)
    assert nll.item() == pytest.approx(-exact, abs=0.5)
    masks = {"a": torch.tensor([True] * 3 + [False] * 3), "c": torch.tensor([True, False] * 3)}
    exact = 0
    for i in range(6):
        present = ["abc"[m] for m, there in enumerate((i < 3, True, i % 2 == 0)) if there]
        exact += exact_log_p(weights, scales, {n: x[i : i + 1] for n, x in inputs.items()}, present).item()
    nll = model.compute_joint_nll(incomplete(inputs, **masks), K=20_000, batch_size_K=5000)
    assert nll.item() == pytest.approx(-exact, abs=0.5)


@pytest.mark.parametrize("dist", ["laplace", "bernoulli", "function"])
def test_distributions_of_the_decoders(dist):
    def log_density(output, x):
        return -(output - x).abs() / 0.5 - torch.tensor(2 * 0.5).log()

    model = small(
        decoders_dist={"b": log_density if dist == "function" else dist},
        decoder_dist_params={"b": {"scale": 0.5}} if dist == "laplace" else None,
    )
    z, x = torch.randn(2, 4, 3), pair()["b"]
    output = model.decoder["b"](z.flatten(0, 1)).unflatten(0, (2, 4))
    p = model.decode(z)["b"]
    if dist == "bernoulli":
        expected = BernoulliLikelihood(1)(output).log_prob(x)
        torch.testing.assert_close(p.mean, output.sigmoid())
    else:
        expected = Laplace(output, 0.5).log_prob(x).sum(dim=-1)
        torch.testing.assert_close(p.mean, output)
    torch.testing.assert_close(p.log_prob(x), expected)
    assert model(pair()).loss.isfinite() and model.generate(3)["b"].shape == (3, 6)


def test_the_defaults_are_those_of_the_page():
    config = MMVAEConfig(n_modalities=2)
    assert (config.latent_dim, config.K, config.beta, config.loss) == (10, 10, 1.0, "dreg_looser")
    assert config.prior_and_posterior_dist == "laplace_with_softmax" and config.learn_prior
    model = small()
    assert isinstance(model.prior().base_dist, Laplace)
    assert {name for name, p in model.named_parameters() if p.requires_grad} >= {"prior.loc", "prior.scale"}
    p = model.decode(torch.randn(7, 4, 3))
    for name, shape in DIMS.items():
        assert isinstance(p[name].base_dist, Normal) and (p[name].base_dist.scale == 1).all()
        assert p[name].batch_shape == (7, 4) and p[name].event_shape == shape
    assert not any(p.requires_grad for p in small(learn_prior=False).prior.parameters())


def test_an_example_without_any_modality_counts_nothing():
    model, inputs = small(), pair()
    with torch.no_grad():
        model.prior.loc += 2
    lost = incomplete(inputs, **{name: torch.arange(4) != 1 for name in inputs})
    rest = {name: x[torch.arange(4) != 1] for name, x in inputs.items()}
    torch.testing.assert_close(model.encode(lost, return_mean=True, N=2).z[1], torch.full((2, 3), 2.0))
    for likelihood in (model.compute_joint_nll, model.compute_joint_nll_paper):
        nll = [likelihood(x, K=3000).item() for x in (lost, rest)]
        assert nll[0] == pytest.approx(nll[1], abs=2)
    for method in (model.iwae_looser, model.dreg_looser):
        qs, samples, outputs, _ = pieces(model, inputs, fixed=method == model.dreg_looser)
        model.zero_grad()
        output = method(qs, samples, outputs, lost).loss
        output.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        lws = model.compute_k_lws(qs, samples, outputs, inputs)
        values = sum(lw.logsumexp(dim=0) - math.log(5) for lw in lws.values()) / 2
        assert output.item() == pytest.approx(-values[[0, 2, 3]].sum().item() / 4, rel=1e-5)


def test_encodings_are_of_the_posterior_of_what_an_example_has():
    """Shapes, predictions and what is decoded are those of the package in test_package.py."""
    model, inputs = small(), pair()
    q = model.posterior(inputs, ("b",))
    torch.testing.assert_close(model.encode(inputs, ["b"], N=4000).z.mean(dim=1), q.mean, rtol=0, atol=0.15)
    both = model.encode(inputs, return_mean=True).z
    torch.testing.assert_close(both, (q.mean + model.posterior(inputs, ("a",)).mean) / 2)
    missing = model.encode(incomplete(inputs, a=torch.tensor([False, True, True, True])), return_mean=True).z
    torch.testing.assert_close(missing, torch.cat([q.mean[:1], both[1:]]))
    inputs["a"][1:] = torch.nan
    z = model.encode(inputs, "a", N=2).z  # (4, 2, D)
    assert len(z[1:].flatten(0, 1).unique(dim=0)) == 6, "examples without what is given have draws of their own"


def test_predictions_are_decodings_of_encodings():
    model, weights, scales = linear(2)
    inputs = draw(weights, scales, 3)
    draws = model.predict({"a": inputs["a"]}, gen_mod="b", N=4000).b
    mean = model.posterior(inputs, ("a",)).mean
    torch.testing.assert_close(draws.mean(dim=0), mean @ weights["b"].T, rtol=0, atol=0.1)


@pytest.mark.slow
def test_the_papers_joint_likelihood_rescales():
    factors = {"a": 0.5, "b": 1.5, "c": 1.0}
    model, weights, scales = linear(uses_likelihood_rescaling=True, rescale_factors=factors)
    inputs = draw(weights, scales, 2)
    with torch.no_grad():
        expected = IwaeElbo(model, K=50_000).bound(inputs).value.sum().item()
        plain = IwaeElbo(model, K=50_000, weights=dict.fromkeys("abc", 1.0)).bound(inputs).value.sum().item()
    assert abs(plain - expected) > 0.5
    nll = model.compute_joint_nll_paper(inputs, K=50_000, batch_size_K=500).item()
    assert nll == pytest.approx(-expected, abs=0.1)
    values = torch.tensor([model.compute_joint_nll_paper(inputs, K=8, batch_size_K=3).item() for _ in range(400)])
    with torch.no_grad():
        same = -torch.stack([IwaeElbo(model, K=8).bound(inputs).value.sum() for _ in range(400)])
    noise = 4 * (standard_error(values) + standard_error(same))
    assert values.mean().item() == pytest.approx(same.mean().item(), abs=noise), "K samples of every encoder"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_dims": None}, "the default networks are made from input_dims"),
        ({"n_modalities": 3}, "n_modalities is 3, but there are 2"),
        ({"loss": "elbo"}, r"Invalid enum value 'elbo' - at `\$.loss`"),
        ({"decoders_dist": {"a": "gamma"}}, r"Invalid enum value 'gamma' - at `\$.decoders_dist"),
        ({"decoders_dist": {"c": "normal"}}, "decoders_dist of unknown modalities: c"),
        ({"decoder_dist_params": {"a": {"loc": 1}}}, "normal has a scale, no loc"),
        ({"rescale_factors": {"a": 1.0}}, "rescale_factors need uses_likelihood_rescaling=True"),
        ({"K": 0}, r"Expected `int` >= 1 - at `\$.K`"),
        ({"beta": "1"}, r"Expected `float`, got `str` - at `\$.beta`"),
        ({"input_dims": {"a,b": (2,), "c": (2,)}}, "a modality cannot be called 'a,b', a name is not empty"),
    ],
)
def test_configurations_that_do_not_exist(options, message):
    with pytest.raises(InputError, match=message):
        MMVAE(MMVAEConfig(**({"n_modalities": 2, "input_dims": DIMS} | options)))


@pytest.mark.parametrize(
    ("dist", "change", "message"),
    [
        ("bernoulli", lambda x: 200 * x, r"b has values outside \[0, 1\], and its likelihood takes no others"),
        ("normal", Tensor.double, "b is torch.float64, and the model torch.float32"),
        ("categorical", Tensor.long, "b is torch.int64, and its likelihood takes floats"),
        (lambda output, x: x - output, Tensor.byte, "b is torch.uint8, which its encoder does not take"),
    ],
)
def test_values_that_a_likelihood_does_not_take_are_named_unless_a_mask_leaves_them_out(dist, change, message):
    model, inputs = small(decoders_dist={"b": dist}), pair()
    values, there = inputs["b"], torch.tensor([True, False, True, True])
    inputs["b"] = change(values)
    for use in (model, model.posterior, model.encode, lambda x: model(incomplete(x, b=there))):
        with pytest.raises(InputError, match=message):
            use(inputs)
    hidden = incomplete(inputs | {"b": torch.where(there[:, None], values, 200)}, b=there)
    assert model(hidden).loss.isfinite()


def test_what_a_model_does_not_have_is_named():
    model, inputs, encoders = small(), pair(), {"a": nn.Linear(1, 1)}
    for call, message in (
        (lambda: MMVAE(MMVAEConfig(1), [*encoders.values()], encoders), "encoders must be {name: network}, not a list"),
        (lambda: MMVAE(MMVAEConfig(1), encoders, {"b": nn.Linear(1, 1)}), "decoders names"),
        (
            lambda: MMVAE(MMVAEConfig(1, uses_likelihood_rescaling=True), encoders, {"a": nn.Linear(10, 1)}),
            "needs input_dims, or rescale_factors",
        ),
        (lambda: model({"c": torch.zeros(2, 3)}), "unknown modality c"),
        (lambda: model(incomplete(inputs, A=torch.ones(4).bool())), "masks of unknown modalities: A; known: a, b"),
        (lambda: MultimodalBaseDataset({"a": torch.zeros(3), "b": torch.zeros(2)}), "same number of examples .got"),
        (
            lambda: IncompleteDataset({"a": torch.zeros(3)}, {"a": torch.ones(2).bool()}),
            "the mask of a needs the shape .3,., one value an example",
        ),
        (lambda: model.encode(inputs, ["c"]), "lack the modality c"),
        (lambda: model.encode(inputs, N=0), "positive|at least one"),
        (lambda: model.compute_joint_nll_paper(inputs, K=5, batch_size_K=0), "positive|at least one"),
        (lambda: model.decode(model.encode(inputs), "c"), r"the model has no p\(c\|z\)"),
        (lambda: model.decode([torch.zeros(2, 3)]), "with a tensor z, or a tensor .got a list"),
        (lambda: model.decode(ModelOutput(x=1)), "with a tensor z, or a tensor .got a ModelOutput"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(AttributeError, match="no nothing: there are z, one_latent_space"):
        _ = model.encode(inputs).nothing


def test_the_python_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "multivae_api" / "README.md").read_text(), re.DOTALL)
    names = {"x": torch.rand(3, 1, 28, 28), "y": torch.eye(10)[:3]}
    names["y"][0] = torch.nan
    exec(code, names)
    assert names["output"].loss.isfinite() and names["nll"].isfinite()
    assert names["z"].shape == (3, 5, 10) and names["predicted"].shape == (5, 3, 10)
    assert names["reconstructed"].image.shape == (3, 1, 28, 28) and names["generated"].shape == (16, 1, 28, 28)
    assert names["model"].model_config.K == 10
