"""What all objectives share: which steps a CUDA graph can hold, and log-likelihoods of what has a decoder."""

import pytest
import torch
from torch import nn

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


def of_fusion(fusion="poe", **options):
    exact, _, _ = linear_gaussian(3)
    return VAE(fusion, dict(exact.encoder), dict(exact.decoder), exact.likelihood, latent_dim=D, **options).double()


@pytest.mark.parametrize(
    ("objective", "fusion", "message"),
    [
        *((elbo, "moe", "needs a posterior that is not a mixture") for elbo in (StandardElbo, MvaeElbo, DmvaeElbo)),
        *((elbo, "mopoe", "needs a posterior that is not a mixture") for elbo in (TelboElbo, JmvaeElbo, MvtcaeElbo)),
        (MmvaeElbo, "poe", "needs a mixture"),
        (JnfElbo, "poe", "needs a flow for each modality"),
        (EnergyIwaeElbo, "poe", "needs an energy-based posterior"),
    ],
)
def test_posteriors_that_do_not_fit_are_refused(objective, fusion, message):
    with pytest.raises(InputError, match=f"{objective.__name__} {message}"):
        objective(of_fusion(fusion))


@pytest.mark.parametrize("objective", [JmvaeElbo, MvtcaeElbo, CrmvaeElbo])
def test_kls_without_a_closed_form_are_refused(objective):
    with pytest.raises(InputError, match=f"{objective.__name__} needs KLs in closed form"):
        objective(of_fusion(posterior="ebm"))


@pytest.mark.parametrize("objective", [StandardElbo, MvaeElbo])
def test_elbos_of_flows_are_refused(objective):
    with pytest.raises(InputError, match=f"{objective.__name__} needs KLs in closed form, which flows do not have"):
        objective(with_fusion("jnf")[0])


@pytest.mark.parametrize(("objective", "fusion"), [(MvaeElbo, "product"), (MvtcaeElbo, "product"), (MmvaeElbo, "moe")])
def test_kls_to_a_clustered_prior_are_refused(objective, fusion):
    model = of_fusion(fusion, n_clusters=3)
    with pytest.raises(InputError, match=f"{objective.__name__} needs KLs to the prior in closed form"):
        objective(model)
    assert IwaeElbo(model, K=2).bound(draw(*linear_gaussian(3)[1:], 4)).value.isfinite().all()


def test_steps_whose_operations_differ_are_not_captured():
    model = of_fusion()
    assert (
        StandardElbo(model).same_operations and MvaeElbo(model).same_operations and IwaeElbo(model, K=2).same_operations
    )
    assert not MvaeElbo(model, K=1).same_operations, "other subsets at each step"
    assert not ArElbo(model).same_operations, "another order at each step"
    on_sphere = VAE(
        "poe",
        {name: nn.Sequential(nn.Linear(3, D), Tupled()) for name in "ab"},
        {name: nn.Linear(D, 3) for name in "ab"},
        linear_gaussian(2)[0].likelihood,
        latent_dim=D,
        posterior="vmf",
    )
    assert not StandardElbo(on_sphere).same_operations, "rejection sampling takes as many draws as it needs"


class Tupled(nn.Module):
    def forward(self, x):
        return (x,)


FUSION = {MmvaeElbo: "moe", ReweightedElbo: "moe"}  # of others the product
OBJECTIVES = (StandardElbo, MvaeElbo, ArElbo, IwaeElbo, StlElbo, DregIwaeElbo, MmvaeElbo, ReweightedElbo)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_left_out_is_what_every_example_lacks(objective):
    goal, inputs = objective(of_fusion(FUSION.get(objective, "poe"))), draw(*linear_gaussian(3)[1:], 4)
    results = []
    for b in ({}, {"b": torch.full_like(inputs["b"], torch.nan)}):
        torch.manual_seed(0)
        value, terms = goal.bound({"a": inputs["a"], **b, "c": inputs["c"]})
        results.append((value, terms))
        assert all((term == 0).all() for name, term in terms.items() if name.endswith("/b"))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_beta_is_one_by_default(objective):
    goal, inputs = objective(of_fusion(FUSION.get(objective, "poe"))), draw(*linear_gaussian(3)[1:], 4)
    results = []
    for beta in ({}, {"beta": 1.0}, {"beta": 2.0}):
        torch.manual_seed(0)
        loss, bound = goal.loss(inputs, **beta)
        torch.manual_seed(0)
        results.append((loss, goal(inputs, **beta), bound.value, goal.bound(inputs, **beta).value))
    torch.testing.assert_close(results[0], results[1])
    assert all((a != b).any() for a, b in zip(results[0], results[2], strict=True))


@pytest.mark.parametrize("without", ["a", "b", "c"])
def test_a_modality_without_a_decoder_is_given_and_not_scored(without):
    model, weights, scales = linear_gaussian(3)
    inputs, names = draw(weights, scales, 4), [name for name in "abc" if name != without]
    decoder = {name: network for name, network in model.decoder.items() if name in names}
    part = MultimodalVAE(
        encoder=dict(model.encoder),
        variational_strategy=model.variational_strategy,
        variational_posterior=model.variational_posterior,
        decoder=decoder,
        likelihood=model.likelihood,
        prior=model.prior,
    )
    for objective, prefix in ((StandardElbo, "joint"), (ArElbo, "ar")):
        results = []
        for each in (model, part):
            torch.manual_seed(0)
            results.append(objective(each).bound(inputs).terms)
        whole, scored = results
        assert {f"{prefix}/kl", *(f"{prefix}/{name}" for name in names)} <= set(scored)
        assert f"{prefix}/{without}" not in scored or (scored.pop(f"{prefix}/{without}") == 0).all()
        torch.testing.assert_close(scored, {name: whole[name] for name in scored})
