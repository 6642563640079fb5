"""Which terms score what of which example, written out."""

from common.data import Batch
from common.execution.rows import rows_of, rows_where
from common.subsets import mvae_subsets
from tests.helpers.linear_gaussian import draw, linear_gaussian

import torch

MASK = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0]]).bool()
AB = torch.tensor([[1, 1, 0], [1, 1, 0]]).bool()  # drawn twice


def rows(drawn=None, mask=MASK, **options):
    model, weights, scales = linear_gaussian(3)
    batch = Batch(draw(weights, scales, 4), mask, **options)
    return model, batch, rows_of(model, batch, mvae_subsets(model.columns), drawn)


def as_words(scored):
    """{example: what each term scores}, "" for nothing."""
    by_example = scored.transpose(0, 1).tolist()
    return [["".join(n for n, x in zip("abc", term, strict=True) if x) for term in terms] for terms in by_example]


def test_terms_are_cut_to_what_an_example_has_and_equal_ones_count_once():
    _, _, found = rows(AB)
    assert found.names == ["a", "b", "c", "joint", "subset1", "subset2"]
    assert as_words(found.scored) == [
        ["a", "b", "c", "abc", "ab", "ab"],  # complete: each random subset
        ["a", "b", "", "", "ab", ""],  # of three equal ones the first that is not cut
        ["", "b", "", "", "", ""],
        [""] * 6,
    ]
    assert found.given.equal(torch.cat([torch.eye(3), torch.ones(1, 3), AB]).bool()[:, None] & MASK)


def test_pairs_have_no_terms_of_single_modalities():
    _, _, found = rows(AB, joint_only=torch.tensor([True, True, False, False]))
    assert as_words(found.scored)[:2] == [["", "", "", "abc", "ab", "ab"], ["", "", "", "", "ab", ""]]


def test_captured_steps_read_no_random_subset():
    for mask in (None, MASK):
        _, _, found = rows(AB, mask, every_row=True)
        assert found.subsets[-2:].all() and as_words(found.scored)[0][-2:] == ["ab", "ab"]
    assert rows(AB, None)[2].scored is None and rows(AB, None)[2].subsets[-2:].equal(AB)


def test_components_score_what_an_example_has_where_they_count():
    model, batch, _ = rows()
    where = torch.ones(2, 4, 1, dtype=torch.bool)
    where[1, 0] = False
    assert as_words(rows_where(model, batch, where).scored) == [["abc", ""], ["ab"] * 2, ["b"] * 2, ["", ""]]
    own = torch.tensor([[1, 0, 0], [0, 1, 0]]).bool()
    assert as_words(rows_where(model, batch, where, own).scored) == [["a", ""], ["a", "b"], ["", "b"], ["", ""]]
