"""How many samples are decoded at a time, for decoders of a known size."""

import torch
from torch import nn

from common.execution.decoder import DECODED_AT_ONCE, LAYER_BYTES, samples_at_once
from tests.helpers.linear_gaussian import linear_gaussian


def test_few_samples_are_decoded_at_once_where_layers_are_large():
    """Whatever the layers' order; measuring draws nothing and leaves statistics and modes as they are."""
    model, _, _ = linear_gaussian(2)
    large = nn.Sequential(nn.Linear(2, 3000), nn.BatchNorm1d(3000), nn.Dropout(0.5), nn.Linear(3000, 3)).double()
    assert samples_at_once(model, 2) == DECODED_AT_ONCE["cpu"]
    model, _, _ = linear_gaussian(2)
    model.decoder["a"] = large
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert samples_at_once(model, 2) == LAYER_BYTES["cpu"] // (8 * 3000) < DECODED_AT_ONCE["cpu"]
    assert torch.get_rng_state().equal(state) and large[1].num_batches_tracked == 0
    assert [module.training for module in model.modules()] == modes


def test_a_gpu_decodes_fewer_samples_at_once_where_layers_are_large(monkeypatch):
    """Without a GPU: the limits of the device of the model's parameters count."""
    model, _, _ = linear_gaussian(2)
    model.decoder["a"] = nn.Sequential(nn.Linear(2, 3000), nn.Linear(3000, 3)).double()
    for limits in (DECODED_AT_ONCE, LAYER_BYTES):
        monkeypatch.setitem(limits, "cpu", limits["cuda"])
    assert samples_at_once(model, 2) == 20_000
    model, _, _ = linear_gaussian(2)
    model.decoder["a"] = nn.Sequential(nn.Linear(2, 300_000), nn.Linear(300_000, 3)).double()
    assert samples_at_once(model, 2) == 2**30 // (8 * 300_000)
