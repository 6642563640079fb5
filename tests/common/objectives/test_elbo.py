"""What MVAE's objective counts, and steps that a CUDA graph can hold. (Values: test_closed_forms.py.)"""

from types import SimpleNamespace

from common.data import Batch
from common.objectives import MmvaeElbo, MvaeElbo
from mnist.model import build
from tests.helpers.digits import mnist_inputs
from tests.helpers.linear_gaussian import draw, linear_gaussian

import pytest
import torch
from torch import nn


def test_names_of_random_subsets():
    model, weights, scales = linear_gaussian(3)
    inputs = draw(weights, scales, 6)
    objective = MvaeElbo(model, K=2)
    names = set(objective.bound(inputs).terms)
    assert {name.split("/")[0] for name in names} == {"a", "b", "c", "joint", "subset1", "subset2"}
    assert set(objective.bound(inputs).terms) == names, "whatever is drawn"


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


@pytest.mark.parametrize("observed", [None, {}])
@pytest.mark.parametrize(("fusion", "objective"), [("mvae", MvaeElbo), ("mopoe", MmvaeElbo)])
def test_what_is_computed_in_vain_changes_nothing(fusion, objective, observed):
    """For a CUDA graph all rows are encoded and decoded, whatever the mask says and absent values are."""
    inputs, mask = mnist_inputs(3), torch.tensor([[True, True], [True, False], [False, True]])
    inputs["image"][2], inputs["text"][1] = torch.nan, -1
    counts, results = {}, []
    for every_row in (False, True):
        torch.manual_seed(0)
        model = build(SimpleNamespace(n_latents=4, model=fusion, posterior="gaussian")).double()
        for name in model.modalities:
            count_rows(model.encoder[name], counts, f"encoder {name}")
        loss, bound = objective(model).loss(Batch(inputs, mask, every_row=every_row, observed=observed), 0.7)
        loss.backward()
        results.append((bound.value, bound.terms, [p.grad for p in model.parameters()]))
    assert counts == {"encoder image": [2, 3], "encoder text": [2, 3]}
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("has_batch_norm", [False, True])
@pytest.mark.parametrize("complete", [True, False])
def test_random_subsets_of_a_captured_step_have_the_values_of_others(has_batch_norm, complete):
    """All modalities are decoded, and those outside the subset change neither gradients nor running statistics."""
    inputs, found = draw(*linear_gaussian(3)[1:], 6), []
    for every_row in (False, True):
        model, _, _ = linear_gaussian(3)
        torch.manual_seed(0)
        if has_batch_norm:
            model.decoder["a"] = nn.Sequential(model.decoder["a"], nn.BatchNorm1d(3).double())
        mask = None if complete or has_batch_norm else torch.tensor([[True] * 3, [True, True, False]] * 3)
        objective = MvaeElbo(model, K=4, weights={"a": 0.3}).train()
        bound = objective.backward(Batch(inputs, mask, every_row=every_row), 0.7, 6)
        gradients = [p.grad for p in model.parameters()]
        statistics = dict(model.named_buffers())
        found.append((bound.value, gradients, {n: x for n, x in statistics.items() if "running" in n}))
    torch.testing.assert_close(*found)


def test_weights_are_read_at_each_call_and_after_calls_without_gradients():
    class Authors(MvaeElbo):
        def weight(self, name, subset):
            return self.weights[name] if subset == "joint" else 1.0

    model, weights, scales = linear_gaussian(3)
    inputs, objective, found = draw(weights, scales, 4), Authors(model), []
    with torch.inference_mode():
        objective.bound(inputs)
    for lambda_ in (1.0, 0.0):
        objective.weights["a"] = lambda_
        torch.manual_seed(0)
        found.append(objective.bound(inputs))
        objective(inputs).backward()
    torch.testing.assert_close(found[0].value - found[1].value, found[0].terms["joint/a"])
