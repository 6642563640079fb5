"""Decoders with batch norm: the statistics of each term alone."""

import copy

from common.data import Batch
from common.objectives import MmvaeElbo, MvaeElbo
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw
from tests.helpers.objectives import hooked

import pytest
import torch
from torch import nn


def batch_norm_model(fusion):
    model, weights, scales = with_fusion(fusion)
    model.decoder["a"] = nn.Sequential(model.decoder["a"], nn.BatchNorm1d(3).double())
    return model, draw(weights, scales, 8)


def noise_of(objective, batch, seed):
    """The z that the objective is going to draw for its terms, (T, B, D)."""
    model = objective.model
    torch.manual_seed(seed)
    if isinstance(objective, MmvaeElbo):
        z = model.fuse(model.experts(batch), batch.mask).component_distribution.rsample().movedim(1, 0)
    else:
        given = torch.stack([*objective.subsets().values()])[:, None]
        z = model.fuse(model.experts(batch), given if batch.mask is None else given & batch.mask).rsample()
    torch.manual_seed(seed)
    return z.detach()


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize(("fusion", "objective"), [("poe", MvaeElbo), ("moe", MmvaeElbo)])
def test_batch_norm_has_the_statistics_of_each_term_alone(fusion, objective, incomplete):
    model, inputs = batch_norm_model(fusion)
    objective = objective(model).train()
    has_a, has_b = torch.ones(8, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
    if incomplete:
        has_a[:2], has_b[5:] = False, False
    batch = Batch(inputs, torch.stack([has_a, has_b], dim=1) if incomplete else None)
    # the terms that score a, and the rows where they do: q(z|a), and q(z|a, b) of MVAE, or q(z|b) of the mixture
    terms = [(0, has_a), (1 if fusion == "moe" else 2, has_a & has_b)]
    decoder, rows = copy.deepcopy(model.decoder["a"]), hooked(model.decoder["a"])
    z = noise_of(objective, batch, 3)
    _, bound = objective.loss(batch)
    assert rows == [int(where.sum()) for _, where in terms]

    mean, variance, log_p = torch.zeros(3), torch.ones(3), []
    for t, where in terms:
        x = decoder[0](z[t, where])
        mean, variance = 0.9 * mean + 0.1 * x.mean(dim=0), 0.9 * variance + 0.1 * x.var(dim=0)
        x = (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()
        of_all = torch.zeros(8, dtype=torch.float64)
        of_all[where] = model.likelihood["a"](x).log_prob(inputs["a"][where])
        log_p.append(of_all)
    norm = model.decoder["a"][1]
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    if fusion == "moe":
        share = 1 / (has_a.double() + has_b.double())
        torch.testing.assert_close(bound.terms["mixture/a"], share * sum(log_p))
    else:
        torch.testing.assert_close(bound.terms["a/a"], log_p[0])
        torch.testing.assert_close(bound.terms["joint/a"], log_p[1])


def test_a_term_that_scores_nothing_leaves_batch_norm_alone():
    """No example has both: the joint term is nowhere, and the decoder of a runs for ELBO(a) only."""
    model, inputs = batch_norm_model("poe")
    rows = hooked(model.decoder["a"])
    mask = torch.tensor([[True, False]] * 5 + [[False, True]] * 3)
    MvaeElbo(model).train().loss(Batch(inputs, mask))
    assert rows == [5] and model.decoder["a"][1].num_batches_tracked == 1
