"""Every objective of every fusion and family: fast execution has the values and gradients of the shortest way."""

from types import SimpleNamespace

from common.data import Batch
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, StackedDecoder, StackedLinear
from common.execution import weighted
from common.execution.score import DECODED_AT_ONCE
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective
from common.objectives import DregIwaeElbo, IwaeElbo, MmvaeElbo, MultimodalObjective, MvaeElbo
from tests.golden.test_objectives import (
    ALL_SHARED,
    COMPLETE,
    LAMBDAS,
    WITH_PRIVATE,
    exists,
    inputs_of,
    model_of,
    variants,
)
from tests.helpers.plain_score import score_plainly

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

N, B, D, WIDTH = 3, 7, 2, 4


@pytest.fixture(autouse=True)
def in_small_parts(monkeypatch):
    """Decode few samples at a time, and again those that count, wherever that is possible."""
    monkeypatch.setattr("common.execution.score.FEW", 0)
    monkeypatch.setitem(DECODED_AT_ONCE, "cpu", 4)
    monkeypatch.setattr(weighted, "MAX_SHARE", 1)


def assert_agrees(make, model, inputs, beta=0.7):
    """The loss, the bound, its terms and all gradients are the same; several backward passes are tried."""

    def run(name):
        objective = make()
        torch.manual_seed(0)
        model.zero_grad()
        if name == "loss":
            loss, bound = objective.loss(inputs, beta)
            loss.backward()
        else:
            bound = objective.backward(inputs, beta, len(bound_of_all))
        return bound.detach(), [p.grad for p in model.parameters()]

    bound_of_all = next(iter(inputs.modalities.values() if isinstance(inputs, Batch) else inputs.values()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MultimodalObjective, "score", staticmethod(score_plainly))
        expected = run("loss")
    for found in (run("loss"), run("backward")):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_objectives_of_a_fusion(fusion):
    for family, record in FAMILIES.items():
        for private in (False, True) if record.private_latents and fusion in WITH_PRIVATE else (False,):
            for obj in (
                obj for obj in OBJECTIVES if exists(fusion, record, obj) and not (private and obj in ALL_SHARED)
            ):
                model = model_of(fusion, family, private)
                weights = {name: weight for name, weight in LAMBDAS.items() if name in model.modalities}
                for options in variants(obj, fusion).values():
                    given = {"K": 3, "looser": False, "dreg": None, "approx_m": 0, "alpha": 0.3} | options
                    assert_agrees(
                        lambda: make_objective(obj, model, SimpleNamespace(**given), weights),  # noqa: B023
                        model,
                        inputs_of(model, obj in COMPLETE),
                    )


@pytest.mark.parametrize("layout", ["set", "stack", "joint decoder", "given"])
@given(st.sampled_from([MvaeElbo, MmvaeElbo, IwaeElbo, DregIwaeElbo]), st.floats(0.2, 1.2), st.booleans())
def test_layouts_of_networks_and_masks(layout, objective, share, missing):
    torch.manual_seed(0)  # of each example, so that Hypothesis can repeat it
    model, x, names = model_with(layout, "moe" if objective in (MmvaeElbo, DregIwaeElbo) else "poe")
    mask = torch.rand(B, N) <= share
    mask[0] = True
    if missing:
        holes = [name for name in x if (layout, name) != ("given", "b")]  # a decoder sees b, which lacks nothing
        x |= {name: x[name].masked_fill(torch.rand(x[name].shape) < 0.4, torch.nan) for name in holes}
    options = {"K": 3} if objective in (IwaeElbo, DregIwaeElbo) else {}
    assert_agrees(lambda: objective(model, weights=dict.fromkeys(names, 2.0), **options), model, Batch(x, mask))


def model_with(layout, fusion):
    """A model of three modalities, or of a set of three, in float64; and values."""
    names = ["x"] if layout == "set" else ["a", "b", "c"]
    likelihood = GroupedLikelihood(**{name: SphericalGaussianLikelihood(0.5) for name in names})
    encoder = {name: SplitLinearLayer(WIDTH, (D, D)) for name in names}
    x = {name: torch.randn(B, WIDTH).double() for name in names}
    if layout == "set":
        encoder = {"x": SharedNetwork(N, nn.Linear(WIDTH, 5), SplitLinearLayer(5, (D, D)))}
        decoders = {"x": SharedNetwork(N, nn.Linear(D, 5), nn.Linear(5, WIDTH))}
        x = {"x": torch.randn(B, N, WIDTH).double()}
    elif layout == "stack":
        decoders = {"a": nn.Linear(D, WIDTH), "b,c": StackedDecoder(StackedLinear(2, D, WIDTH))}
    elif layout == "joint decoder":
        decoders = {"a": nn.Linear(D, WIDTH), "b,c": SplitLinearLayer(D, (WIDTH, WIDTH))}
    else:
        decoders = {"a|b": Given(D + WIDTH, WIDTH), "b": nn.Linear(D, WIDTH), "c": nn.Linear(D, WIDTH)}
    return VAE(fusion, encoder, decoders, likelihood, D).double(), x, names


class Given(nn.Linear):
    """A decoder of p(a|z, b)."""

    def forward(self, z, b):
        return super().forward(torch.cat([z, b], dim=1))
