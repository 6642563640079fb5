import itertools

import pytest
import torch

from common.data.batches import columns_of
from common.errors import InputError
from common.subsets import all_subsets, mvae_subsets, named_subsets, random_subsets, single_modalities


def test_terms_are_singletons_joint_and_random_ones():
    terms = mvae_subsets(columns_of(dict.fromkeys("abcd")), k=3)
    assert terms.shape == (8, 4)
    assert terms[:4].equal(torch.eye(4, dtype=torch.bool))
    assert terms[4].all()
    assert set(terms[5:].sum(dim=1).tolist()) <= {2, 3}


@pytest.mark.parametrize(("n", "n_terms"), [(1, 1), (2, 2), (10, 10), (11, 1)])
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
    assert mvae_subsets(columns_of({"a": None})).tolist() == [[True]], "one modality has one term"


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


def test_subsets_of_nineteen_modalities_are_drawn_too():
    sizes = random_subsets(19, 1000).sum(dim=1)
    assert len(sizes) == 1000 and (sizes.min(), sizes.max()) == (2, 18)


def test_same_generator_same_subsets():
    draws = [random_subsets(6, 50, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert draws[0].equal(draws[1])


def test_two_modalities_have_no_random_subsets():
    with pytest.raises(InputError, match="at least 3 modalities"):
        random_subsets(2, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_all_subsets_are_all_but_the_empty_one_and_each_once(n):
    rows = [tuple(r) for r in all_subsets(n).tolist()]
    assert len(rows) == len(set(rows)) == 2**n - 1
    assert set(rows) == set(itertools.product([False, True], repeat=n)) - {(False,) * n}


def test_too_many_modalities_for_all_subsets_are_refused():
    assert all_subsets(10).shape == (1023, 10)
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
