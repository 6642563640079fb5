"""What MVAE's objective counts, and steps that a CUDA graph can hold. (Values: test_closed_forms.py.)"""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from common.data import Batch
from common.execution import decoder
from common.objectives import DregIwaeElbo, JmvaeElbo, MmvaeElbo, MvaeElbo, StandardElbo, TelboElbo
from mnist.model import build
from tests.helpers.captured import NoConstants
from tests.helpers.digits import mnist_inputs
from tests.helpers.linear_gaussian import draw, linear_gaussian
from tools.benchmarks.experiments import EXPERIMENTS


def test_names_of_random_subsets():
    model, weights, scales = linear_gaussian(3)
    inputs = draw(weights, scales, 6)
    objective = MvaeElbo(model, K=2)
    names = set(objective.bound(inputs).terms)
    assert {name.split("/")[0] for name in names} == {"a", "b", "c", "joint", "subset1", "subset2"}
    assert set(objective.bound(inputs).terms) == names, "whatever is drawn"
    drawn = torch.eye(3, dtype=torch.bool)[[0, 0, 1, 1]]  # as a random subset of a set may be a term of its own
    objective.subsets = lambda: drawn
    names = objective.terms(model.observe(inputs)).names
    assert names[:2] == ["a", "subset1"] and names[3] == "subset2"


def count_rows(module, counts, name):
    module.register_forward_hook(lambda _, args, __: counts.setdefault(name, []).append(len(args[0])))


def test_examples_that_count_jointly_only_leave_out_their_unimodal_elbos():
    model, weights, scales = linear_gaussian(3)
    inputs, names = draw(weights, scales, 4), ("a", "b", "c")
    mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False], [False, True, False]])
    together = torch.tensor([False, True, True, False])
    _, terms = MvaeElbo(model).bound(Batch(inputs, mask, together))
    scored = {name: terms[f"{name}/kl"].nonzero().squeeze(1).tolist() for name in (*names, "joint")}
    assert scored == {"a": [0], "b": [0, 3], "c": [0], "joint": [0, 1, 2]}
    for name in names:
        assert terms[f"{name}/{name}"].nonzero().squeeze(1).tolist() == scored[name]


@pytest.mark.parametrize(("fusion", "objective"), [("mvae", MvaeElbo), ("mopoe", MmvaeElbo)])
def test_what_is_computed_in_vain_changes_nothing(fusion, objective):
    """For a CUDA graph all rows are encoded and decoded, whatever the mask says and absent values are."""
    inputs, mask = mnist_inputs(3), torch.tensor([[True, True], [True, False], [False, True]])
    inputs["image"][2], inputs["text"][1] = torch.nan, -1
    counts, results = {}, []
    for every_row in (False, True):
        torch.manual_seed(0)
        model = build(SimpleNamespace(n_latents=4, model=fusion, posterior="gaussian")).double()
        for name in model.modalities:
            count_rows(model.encoder[name], counts, f"encoder {name}")
        loss, bound = objective(model).loss(Batch(inputs, mask, every_row=every_row), 0.7)
        loss.backward()
        results.append((bound.value, bound.terms, [p.grad for p in model.parameters()]))
    assert counts == {"encoder image": [2, 3], "encoder text": [2, 3]}
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("objective", [MvaeElbo, StandardElbo, lambda model: DregIwaeElbo(model, K=3)])
def test_a_step_that_is_captured_looks_at_no_value(objective, monkeypatch):
    """A CUDA graph cannot wait for one; tensors of the device "meta" have none."""
    monkeypatch.setitem(decoder.DECODED_AT_ONCE, "meta", 500)
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")).to("meta")
    goal = objective(model)
    inputs = {name: x.to("meta") for name, x in mnist_inputs().items()}
    inputs["image"] = inputs["image"].float()
    batch = Batch(inputs, torch.ones(5, 2, dtype=torch.bool, device="meta"))
    with pytest.raises(RuntimeError, match="meta tensors"):
        goal.backward(batch, 1.0, 5)
    goal.backward(replace(batch, every_row=True, observed={}), 1.0, 5)


@pytest.mark.parametrize("objective", [TelboElbo, JmvaeElbo])
def test_a_captured_step_of_models_with_a_joint_encoder_copies_nothing(objective):
    goal = objective(build(SimpleNamespace(n_latents=4, model="jmvae", posterior="gaussian")))
    assert goal.same_operations
    inputs = mnist_inputs()
    inputs["image"] = inputs["image"].float()
    with NoConstants():
        goal.backward(Batch(inputs, every_row=True), 0.5, len(inputs["text"]))


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name != "celeba19"])
def test_a_step_that_is_captured_copies_nothing_to_the_device(name):
    model = EXPERIMENTS[name].build()
    goal, batch = EXPERIMENTS[name].objective(model), replace(EXPERIMENTS[name].examples(2)[:], every_row=True)
    assert goal.same_operations
    with NoConstants():
        goal.backward(batch, 0.5, 2)
