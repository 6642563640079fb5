from common.data.batches import columns_of
from common.errors import InputError
from common.subsets import all_subsets, mvae_subsets, named_subsets, random_subsets, single_modalities

import pytest
import torch


def test_mvaes_subsets_are_singletons_and_the_joint_one():
    *singles, joint = mvae_subsets(columns_of(dict.fromkeys("abcd"))).items()
    assert [name for name, _ in singles] == [*"abcd"] and joint[0] == "joint"
    assert torch.stack([subset for _, subset in singles]).equal(torch.eye(4, dtype=torch.bool)) and joint[1].all()


@pytest.mark.parametrize(("n", "n_terms"), [(1, 1), (10, 10), (11, 1)])
def test_elements_of_a_set_have_terms_unless_they_are_many(n, n_terms):
    columns = columns_of({"a": None, "set": n})
    terms = single_modalities(columns)
    names = ["set"] if n_terms == 1 else [f"set[{i}]" for i in range(n)]
    assert list(terms) == ["a", *names]
    assert terms["a"].nonzero().flatten().tolist() == [0]
    assert [terms[name].nonzero().flatten().tolist() for name in names] == (
        [list(range(1, n + 1))] if n_terms == 1 else [[i + 1] for i in range(n)]
    )
    assert len(mvae_subsets(columns)) == 1 + n_terms + 1
    assert list(mvae_subsets(columns_of({"a": None}))) == ["joint"], "one modality has one term"
    assert len(mvae_subsets(columns_of({"set": 784}))) == 1, "a set as a whole is no term beside that of all"


def test_size_is_uniform_then_the_subset():
    n, m = 200_000, 5
    subsets = random_subsets(m, n, torch.Generator().manual_seed(0))
    sizes = subsets.sum(dim=1)
    for size, n_subsets in ((2, 10), (3, 10), (4, 5)):
        rows = subsets[sizes == size]
        assert len(rows) == pytest.approx(n / 3, abs=5 * (n * 2 / 9) ** 0.5)
        _, counts = rows.unique(dim=0, return_counts=True)
        assert len(counts) == n_subsets
        p = 1 / (3 * n_subsets)
        assert (counts - n * p).abs().max() < 5 * (n * p * (1 - p)) ** 0.5
    assert not (sizes == 1).any() and not (sizes == m).any()


def test_all_subsets_have_the_order_of_binary_numbers():
    """As in MoPoE's code; the first modality is the last digit."""
    rows = ["".join("abc"[m] for m in range(3) if row[m]) for row in all_subsets(3).tolist()]
    assert rows == ["a", "b", "ab", "c", "ac", "bc", "abc"] and len(all_subsets(10).unique(dim=0)) == 1023


def test_too_many_modalities_for_all_subsets_are_refused():
    with pytest.raises(InputError, match="at least 3 modalities"):
        random_subsets(2, 1)
    with pytest.raises(InputError, match="subsets needs at most 10 modalities \\(got 11\\)"):
        all_subsets(11)


def test_every_named_subset_by_size():
    assert named_subsets(("a", "b", "c")) == [
        ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")
    ]  # fmt: skip
    with pytest.raises(
        InputError, match="figures of all subsets need at most 10 modalities \\(got 11\\): leave them out"
    ):
        named_subsets([str(i) for i in range(11)])
