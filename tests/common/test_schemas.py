from typing import Any

from common.errors import InputError
from common.io import as_type, read_json, read_json_lines

import msgspec
import pytest
import torch
from torch import Tensor

REMEDY = "make it again"


class Epoch(msgspec.Struct):
    epoch: int
    train: dict[str, float]


class Weights(msgspec.Struct):
    name: str
    weights: dict[str, Tensor]
    options: dict[str, Any] = {}


def test_json_of_the_type_is_read(tmp_path):
    (tmp_path / "x").write_text('{"epoch": 1, "train": {"bound": -3}, "other": null}')
    assert read_json(tmp_path / "x", Epoch, REMEDY) == Epoch(1, {"bound": -3.0})


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"epoch": 1, "train": {"bound": null}}', r"Expected `float`, got `null` - at `\$.train\[...\]`"),
        ('{"epoch": 1, "train": {"bound": NaN}}', "malformed"),
        ('{"epoch": 1, "train": {}, "other": ' + "[" * 100_000, "recursion"),
        ("", "truncated"),
    ],
)
def test_other_json_names_file_and_field(content, fault, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=rf"x.json is damaged, .*{fault}.*: {REMEDY}$"):
        read_json(tmp_path / "x.json", Epoch, REMEDY)


def test_lines_are_read_without_a_last_one_that_was_cut_off(tmp_path):
    (tmp_path / "x").write_text('{"epoch": 1, "train": {}}\n{"epoch": 2, "train": {}}\n{"epoch": 3, "tr')
    assert [line.epoch for line in read_json_lines(tmp_path / "x", Epoch, REMEDY)] == [1, 2]
    (tmp_path / "x").write_text('{"epoch": 1, "train": {}}\n{"epoch": []}\n')
    with pytest.raises(InputError, match=r"x, line 2 is damaged, .*epoch"):
        read_json_lines(tmp_path / "x", Epoch, REMEDY)
    (tmp_path / "x").write_text('{"epoch": 1, "train": {}}' + " " * 2**20)
    with pytest.raises(InputError, match=r"x, line 1 has more than .* too much for its kind"):
        read_json_lines(tmp_path / "x", Epoch, REMEDY)


def test_values_with_tensors_are_checked():
    good = {"name": "a", "weights": {"w": torch.ones(2)}, "options": {"n": [1, "x", None]}}
    assert as_type(good, Weights, "it", REMEDY).weights["w"] is good["weights"]["w"]
    for key, value, fault in (
        ("name", torch.ones(1), "name"),
        ("weights", {"w": [1.0]}, "expected Tensor, got list - at `.*weights"),
        ("weights", {1: torch.ones(1)}, "key"),
    ):
        with pytest.raises(InputError, match=rf"it is damaged, .*{fault}.*: {REMEDY}$"):
            as_type(good | {key: value}, Weights, "it", REMEDY)
