"""How DMVAE and TELBO compute, and what TELBO trains. (Values: test_closed_forms.py.)"""

from common.data import Examples
from common.data.splits import unpair
from common.objectives import DmvaeElbo, MvaeElbo, TelboElbo
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import D, draw

import torch
from torch import nn


def test_pairs_among_unpaired_examples_keep_all_their_terms():
    """A pair's row has every term; the rows of unpaired examples have that of their modality alone."""
    model, weights, scales = with_fusion("poe")
    inputs = draw(weights, scales, 8)
    objective = DmvaeElbo(model)
    rows = unpair(Examples(inputs), 0.5, seed=0, unimodal=objective.unimodal)[:]
    _, terms = objective.bound(rows)
    paired = rows.joint_only
    n_pairs = int((rows.mask.all(dim=1)).sum())
    for name in ("a/b", "b/a", "joint/a", "joint/b"):
        assert terms[name][paired].ne(0).all() and not terms[name][~paired].any(), name
    for name in ("a/a", "b/b"):
        assert terms[name].ne(0).sum() == n_pairs + 4, "four unpaired examples, each modality in a row of its own"


# TELBO


def test_telbo_trains_the_decoders_by_the_joint_elbo_alone():
    """Encoders have the gradients of the sum of all ELBOs, decoders those of the joint one."""
    model, weights, scales = with_fusion("own")
    with torch.no_grad():  # posteriors that are off, where gradients are large
        for encoder in model.encoder.values():
            encoder.log_precision.add_(torch.randn(D))
    inputs = draw(weights, scales, 4)

    def gradients(objective, joint_only=False):
        torch.manual_seed(0)
        model.zero_grad()
        value, terms = objective.bound(inputs, 0.5)
        loss = -(terms["joint/a"] + terms["joint/b"]).mean() if joint_only else -value.mean()
        loss.backward()
        return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}

    telbo, mvae, joint = gradients(TelboElbo(model)), gradients(MvaeElbo(model)), gradients(MvaeElbo(model), True)
    for name, gradient in telbo.items():
        torch.testing.assert_close(gradient, (joint if name.startswith("decoder") else mvae)[name], msg=name)
        assert name.startswith("encoder") or not gradient.allclose(mvae[name]), "the singles would have counted"
    assert all(p.requires_grad for p in model.parameters())


def test_batch_norm_keeps_the_statistics_of_the_joint_term():
    model, weights, scales = with_fusion("own")
    linear, norm = model.decoder["a"], nn.BatchNorm1d(3, dtype=torch.float64)
    model.decoder["a"] = nn.Sequential(linear, norm)
    inputs, objective = draw(weights, scales, 50), TelboElbo(model).train()
    torch.manual_seed(0)
    objective(inputs)
    batch = model.observe(inputs)
    rows = objective.rows(batch)
    torch.manual_seed(0)
    q = objective.posteriors(model.experts(batch), rows)
    z = q.rsample((1,))[0, rows.names.index("joint")]
    torch.testing.assert_close(norm.running_mean, 0.1 * linear(z).mean(dim=0))
    assert norm.momentum == 0.1
