from common.data import Examples, observe, unpair
from common.data.batches import columns_of
from common.errors import InputError

import numpy as np
import pytest
import torch


def test_batches_cover_the_examples_in_order_and_scale_images():
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    examples = Examples({"image": order.byte()[:, None], "text": order})
    batches = list(examples.batches(4))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert torch.cat([b.modalities["text"] for b in batches]).equal(order)
    torch.testing.assert_close(torch.cat([b.modalities["image"] for b in batches]).squeeze(1), order / 255)


@pytest.mark.parametrize(
    ("modalities", "mask", "message"),
    [
        ({"a": torch.zeros(3), "b": torch.zeros(4)}, None, r"the same number of examples \(got {'a': 3, 'b': 4}\)"),
        ({"a": np.zeros(3)}, None, "must be tensors, these are not: {'a': 'ndarray'}"),
        ({"a": torch.zeros(3)}, torch.ones(3, 1), "a mask must be a tensor of bool, not torch.float32"),
        ({"a": torch.zeros(3)}, torch.ones(2, 1).bool(), "a mask needs a row for each of 3 examples, not 2"),
    ],
)
def test_tensors_that_are_no_examples_are_refused(modalities, mask, message):
    with pytest.raises(InputError, match=message):
        Examples(modalities, mask=mask)


def test_labels_are_left_out_and_derived_modalities_stay():
    x = torch.ones(3)
    examples = Examples({"a": x, "label": x}, derived={"twice": ("a", lambda x: 2 * x)})
    chosen = examples.only(("a", "twice"))
    assert {name: x.tolist() for name, x in chosen[:].modalities.items()} == {"a": [1.0] * 3, "twice": [2.0] * 3}
    assert chosen.only(("a", "twice", "other")) is chosen and set(chosen.only(("a",))[:].modalities) == {"a"}
    with pytest.raises(InputError, match="twice is derived: also name a"):
        examples.only(("twice",))
    replaced = Examples({"a": x, "b": x}, derived={"a": ("a", torch.neg), "b": ("a", torch.neg)})
    assert replaced.only(("b",))[:].modalities["b"].equal(x) and replaced.only(("a",))[:].modalities["a"].equal(-x)
    with pytest.raises(InputError, match="examples with a mask keep all modalities"):
        Examples({"a": x, "b": x}, mask=torch.ones(3, 2, dtype=torch.bool)).only(["a"])


def test_absence_becomes_a_mask_and_callers_tensors_stay():
    a, b = torch.tensor([[torch.nan, torch.nan], [2.0, 3.0], [1.0, torch.nan]]), torch.tensor([4, -1, 2])
    batch = observe({"a": a, "b": b}, columns_of(dict.fromkeys("abc")))
    assert batch.mask.tolist() == [[False, True, False], [True, False, False], [True, True, False]]
    assert batch.modalities["a"].tolist() == [[0, 0], [2, 3], [1, 0]]
    assert batch.observed["a"][1:].tolist() == [[True, True], [True, False]] and list(batch.observed) == ["a"]
    assert a.isnan().sum() == 3 and b.tolist() == [4, -1, 2]
    assert observe(batch, columns_of(dict.fromkeys("abc"))).observed is batch.observed
    assert observe({"a": a[1:2], "b": b[:1]}, columns_of(dict.fromkeys("ab"))).mask is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no modality given: give at least one of a, b"),
        ({"a": torch.zeros(0, 2)}, "the batch is empty: give at least one example"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "need the same number of examples"),
        ({"a": torch.zeros(2), "c": torch.zeros(2)}, "unknown modality c: the model has a, b"),
        (Examples({"a": torch.zeros(2)}), "give a batch or tensors by name, not Examples: .* makes one"),
        ({"a": np.zeros(2)}, "must be tensors, these are not: {'a': 'ndarray'}"),
        ({"a": torch.nested.nested_tensor([torch.zeros(2)] * 2, layout=torch.jagged)}, "are not: {'a': 'nested'}"),
    ],
)
def test_inputs_that_are_no_batch_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        observe(inputs, columns_of(dict.fromkeys("ab")))


def test_a_string_does_not_name_its_letters():
    with pytest.raises(InputError, match=r"name modalities in tuples: \('ab',\), not 'ab'"):
        Examples({"a": torch.zeros(2), "b": torch.zeros(2)}).only("ab")


def test_modalities_are_derived_as_they_are_needed():
    x = torch.arange(12, dtype=torch.uint8).view(6, 2)
    examples = Examples({"a": x, "b": x}, mask=torch.ones(6, 3).bool(), derived={"c": ("a", lambda a: 2 * a)})
    for some in (examples, examples.take(torch.tensor([3, 1])), examples.to(torch.device("cpu"))):
        batch = some[:].modalities
        assert list(batch) == ["a", "b", "c"] and batch["c"].equal(2 * batch["a"])
    assert unpair(examples, 0.5, seed=0)[:].modalities["c"].shape == (24, 2), "three rows alone and one together"
