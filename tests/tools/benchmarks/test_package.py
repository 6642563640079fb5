"""The benchmark beside the package multivae is fair: its losses and gradients are those of our objectives."""

from copy import deepcopy

import common.data.torchvision_import  # noqa: F401 (before the package, whose import of torchvision fails otherwise)
from common.objectives import DregIwaeElbo, MvaeElbo
from common.subsets import random_subsets
from common.variational_posteriors import LaplacePosterior
from tests.helpers.experts import draw_one_by_one
from tools.benchmarks.experiments import EXPERIMENTS
from tools.benchmarks.plain import separate

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal, normal

pytest.importorskip("multivae")
from tools.benchmarks import package

N = 3  # examples


def model_and_batch(name):
    return EXPERIMENTS[name].build(), EXPERIMENTS[name].examples(N)[:]


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "vision"])
def test_mvae_has_our_loss_and_gradients(name, monkeypatch):
    """With the same noise in all terms, in training, so that batch norm has its part; without dropout."""
    model, batch = model_and_batch(name)
    model, batch = without_dropout(model.double()), double(batch)
    k = int(len(model.modalities) > 2)
    objective = MvaeElbo(model, k, {"image": 0.5}, torch.Generator().manual_seed(5))
    theirs = package.counterpart(objective, beta=0.3)
    if k:
        (subset,) = random_subsets(len(model.modalities), k, torch.Generator().manual_seed(5))
        theirs.subsets = [[name for name, there in zip(model.modalities, subset, strict=True) if there]]
    noise = torch.randn(N, theirs.latent_dim, dtype=torch.float64)
    monkeypatch.setattr(normal, "_standard_normal", lambda shape, dtype, device: noise.expand(shape))
    loss, ours = theirs(package.inputs(model, batch)).loss, objective(batch, beta=0.3)
    torch.testing.assert_close(loss, ours)
    loss.backward()
    ours.backward()
    same_gradients(theirs, model)


@pytest.mark.parametrize(("name", "family"), [("mnist_svhn", Laplace), ("cub, features", Normal)])
def test_mmvae_has_our_gradients(name, family, monkeypatch):
    """With the same samples, in training. The package's loss is a surrogate, whose value is not the bound.

    The scales of its Laplace prior have 1e-6 added; so have ours here.
    """
    model, batch = model_and_batch(name)
    model, batch = model.double(), double(batch)
    if family is Laplace:
        model.prior.family = LaplacePosterior()
    nn.init.normal_(model.prior.scale)
    objective = DregIwaeElbo(model, 4, looser=True, gradient="stop-all")
    theirs = package.counterpart(objective)

    torch.manual_seed(0)
    (theirs(package.inputs(model, batch)).loss / N).backward()
    torch.manual_seed(0)
    draw_one_by_one(monkeypatch, family, family)
    objective.loss(batch)[0].backward()
    same_gradients(theirs, model)
    scale = model.prior.scale.detach().requires_grad_()
    package.log_covariance(model.variational_posterior.component, scale).backward(theirs.prior_log_var.grad[0])
    torch.testing.assert_close(scale.grad, model.prior.scale.grad)


def test_a_step_is_the_trainers_on_a_copy(monkeypatch):
    model, batch = model_and_batch("mnist")
    objective, ours = MvaeElbo(model), deepcopy(model.state_dict())
    theirs = package.counterpart(objective)
    before = deepcopy(theirs.state_dict())
    monkeypatch.setattr(package, "counterpart", lambda *_: theirs)
    package.training_step(objective)(batch)
    moved = torch.cat([(x - before[name]).abs().flatten() for name, x in theirs.state_dict().items()])
    assert moved.max().item() == pytest.approx(1e-4, rel=0.01)  # Adam's first step is its rate, by default 1e-4
    assert all(torch.equal(x, ours[name]) for name, x in model.state_dict().items())


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.GRU):
            module.dropout = 0.0
    return model


def double(batch):
    batch.modalities = {name: x.double() if x.is_floating_point() else x for name, x in batch.modalities.items()}
    return batch


def same_gradients(theirs, model):
    """All networks' parameters have them: a model of our gradients is taken apart as the model was."""
    gradients = deepcopy(model)
    for x, p in zip(gradients.parameters(), model.parameters(), strict=True):
        x.data = p.grad
    for ours, networks in zip(separate(gradients), (theirs.encoders, theirs.decoders), strict=True):
        found = dict(networks.named_parameters())
        for name, gradient in ours.named_parameters():
            modality, rest = name.split(".", 1)
            torch.testing.assert_close(found.pop(f"{modality}.network.{rest}").grad, gradient.data)
        assert not found
