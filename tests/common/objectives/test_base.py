"""What all objectives share: what they refuse, their defaults, which steps a CUDA graph can hold, what is scored."""

from functools import partial

import pytest
import torch
from torch import nn

from common.data import Batch
from common.errors import InputError
from common.models import VAE
from common.multimodal_vae import MultimodalVAE
from common.objectives import (
    ArElbo,
    CrmvaeElbo,
    DmvaeElbo,
    DregIwaeElbo,
    EnergyIwaeElbo,
    IwaeElbo,
    JmvaeElbo,
    JnfElbo,
    MmjsdElbo,
    MmvaeElbo,
    MvaeElbo,
    MvtcaeElbo,
    ReweightedElbo,
    StandardElbo,
    StlElbo,
    TelboElbo,
)
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import D, draw, linear_gaussian
from tests.helpers.private_latents import private_linear_gaussian


def of_fusion(fusion="poe", n=3, **options):
    exact, _, _ = linear_gaussian(n)
    return VAE(fusion, dict(exact.encoder), dict(exact.decoder), exact.likelihood, latent_dim=D, **options).double()


class Tupled(nn.Module):
    def forward(self, x):
        return (x,)


def on_sphere():
    encoder = {name: nn.Sequential(nn.Linear(3, D), Tupled()) for name in "ab"}
    decoder = {name: nn.Linear(D, 3) for name in "ab"}
    return VAE("poe", encoder, decoder, linear_gaussian(2)[0].likelihood, latent_dim=D, posterior="vmf")


def own_without(key):
    model, *_ = with_fusion("own", 3)
    encoder = {name: network for name, network in model.encoder.items() if name != key}
    return VAE("own", encoder, dict(model.decoder), model.likelihood, latent_dim=D)


REFUSED = [  # an objective, the model, and why they do not fit; `NAME` is the objective's class
    *((elbo, "moe", "NAME needs a posterior that is not a mixture") for elbo in (StandardElbo, JmvaeElbo, MvtcaeElbo)),
    *((elbo, "poe", "NAME needs a mixture as posterior") for elbo in (MmvaeElbo, MmjsdElbo, ReweightedElbo)),
    (ReweightedElbo, "mopoe", "needs a mixture with one expert for each modality: take MmvaeElbo"),
    (JnfElbo, "poe", "NAME needs a flow for each modality"),
    (EnergyIwaeElbo, "poe", "NAME needs an energy-based posterior"),
    (JmvaeElbo, of_fusion(posterior="ebm"), "NAME needs KLs in closed form"),
    (StandardElbo, with_fusion("jnf")[0], "NAME needs KLs in closed form, which flows do not have"),
    (IwaeElbo, with_fusion("jnf")[0], "the bound needs a density in closed form"),
    (IwaeElbo, of_fusion(posterior="ebm"), "the bound needs a density in closed form"),
    *((elbo, of_fusion("product", n_clusters=3), "NAME needs KLs to the prior") for elbo in (MvaeElbo, MvtcaeElbo)),
    (MmvaeElbo, of_fusion("moe", n_clusters=3), "NAME needs KLs to the prior in closed form"),
    (MmjsdElbo, private_linear_gaussian("moe")[0], "mmJSD needs Gaussian experts and prior, and no private latents"),
    (MmjsdElbo, of_fusion("moe", posterior="laplace"), "mmJSD needs Gaussian experts"),
    (ArElbo, "moe", "mixtures, energy-based posteriors and flows have no KLs in closed form"),
    (ArElbo, of_fusion(posterior="ebm"), "mixtures, energy-based posteriors and flows have no KLs in closed form"),
    (ArElbo, own_without("a,b"), "the chain rule needs a posterior of every subset"),
    (partial(MvaeElbo, K=1), of_fusion(n=2), r"at least 3 modalities \(got 2\): leave out --approx-m"),
    (partial(MvaeElbo, K=-1), "poe", "must not be negative, it is -1"),
    (partial(MvaeElbo, weights={"img": 2.0}), "poe", "weights of unknown modalities: img"),
    (partial(IwaeElbo, K=0), "poe", "at least one sample, not 0"),
    (partial(EnergyIwaeElbo, K=1), of_fusion(posterior="ebm"), "takes two samples or more, not 1"),
    (partial(DregIwaeElbo, gradient="stop_all"), "poe", "one of exact, stop-all, published .got 'stop_all'"),
    (partial(MvtcaeElbo, alpha=1.1), "product", r"alpha \(--alpha\) must lie between 0 and 1, it is 1.1"),
    (partial(JmvaeElbo, alpha=-1), "poe", r"alpha \(--alpha\) must not be negative, it is -1"),
    *((elbo, with_fusion("own")[0], "NAME needs every modality of every example") for elbo in (JmvaeElbo, TelboElbo)),
    (JnfElbo, with_fusion("jnf")[0], "NAME needs every modality of every example"),
]


