"""Which labels are right, on models whose coherence is known."""

import torch

from reports import right_labels
from reports.metrics import Judge
from tests.helpers.coherence import JUDGES, SOURCES, examples, model


def test_shares_of_labels_and_of_examples_all_whose_labels_are_right():
    right = {"x": torch.tensor([[True, True], [True, False], [False, False], [True, True]])}
    (shares,) = right_labels.shares_of(right, None).values()
    assert shares.tolist() == [1, 0.5, 0, 1]
    assert right_labels.shares_of(right, "string")["x, string"].tolist() == [True, False, False, True]


def test_the_table_by_label_has_the_columns_that_are_asked_for():
    right = {"x": torch.tensor([[True, False], [True, True]]), "y": torch.tensor([[False, False], [True, False]])}
    columns = right_labels.by_label(right, None)
    assert {title: x.tolist() for title, x in columns.items()} == {"x": [1.0, 0.5], "y": [0.5, 0.0]}
    columns = right_labels.by_label(right, {"y": "of y", "z": "of z"})
    assert {title: x.tolist() for title, x in columns.items()} == {"of y": [0.5, 0.0]}
    assert right_labels.by_label({"x": torch.ones(3, 1)}, None) == {}, "a single label has no table"


def test_coherence_of_a_known_model():
    given, labels = examples(300)
    right = right_labels.coherence(model(), given, labels, JUDGES, SOURCES, 40)
    assert {name: x.shape for name, x in right.items()} == {
        **{f"coherence, {a} -> {b}": (300, 1) for a in "ab" for b in "ab"},
        "coherence, joint": (40, 1),
    }
    assert all(x.all() for x in right.values())
    alone = right_labels.coherence(model(), given, labels, {"a": JUDGES["a"]}, SOURCES, 40)
    assert set(alone) == {"coherence, a -> a", "coherence, b -> a"}, "one judge cannot agree with another"


def test_a_judge_is_tested_on_the_examples_themselves():
    given, labels = examples(100)
    assert right_labels.read_right(JUDGES["a"], given, labels).all()
    assert not right_labels.read_right(JUDGES["a"], given, labels.roll(1, dims=0)).all()


def test_what_no_judge_can_read_is_never_right():
    unreadable = {m: Judge((m,), lambda values, m=m: torch.full((len(values[m]), 1), -1)) for m in ("a", "b")}
    given, labels = examples(50)
    right = right_labels.coherence(model(), given, labels, unreadable, SOURCES, 40)
    assert not any(x.any() for x in right.values()), "also where both are unreadable alike"
