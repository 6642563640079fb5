"""What holds for every objective of every fusion and family: on the models of tests/golden, in float64."""

from collections import Counter
from types import SimpleNamespace

from common.data import Batch
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective
from common.objectives import EnergyIwaeElbo
from tests.golden.test_objectives import ALL_SHARED, COMPLETE, N_FEATURES, WITH_PRIVATE, exists, model_of, variants
from tests.helpers.fusions import mask_of, subsets_of

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

LAMBDAS, ALPHA = {"a": 2.0, "b": 0.5, "c": 0.7}, 0.3
OPTIONS = {"K": 3, "looser": False, "dreg": None, "approx_m": 0, "alpha": ALPHA}
WEIGHTED = ("iwae", "dreg", "stl", "idmvae")


def cells(fusion):
    """(family, private latents or not, objective) that exist for a fusion."""
    return [
        (family, private, obj)
        for family, record in FAMILIES.items()
        for private in ((False, True) if record.private_latents and fusion in WITH_PRIVATE else (False,))
        for obj in OBJECTIVES
        if exists(fusion, record, obj) and not (private and obj in ALL_SHARED)
    ]


def objective_of(obj, model, **options):
    weights = {name: LAMBDAS[name] for name in model.modalities}
    return make_objective(obj, model, SimpleNamespace(**OPTIONS | options), weights)


def inputs_of(model, n):
    generator = torch.Generator().manual_seed(5)
    return {name: torch.rand(n, N_FEATURES, generator=generator, dtype=torch.float64) for name in model.modalities}


def bound_and_gradients(objective, inputs, beta=0.7):
    torch.manual_seed(0)
    objective.zero_grad()
    loss, bound = objective.loss(inputs, beta)
    if loss.requires_grad:
        loss.backward()
    return *bound.detach(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in objective.parameters()]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_has_one_finite_gradient(fusion):
    """With every pattern of modalities, and those that an objective needs; a second part would be added up twice."""
    for family, private, obj in cells(fusion):
        model = model_of(fusion, family, private)
        patterns = [model.modalities] * 3 if obj in COMPLETE else subsets_of(model.modalities)
        batch = Batch(inputs_of(model, len(patterns)), mask_of(patterns, model.modalities))
        for options in variants(obj, fusion).values():
            objective, additions = objective_of(obj, model, **options), Counter()
            objective.zero_grad()
            parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
            hooks = [
                p.register_post_accumulate_grad_hook(lambda p, name=name: additions.update([name]))  # noqa: B023
                for name, p in parameters.items()
            ]
            loss, _ = objective.loss(batch, 0.7)
            loss.backward()
            for hook in hooks:
                hook.remove()
            assert additions == Counter([*parameters]), (family, obj)
            for name, p in parameters.items():
                assert p.grad.isfinite().all() and p.grad.any(), (family, obj, name)


def coefficient(objective, obj, term, beta):
    """What a term counts in the bound."""
    m, kind = len(objective.model.modalities), term.split("/")[1]
    if obj == "mvtcae":
        parts = {"kl": -beta * (1 - ALPHA), "kl from joint": -beta * ALPHA / m}
        return parts.get(kind) or (m - ALPHA) / m * objective.weights[kind]
    if obj == "crmvae":
        return -beta / (m + 1) if kind.startswith("kl") else objective.weights[kind] / (2 * (m + 1))
    if obj.startswith("mmvm") and kind.startswith("kl"):
        return -beta * (ALPHA if kind == "kl" else 1 - ALPHA)
    parts = {"kl": -beta, "kl from joint": -1 if obj == "jnf" else -ALPHA}
    return parts[kind] if kind in parts else objective.weights[kind]


@pytest.mark.parametrize("fusion", FUSIONS)
@given(st.data())
def test_terms_add_up_and_absence_is_a_mask_or_nan_or_nothing_at_all(fusion, data):
    family, private, obj = data.draw(st.sampled_from(cells(fusion)))
    model, options = model_of(fusion, family, private), data.draw(st.sampled_from([*variants(obj, fusion).values()]))
    names = model.modalities
    rows = st.just(names) if obj in COMPLETE else st.sampled_from([(), *subsets_of(names)])
    patterns = data.draw(st.lists(rows, min_size=2, max_size=5))
    if obj not in COMPLETE:
        patterns = [*patterns, names[:1]]
    absent = [name for name in names if not any(name in pattern for pattern in patterns)]
    inputs, mask = inputs_of(model, len(patterns)), mask_of(patterns, names)
    with_nan = {name: x.masked_fill(~mask[:, [names.index(name)]], torch.nan) for name, x in inputs.items()}
    left_out = {name: x for name, x in with_nan.items() if name not in absent}
    objective = objective_of(obj, model, **options)
    expected = bound_and_gradients(objective, Batch(inputs, mask))
    for given_as in (with_nan, left_out):
        torch.testing.assert_close(bound_and_gradients(objective, given_as), expected, rtol=1e-10, atol=1e-10)
    value, terms, _ = expected
    for i, pattern in enumerate(patterns):
        scored = {name.split("/")[1] for name, term in terms.items() if term[i] != 0}
        assert scored - {"kl", "kl from joint", "kl between"} == {*pattern}, "what an example lacks counts nothing"
        assert pattern or (value[i] == 0 and not scored)
    if obj in WEIGHTED and isinstance(objective, EnergyIwaeElbo):
        return  # it has two samples or more
    if obj in WEIGHTED:
        value, terms, _ = bound_and_gradients(objective_of(obj, model, K=1, looser=True), with_nan)
    total = sum(coefficient(objective, obj, name, 0.7) * term for name, term in terms.items())
    torch.testing.assert_close(value, total, rtol=1e-10, atol=1e-10)