@pytest.mark.parametrize(("objective", "model", "message"), REFUSED)
def test_what_does_not_fit_is_refused(objective, model, message):
    name = getattr(objective, "__name__", "")
    model = of_fusion(model) if isinstance(model, str) else model
    inputs = draw(*linear_gaussian(len(model.modalities))[1:], 4)
    whole, mask = dict(inputs), torch.ones(4, len(inputs), dtype=torch.bool)
    inputs["b"][1], mask[1, 1] = torch.nan, False
    left_out = {key: x for key, x in inputs.items() if key != "b"}
    for given in (inputs, left_out, Batch(whole, mask)):
        with pytest.raises(InputError, match=message.replace("NAME", name)):
            objective(model).bound(given)


def test_defaults_are_those_of_the_papers():
    assert JmvaeElbo(of_fusion()).alpha == 0.1 and MvtcaeElbo(of_fusion("product")).alpha == 5 / 6
    for objective in (IwaeElbo, StlElbo, DregIwaeElbo):
        assert (objective(of_fusion("moe")).K, objective(of_fusion("moe")).looser) == (1, False)
    assert EnergyIwaeElbo(of_fusion(posterior="ebm")).K == 2


BY_DEFAULT = {  # of an objective, the fusion
    StandardElbo: "poe",
    ArElbo: "poe",
    IwaeElbo: "poe",
    CrmvaeElbo: "product",
    MmvaeElbo: "moe",
    MmjsdElbo: "moe",
    ReweightedElbo: "moe",
    JnfElbo: "jnf",
    JmvaeElbo: "own",
}


@pytest.mark.parametrize("objective", BY_DEFAULT)
def test_beta_is_one_by_default(objective):
    goal, inputs = objective(with_fusion(BY_DEFAULT[objective], 3)[0]), draw(*linear_gaussian(3)[1:], 4)
    results = []
    for beta in ({}, {"beta": 1.0}, {"beta": 2.0}):
        torch.manual_seed(0)
        loss, bound = goal.loss(inputs, **beta)
        torch.manual_seed(0)
        results.append((loss, goal(inputs, **beta), bound.value, goal.bound(inputs, **beta).value))
    torch.testing.assert_close(results[0], results[1])
    assert all((a != b).any() for a, b in zip(results[0], results[2], strict=True))


def test_steps_whose_operations_differ_are_not_captured():
    model = of_fusion()
    for objective in (StandardElbo(model), MvaeElbo(model), IwaeElbo(model, K=2), TelboElbo(with_fusion("own")[0])):
        assert objective.same_operations
    assert not MvaeElbo(model, K=1).same_operations, "other subsets at each step"
    assert not ArElbo(model).same_operations, "another order at each step"
    assert not StandardElbo(on_sphere()).same_operations, "rejection sampling takes as many draws as it needs"


@pytest.mark.parametrize("without", ["a", "b", "c"])
def test_a_modality_without_a_decoder_is_given_and_not_scored(without):
    model, weights, scales = linear_gaussian(3)
    inputs, names = draw(weights, scales, 4), [name for name in "abc" if name != without]
    part = MultimodalVAE(
        encoder=dict(model.encoder),
        variational_strategy=model.variational_strategy,
        variational_posterior=model.variational_posterior,
        decoder={name: network for name, network in model.decoder.items() if name in names},
        likelihood=model.likelihood,
        prior=model.prior,
    )
    for objective, prefix in ((StandardElbo, "joint"), (ArElbo, "ar"), (DmvaeElbo, "joint")):
        results = []
        for each in (model, part):
            torch.manual_seed(0)
            results.append(objective(each).bound(inputs).terms)
        whole, scored = results
        assert {f"{prefix}/kl", *(f"{prefix}/{name}" for name in names)} <= set(scored)
        for name in [name for name in scored if name.endswith(f"/{without}")]:
            assert (scored.pop(name) == 0).all()
        torch.testing.assert_close(scored, {name: whole[name] for name in scored})
