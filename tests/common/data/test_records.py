"""Records: dicts whose items are attributes."""

import copy

from common.data.records import Record

import pytest
import torch
from torch.utils.data import default_collate


def test_items_are_attributes():
    record = Record(z=1, x=2)
    record.y = 3
    assert record == {"z": 1, "x": 2, "y": 3} and record.z == record["z"] == 1 and list(record) == ["z", "x", "y"]
    assert not hasattr(record, "w")
    with pytest.raises(AttributeError, match="no w: there are z, x, y"):
        _ = record.w


def test_copies_and_batches_are_records():
    record = Record(z=torch.ones(2))
    assert torch.equal(copy.deepcopy(record).z, record.z)
    assert default_collate([record, record]).z.shape == (2, 2)
