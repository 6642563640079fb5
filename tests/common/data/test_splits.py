from common.data import Examples, draw_paired, hold_out, unpair
from common.data.splits import only_complete
from common.errors import InputError

import pytest
import torch


def test_the_last_examples_are_held_out():
    examples = Examples({"text": torch.arange(60)})
    for n, expected in ((None, 10), (5, 5)):
        train, valid = hold_out(examples, n)
        assert len(valid) == expected
        assert torch.cat([train.modalities["text"], valid.modalities["text"]]).equal(torch.arange(60))
    assert hold_out(examples, 0)[1] is None
    assert [len(x) for x in hold_out(examples.take(slice(2)), None)] == [1, 1]
    assert hold_out(examples.take(slice(1)), None)[1] is None
    with pytest.raises(InputError, match="--valid 60 leaves no training example"):
        hold_out(examples, 60)
    with pytest.raises(InputError, match="there is no training example: give another --data-dir"):
        hold_out(examples.take(slice(0)), None)


def test_only_examples_with_all_modalities_are_complete():
    whole = Examples({"a": torch.arange(4.0), "b": torch.arange(4)})
    assert only_complete(whole)[0] is whole
    mask = torch.tensor([[True, True], [False, True], [True, True], [True, False]])
    complete, rows = only_complete(Examples(whole.modalities, mask=mask))
    assert rows.tolist() == [0, 2] and complete.mask is None and complete[:].modalities["b"].tolist() == [0, 2]
    with pytest.raises(InputError, match="none of 4 examples has all modalities"):
        only_complete(Examples(whole.modalities, mask=mask & torch.tensor([True, False])))


def test_unpaired_examples_become_rows_of_one_modality():
    n = 1000
    examples = Examples({"a": torch.arange(n).float(), "b": torch.arange(n)})
    unpaired = unpair(examples, 0.1, seed=2)
    assert len(unpaired) == n
    rows = unpaired[torch.randperm(n)]
    assert len(rows) == 3 * n
    a, b = rows.mask.unbind(dim=1)
    both = a & b
    assert both.equal(rows.joint_only), "what a pair says of each modality alone, other rows say"
    paired = draw_paired(examples, 0.1, seed=2)
    assert paired.equal(draw_paired(examples, 0.1, seed=2)) and not paired.equal(draw_paired(examples, 0.1, seed=1))
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


def test_without_pairs_all_are_alone():
    examples = Examples({"a": torch.arange(10.0), "b": torch.arange(10)})
    assert (unpair(examples, 0.0, seed=0).mask.sum(dim=1) == 1).all()


def test_unpaired_examples_still_lack_what_they_lack():
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    examples = Examples({"a": torch.arange(4.0), "b": torch.arange(4.0)}, mask=mask)
    batch = unpair(examples, 0.5, seed=1)[:]
    for a, there, together in zip(batch.modalities["a"].long(), batch.mask, batch.joint_only, strict=True):
        assert not (there & ~mask[a]).any()
        assert there.equal(mask[a]) if together else there.sum() <= 1
    assert batch.joint_only.sum() == 4, "pairs are rows of their own, though a modality of them is absent"
