"""What all objectives share: what they refuse, their defaults, which steps a CUDA graph can hold, what is scored."""

from functools import partial
from inspect import signature

from common.data import Batch
from common.errors import InputError
from common.models import VAE
from common.models.objectives import OBJECTIVES
from common.multimodal_vae import MultimodalVAE
from common.objectives import (
    ArElbo,
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

import pytest
import torch
from torch import nn


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
    (StandardElbo, "moe", "NAME needs a posterior that is not a mixture"),
    (MmvaeElbo, "poe", "NAME needs a mixture as posterior"),
    (ReweightedElbo, "mopoe", "needs a mixture with one expert for each modality: take MmvaeElbo"),
    (JnfElbo, "poe", "NAME needs a flow for each modality"),
    (EnergyIwaeElbo, "poe", "NAME needs an energy-based posterior"),
    (JmvaeElbo, of_fusion(posterior="ebm"), "NAME needs KLs in closed form"),
    (IwaeElbo, with_fusion("jnf")[0], "the bound needs a density in closed form"),
    (MvaeElbo, of_fusion("product", n_clusters=3), "NAME needs KLs to the prior"),
    (MmvaeElbo, of_fusion("moe", n_clusters=3), "NAME needs KLs to the prior in closed form"),
    (MmjsdElbo, private_linear_gaussian("moe")[0], "mmJSD needs Gaussian experts and prior, and no private latents"),
    (ArElbo, "moe", "mixtures, energy-based posteriors and flows have no KLs in closed form"),
    (ArElbo, own_without("a,b"), "the chain rule needs a posterior of every subset"),
    (partial(MvaeElbo, K=1), of_fusion(n=2), r"at least 3 modalities \(got 2\): leave out --approx-m"),
    (partial(MvaeElbo, K=-1), "poe", "must not be negative, it is -1"),
    (partial(MvaeElbo, weights={"img": 2.0}), "poe", "weights of unknown modalities: img"),
    (partial(IwaeElbo, K=0), "poe", "at least one sample, not 0"),
    (partial(EnergyIwaeElbo, K=1), of_fusion(posterior="ebm"), "takes two samples or more, not 1"),
    (partial(DregIwaeElbo, gradient="stop_all"), "poe", "one of exact, stop-all, published .got 'stop_all'"),
    (partial(MvtcaeElbo, alpha=1.1), "product", r"alpha \(--alpha\) must lie between 0 and 1, it is 1.1"),
    (partial(JmvaeElbo, alpha=-1), "poe", r"alpha \(--alpha\) must not be negative, it is -1"),
]


@pytest.mark.parametrize(("objective", "model", "message"), REFUSED)
def test_what_does_not_fit_is_refused(objective, model, message):
    model = of_fusion(model) if isinstance(model, str) else model
    inputs = draw(*linear_gaussian(len(model.modalities))[1:], 4)
    with pytest.raises(InputError, match=message.replace("NAME", getattr(objective, "__name__", ""))):
        objective(model).bound(inputs)


@pytest.mark.parametrize(("objective", "fusion"), [(JmvaeElbo, "own"), (TelboElbo, "own"), (JnfElbo, "jnf")])
def test_incomplete_examples_are_refused_however_they_lack_a_modality(objective, fusion):
    model, weights, scales = with_fusion(fusion)
    inputs, mask = draw(weights, scales, 4), torch.ones(4, 2, dtype=torch.bool)
    whole, mask[1, 1] = dict(inputs), False
    with_nan = inputs | {"b": inputs["b"].masked_fill(~mask[:, 1:], torch.nan)}
    for given in (with_nan, {"a": inputs["a"]}, Batch(whole, mask)):
        with pytest.raises(InputError, match=f"{objective.__name__} needs every modality of every example"):
            objective(model).bound(given)


def test_defaults_are_those_of_the_papers():
    assert JmvaeElbo(of_fusion()).alpha == 0.1 and MvtcaeElbo(of_fusion("product")).alpha == 5 / 6
    for objective in (IwaeElbo, StlElbo, DregIwaeElbo):
        assert (objective(of_fusion("moe")).K, objective(of_fusion("moe")).looser) == (1, False)
    assert EnergyIwaeElbo(of_fusion(posterior="ebm")).K == 2
    for form in {record.form for record in OBJECTIVES.values()}:
        for method in (form.forward, form.loss, form.bound):
            assert signature(method).parameters["beta"].default == 1


def test_an_objective_called_is_its_loss():
    goal, inputs = IwaeElbo(of_fusion(), K=2), draw(*linear_gaussian(3)[1:], 4)
    losses = []
    for call in (goal, lambda *args: goal.loss(*args)[0], lambda *args: -goal.bound(*args).value.mean()):
        torch.manual_seed(0)
        losses.append(call(inputs, 0.5))
    torch.testing.assert_close(losses[1:], losses[:1] * 2)


def test_steps_whose_operations_differ_are_not_captured():
    model = of_fusion()
    for objective in (StandardElbo(model), MvaeElbo(model, K=1), ArElbo(model), IwaeElbo(model, K=2)):
        assert objective.same_operations
    assert not StandardElbo(on_sphere()).same_operations, "rejection sampling takes as many draws as it needs"


def test_a_modality_without_a_decoder_is_given_and_not_scored():
    model, weights, scales = linear_gaussian(3)
    inputs, names = draw(weights, scales, 4), ("a", "c")
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
        for name in [name for name in scored if name.endswith("/b")]:
            assert (scored.pop(name) == 0).all()
        torch.testing.assert_close(scored, {name: whole[name] for name in scored})
