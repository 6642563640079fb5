"""How many samples are decoded at a time, for decoders of a known size."""

import torch
from torch import nn

from common.execution.decoder import CACHED, DECODED_AT_ONCE, samples_at_once
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
    assert samples_at_once(model, 2) == CACHED // 3000 < DECODED_AT_ONCE["cpu"]
    assert torch.get_rng_state().equal(state) and large[1].num_batches_tracked == 0
    assert [module.training for module in model.modules()] == modes
