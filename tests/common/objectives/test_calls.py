"""What of the networks runs in a step."""

from functools import partial

from common.data import Batch
from common.objectives import DmvaeElbo, MmvaeElbo, MvaeElbo
from tests.helpers.fusions import mask_of, with_fusion
from tests.helpers.linear_gaussian import draw
from tests.helpers.objectives import hooked

import pytest

MIXED = [("a", "b"), ("a",), ("a",)]


@pytest.mark.parametrize(
    ("objective", "fusion", "n_of_all", "decoded"),
    [
        (MvaeElbo, "poe", 2, {"a": 1 + 3, "b": 1 + 1}),
        (DmvaeElbo, "poe", 3, {"a": 3 + 2, "b": 3}),
        (MmvaeElbo, "moe", 2, {"a": 2 + 2, "b": 2}),
        (MmvaeElbo, "mopoe", 3, {"a": 3 + 2, "b": 3}),
        (partial(MmvaeElbo, draw_one=True), "mopoe", 1, {"a": 3, "b": 1}),
    ],
)
def test_each_encoder_runs_once_and_what_is_scored_is_decoded_at_once(objective, fusion, n_of_all, decoded):
    """By all terms, or all components, of complete examples; and of three, of which two have a alone."""
    model, weights, scales = with_fusion(fusion)
    rows = {(kind, name): hooked(getattr(model, kind)[name]) for kind in ("encoder", "decoder") for name in "ab"}
    goal = objective(model)
    goal(draw(weights, scales, 5))
    assert rows == {key: [5 if key[0] == "encoder" else 5 * n_of_all] for key in rows}
    for of_network in rows.values():
        of_network.clear()
    goal(Batch(draw(weights, scales, 3), mask_of(MIXED, ("a", "b"))))
    encoded = {("encoder", "a"): [3], ("encoder", "b"): [1]}
    assert rows == encoded | {("decoder", name): [n] for name, n in decoded.items()}
