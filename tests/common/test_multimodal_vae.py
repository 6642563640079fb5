import subprocess
import sys
from types import SimpleNamespace

from common import ROOT
from common.data import Batch
from common.errors import InputError
from common.execution.devices import run_in_bf16
from common.priors import ClusteredPrior, LearnedPrior
from common.variational_posteriors import DiagonalGaussianPosterior
from mnist.model import build
from tests.helpers.fusions import mask_of, subsets_of, with_fusion
from tests.helpers.linear_gaussian import draw, exact_posterior, linear_gaussian
from tests.helpers.private_latents import private_linear_gaussian

import pytest
import torch
from torch import nn


@pytest.mark.parametrize("fusion", ["poe", "quotient", "own", "private latents"])
def test_every_subsets_posterior_is_exact(fusion):
    """Whether it is named, or the others are left out; a batch may mix patterns, and is left as it was."""
    private = fusion == "private latents"
    model, weights, scales = private_linear_gaussian() if private else with_fusion(fusion, 3)
    patterns = [(), *subsets_of(tuple(weights))]
    inputs = draw(weights, scales, len(patterns))
    mask = mask_of(patterns, model.modalities)
    with_nan = {name: x.masked_fill(~mask[:, [m]], torch.nan) for m, (name, x) in enumerate(inputs.items())}
    untouched = {name: x.clone() for name, x in with_nan.items()}
    mixed = [model.posterior(given) for given in (with_nan, Batch(inputs, mask), Batch(inputs, mask, every_row=True))]
    for i, given in enumerate(patterns):
        mean, variance = torch.zeros(8, model.latent_dim).double(), torch.ones(8, model.latent_dim).double()
        if given:
            mean, variance = exact_posterior(weights, scales, inputs, given)
        left_out = [model.posterior({name: inputs[name] for name in given})] if given else []
        for q in (model.posterior(inputs, given), *left_out):
            torch.testing.assert_close((q.mean, q.variance), (mean, variance))
        for q in mixed:
            torch.testing.assert_close((q.mean[i], q.variance[i]), (mean[i], variance[i]))
    torch.testing.assert_close(with_nan, untouched, equal_nan=True)
    without_a_column = model.posterior(Batch({"a": inputs["a"]}, torch.ones(8, 3, dtype=torch.bool)))
    torch.testing.assert_close(without_a_column.mean, exact_posterior(weights, scales, inputs, ("a",))[0])
    assert model.posterior(inputs, ()).sample().shape == (8, model.latent_dim)


def test_bf16_networks_leave_densities_in_float32():
    model = build(SimpleNamespace(n_latents=8, model="mvae", posterior="gaussian"))
    x = torch.rand(4, 1, 28, 28)
    exact = model.posterior({"image": x}).mean
    for network in model.networks():
        run_in_bf16(network)
    q = model.posterior({"image": x})
    assert q.mean.dtype == torch.float32
    assert not q.mean.equal(exact), "the networks ran in another precision"
    torch.testing.assert_close(q.mean, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("fusion", ["product", "moe"])
@pytest.mark.parametrize("private", [False, True])
def test_an_example_without_any_given_modality_has_the_learned_prior(fusion, private):
    if private:
        model, *_ = private_linear_gaussian(fusion, learn_prior=True)
    else:
        model = with_fusion(fusion, 3)[0]
        model.prior = LearnedPrior(DiagonalGaussianPosterior(), model.latent_dim, learn_loc=True).double()
        nn.init.normal_(model.prior.loc)
    nn.init.normal_(model.prior.scale)
    sizes = {name: network.weight.shape[0] for name, network in model.decoder.items()}
    inputs = {name: torch.randn(2, n, dtype=torch.float64) for name, n in sizes.items()}
    inputs["a"][0] = torch.nan
    q, prior, alone = model.posterior(inputs, ("a",)), model.prior(), model.posterior({"a": inputs["a"][1:]})
    z = torch.randn(2, model.latent_dim, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z)[0], prior.log_prob(z[0]))
    torch.testing.assert_close(q.log_prob(z)[1], alone.log_prob(z[1:])[0])


