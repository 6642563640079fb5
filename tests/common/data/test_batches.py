from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.data import Examples, draw_paired, hold_out, observe, unpair
from common.data.batches import columns_of
from common.errors import InputError
from common.objectives import MvaeElbo, StandardElbo
from mnist.model import build


def test_batches_cover_the_examples_in_order_and_scale_images():
    examples = Examples({"image": torch.arange(10, dtype=torch.uint8)[:, None], "text": torch.arange(10)})
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    batches = list(examples.batches(4, order))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert torch.cat([b.modalities["text"] for b in batches]).equal(order)
    torch.testing.assert_close(torch.cat([b.modalities["image"] for b in batches]).squeeze(1), order / 255)


def test_the_last_examples_are_held_out():
    examples = Examples({"text": torch.arange(60)})
    for n, expected in ((None, 10), (5, 5)):
        train, valid = hold_out(examples, n)
        assert len(valid) == expected
        assert torch.cat([train.modalities["text"], valid.modalities["text"]]).equal(torch.arange(60))
    assert hold_out(examples, 0)[1] is None
    with pytest.raises(InputError, match="--valid 60 leaves no training example"):
        hold_out(examples, 60)


def test_unpaired_examples_become_rows_of_one_modality():
    n = 1000
    examples = Examples({"a": torch.arange(n).float(), "b": torch.arange(n)})
    unpaired = unpair(examples, 0.1, seed=0)
    assert len(unpaired) == n
    rows = unpaired[torch.randperm(n)]
    assert len(rows) == 3 * n
    a, b = rows.mask.unbind(dim=1)
    both = a & b
    assert both.equal(rows.joint_only), "what a pair says of each modality alone, other rows say"
    paired = draw_paired(examples, 0.1, seed=0)
    assert len(paired.unique()) == 100
    assert rows.modalities["b"][both].sort().values.equal(paired.repeat(10).sort().values)
    assert rows.modalities["a"][both].equal(rows.modalities["b"][both].float()), "pairs stay pairs"
    for name, present in (("a", a), ("b", b)):
        alone = rows.modalities[name][present & ~both].long()
        assert alone.sort().values.equal(torch.arange(n)), "nothing lost, nothing twice"
    assert unpaired.modalities["a"] is examples.modalities["a"], "nothing is copied"
    assert unpaired.take(slice(5))[1:].mask.tolist() == 4 * [[True, True], [True, False], [False, True]]
    assert unpair(examples, 1.0, seed=0).mask is None
    assert unpair(examples, 0.9999, seed=0).mask is None, "no example is left unpaired"


def test_a_fraction_of_less_than_a_pair_is_refused():
    examples = Examples({"a": torch.arange(40.0), "b": torch.arange(40)})
    assert len(draw_paired(examples, 0, seed=0)) == 0 and len(draw_paired(examples, 0.025, seed=0)) == 1
    with pytest.raises(InputError, match="fraction 0.01 leaves no pair of 40 examples: give 0.025 or more, or 0"):
        draw_paired(examples, 0.01, seed=0)


@pytest.mark.parametrize(
    ("n", "fraction", "times"), [(10, 0.3, [3, 3, 4]), (10, 0.4, [2, 2, 3, 3]), (7, 0.6, [1, 2, 2, 2])]
)
def test_pairs_are_repeated_in_turn(n, fraction, times):
    """Where the fraction does not divide, some pairs are used once more than the others, and none is left out."""
    examples = Examples({"a": torch.arange(n), "b": torch.arange(n)})
    batch = unpair(examples, fraction, seed=0)[:]
    assert batch.modalities["a"][batch.joint_only].unique(return_counts=True)[1].sort().values.tolist() == times


def test_what_is_paired_counts_alone_only_where_the_objective_says_so():
    examples = Examples({"a": torch.arange(10.0), "b": torch.arange(10)})
    paired = draw_paired(examples, 0.5, seed=0)
    mask = unpair(examples, 0.5, seed=0, unimodal=False).mask  # (10, 3, 2)
    assert mask[:, 0].all()
    for i in range(10):
        assert mask[i, 1:].tolist() == (2 * [[False, False]] if i in paired else [[True, False], [False, True]])


def test_unpaired_rows_of_a_part_of_the_data():
    rows = {"a": torch.tensor([7, 8, 9]), "b": torch.tensor([0, 1, 2])}
    part = Examples({"a": torch.arange(10.0), "b": torch.arange(3)}, rows)
    assert len(part) == 3 and part[1:].modalities["a"].tolist() == [8, 9]
    batch = unpair(part, 0.4, seed=0)[torch.arange(3)]
    assert set(batch.modalities["b"].tolist()) == {0, 1, 2}
    assert batch.modalities["a"].equal(7.0 + batch.modalities["b"])
    taken = part.take(slice(2)).only(("b",))
    assert len(taken) == 2 and taken[:].modalities["b"].tolist() == [0, 1]


