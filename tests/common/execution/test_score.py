"""How many samples are decoded at a time, for decoders of a known size."""

from common.errors import InputError
from common.execution.score import BYTES, DECODED_AT_ONCE, samples_at_once
from tests.helpers.linear_gaussian import linear_gaussian

import pytest
import torch
from torch import nn


def test_few_samples_are_decoded_at_once_where_what_is_decoded_is_large(monkeypatch):
    """Measuring draws nothing and leaves statistics and modes as they are; each device has its own limits."""
    model, _, _ = linear_gaussian(2)
    assert samples_at_once(model) == DECODED_AT_ONCE["cpu"]
    model, _, _ = linear_gaussian(2)
    model.decoder["a"] = nn.Sequential(
        nn.Linear(2, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 10**6)
    ).double()
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert samples_at_once(model) == max(1, BYTES["cpu"] // (8 * 10**6)) < DECODED_AT_ONCE["cpu"]
    assert torch.get_rng_state().equal(state) and model.decoder["a"][1].num_batches_tracked == 0
    assert [module.training for module in model.modules()] == modes
    for limits in (DECODED_AT_ONCE, BYTES):
        monkeypatch.setitem(limits, "cpu", limits["cuda"])
    assert samples_at_once(model) == 2**28 // (8 * 10**6) == 33


def test_other_devices_are_refused():
    model, _, _ = linear_gaussian(2)
    with pytest.raises(InputError, match="the model is on meta, and runs on cpu or cuda alone: move it there"):
        samples_at_once(model.to("meta"))