def test_a_negative_integer_is_absent():
    model = build(SimpleNamespace(n_latents=8, model="mvae", posterior="gaussian"))
    x = torch.rand(2, 1, 28, 28)
    q = model.posterior({"image": x, "text": torch.tensor([3, -1])})
    torch.testing.assert_close(q.mean[1:], model.posterior({"image": x[1:]}).mean)
    assert not q.mean[:1].allclose(model.posterior({"image": x[:1]}).mean)


def test_a_single_row_has_the_running_statistics_of_batch_norm():
    model, weights, scales = linear_gaussian(2)
    norm = nn.BatchNorm1d(3).double()
    norm.running_mean += torch.tensor([1.0, 2.0, 3.0])
    model.encoder["a"] = nn.Sequential(norm, model.encoder["a"])
    one = {"a": draw(weights, scales, 1)["a"]}
    known = model.eval().posterior(one).mean
    torch.testing.assert_close(model.train().posterior(one).mean, known)
    assert norm.training and norm.num_batches_tracked == 0, "it trains on"


@pytest.mark.parametrize("prior", ["learned", "clustered"])
def test_a_model_generates_from_its_own_prior(prior):
    """Not from N(0, I): x has the mean W E z, and the covariance of W z."""
    model, weights, _ = with_fusion("product")
    if prior == "learned":
        model.prior = LearnedPrior(DiagonalGaussianPosterior(), 2, learn_loc=True).double()
        model.prior.loc.data, model.prior.scale.data = torch.tensor([[3.0, -4.0], [1.0, 2.0]]).double()
    else:
        model.prior = ClusteredPrior(DiagonalGaussianPosterior(), 2, 2, 2).double()
        model.prior.loc.data = torch.tensor([[5.0, 0.0], [7.0, -4.0]]).double()
    z, generated = model.prior(), model.generate(20_000)
    for name, w in weights.items():
        error = ((w.square() @ z.variance) / 20_000).sqrt()
        assert ((generated[name].mean(dim=0) - w @ z.mean).abs() < 5 * error).all()
    x = torch.cat([*generated.values()], dim=1) @ torch.linalg.pinv(torch.cat([*weights.values()])).T
    torch.testing.assert_close(x.var(dim=0), z.variance, rtol=0.1, atol=0)


def test_each_modality_can_be_decoded_from_its_own_latents():
    model, weights, _ = with_fusion("product")
    z = torch.randn(5, len(weights), 2, dtype=torch.float64)  # (B, M, D)
    own = model.draw_latents(5, SimpleNamespace(sample=lambda shape: z[: shape[0]]))
    assert tuple(own) == model.modalities
    decoded, generated = model.decode(own), model.generate(5, SimpleNamespace(sample=lambda shape: z))
    assert list(model.decode(own, model.modalities[1:])) == list(model.modalities[1:])
    for m, (name, w) in enumerate(weights.items()):
        torch.testing.assert_close(decoded[name].mean, z[:, m] @ w.T)
        torch.testing.assert_close(generated[name], z[:, m] @ w.T)


def test_unusable_inputs_are_named():
    model, weights, scales = linear_gaussian(2)
    inputs = draw(weights, scales, 3)
    refused = [
        (lambda: model.posterior(inputs, given="a"), r"name modalities in tuples: \('a',\), not 'a'"),
        (lambda: model.posterior({"a": inputs["a"]}, given=("b",)), "lack the modality b"),
        (lambda: model.reconstruct(inputs, given=()), "no modality is given: name at least one of a, b"),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()


def test_a_decoder_that_fails_alone_leaves_each_modules_mode():
    model = build(SimpleNamespace(n_latents=2, model="mvae", posterior="gaussian"))
    model.encoder["image"].eval()  # frozen by the caller
    modes = [module.training for module in model.modules()]
    assert model.decoded_once("image").batch_shape == (1,) and modes == [x.training for x in model.modules()]
    model.decoder["image"] = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        model.decoded_once("image")
    assert model.training and model.decoder["image"].training and not model.encoder["image"].training


def test_no_first_look_at_a_decoder_imports_the_compiler():
    """Which takes seconds; what is compiled already is run as it is written."""
    code = (
        "import sys; from types import SimpleNamespace; from mnist.model import build; "
        "build(SimpleNamespace(n_latents=2, model='mvae', posterior='gaussian')).decoded_once('image'); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