def test_only_some_modalities_keep_what_is_derived_of_them():
    derived = {"twice": ("a", lambda x: 2 * x), "a": ("a", torch.neg), "b": ("a", torch.neg)}
    examples = Examples({"a": torch.ones(3), "b": torch.zeros(3)}, derived=derived)
    assert {name: x.tolist() for name, x in examples.only(["a"])[:].modalities.items()} == {"a": [-1.0] * 3}
    assert {name: x.tolist() for name, x in examples.only(["b"])[:].modalities.items()} == {"b": [0.0] * 3}
    with pytest.raises(InputError, match="examples with a mask keep all modalities"):
        Examples({"a": torch.ones(3), "b": torch.zeros(3)}, mask=torch.ones(3, 2, dtype=torch.bool)).only(["a"])


def test_a_weakly_supervised_objective_is_the_one_that_was_named():
    """The weights of its terms, told by KLs of examples that are all the same."""
    torch.manual_seed(0)
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")).double()
    image, text = torch.rand(1, 1, 28, 28, dtype=torch.float64), torch.tensor([3])
    examples = Examples({"image": image.expand(10, -1, -1, -1), "text": text.expand(10)})
    for objective in (StandardElbo(model), MvaeElbo(model)):
        batch = unpair(examples, 0.5, seed=0, unimodal=objective.unimodal)[torch.arange(10)]
        weak, whole = objective.bound(batch).terms, objective.bound(examples[:]).terms
        share = {name: (weak[name].sum() / whole[name].sum()).item() for name in whole if name.endswith("/kl")}
        if objective.unimodal:
            expected = {"joint/kl": 1, "image/kl": 1, "text/kl": 1}
        else:  # the unpaired half contributes its unimodal ELBOs as the joint ones of what it has
            alone = MvaeElbo(model).bound(examples[:]).terms
            unpaired = (alone["image/kl"].sum() + alone["text/kl"].sum()) / 2
            expected = {"joint/kl": 1 + (unpaired / whole["joint/kl"].sum()).item()}
        assert share == pytest.approx(expected)


def test_without_pairs_all_are_alone():
    examples = Examples({"a": torch.arange(10.0), "b": torch.arange(10)})
    assert (unpair(examples, 0.0, seed=0).mask.sum(dim=1) == 1).all()


def test_absence_becomes_a_mask_and_callers_tensors_stay():
    a, b = torch.tensor([[1.0, torch.nan], [2.0, 3.0]]), torch.tensor([4, -1])
    batch = observe({"a": a, "b": b}, columns_of(dict.fromkeys("abc")))
    assert batch.mask.tolist() == [[False, True, False], [True, False, False]]
    assert batch.modalities["a"].isfinite().all()
    assert a.isnan().sum() == 1 and b.tolist() == [4, -1]
    assert observe({"a": a[1:], "b": b[:1]}, columns_of(dict.fromkeys("ab"))).mask is None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no modality given: give at least one of a, b"),
        ({"a": torch.zeros(0, 2)}, "the batch is empty: give at least one example"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, "need the same number of examples"),
        ({"a": torch.zeros(2), "c": torch.zeros(2)}, "unknown modality c: the model has a, b"),
        ({"a": np.zeros(2)}, "must be tensors, these are not: {'a': 'ndarray'}"),
    ],
)
def test_inputs_that_are_no_batch_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        observe(inputs, columns_of(dict.fromkeys("ab")))


def test_modalities_are_derived_as_they_are_needed():
    x = torch.arange(12, dtype=torch.uint8).view(6, 2)
    examples = Examples({"a": x, "b": x}, mask=torch.ones(6, 3).bool(), derived={"c": ("a", lambda a: 2 * a)})
    for some in (examples, examples.take(torch.tensor([3, 1])), examples.to(torch.device("cpu"))):
        batch = some[:].modalities
        assert list(batch) == ["a", "b", "c"] and batch["c"].equal(2 * batch["a"])
    assert unpair(examples, 0.5, seed=0)[:].modalities["c"].shape == (24, 2), "three rows alone and one together"


def test_unpaired_examples_still_lack_what_they_lack():
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    examples = Examples({"a": torch.arange(4.0), "b": torch.arange(4.0)}, mask=mask)
    batch = unpair(examples, 0.5, seed=1)[:]
    for a, there, together in zip(batch.modalities["a"].long(), batch.mask, batch.joint_only, strict=True):
        assert not (there & ~mask[a]).any()
        assert there.equal(mask[a]) if together else there.sum() <= 1
    assert batch.joint_only.sum() == 4, "pairs are rows of their own, though a modality of them is absent"
