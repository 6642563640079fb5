"""The label's expert, refitted: on the linear model whose answer is known, and the script on the demo."""

import math

from common.checkpoints import load_model
from common.likelihoods import FunctionLikelihood, GroupedLikelihood
from common.models import MVAE
from mnist import analyse, label_expert
from mnist.data import MNIST
from reports.metrics import Judge
from tests.helpers.scripts import call

import pytest
import torch
from torch import nn
from torch.distributions import Normal


class Expert(nn.Module):
    """mu and log-variance of each label: fifteen times a parameter, so that few steps suffice."""

    def __init__(self):
        super().__init__()
        self.mu, self.logvar = (nn.Parameter(torch.zeros(10, 1)) for _ in range(2))

    def forward(self, label):
        return 15 * self.mu[label], 15 * self.logvar[label]


class Shared(nn.Module):
    """The same mu and log-variance for all labels."""

    def __init__(self):
        super().__init__()
        self.mu, self.logvar = (nn.Parameter(torch.zeros(1)) for _ in range(2))

    def forward(self, label):
        return tuple(x.expand(len(label), 1) for x in (self.mu, self.logvar))


class TenTimes(nn.Module):
    """z -> 10 z."""

    def forward(self, z):
        return 10 * z.squeeze(1)


@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_a_refitted_expert_gives_the_exact_posterior_at_weight_1_and_a_narrower_one_above(weight):
    """label ~ N(10 z, 10^2): q(z|label) has the precision 1 + W and the mean W label / 10 / (1 + W)."""
    torch.manual_seed(0)
    likelihood = GroupedLikelihood(text=FunctionLikelihood(lambda loc, x: Normal(loc, 10.0).log_prob(x), event_dims=0))
    model = MVAE({"text": Expert()}, {"text": TenTimes()}, likelihood, 1)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    refitted = label_expert.refit(model, weight, 500)
    q, labels = refitted.posterior({"text": torch.arange(10)}), torch.arange(10.0)
    torch.testing.assert_close(q.mean[:, 0], weight * labels / 10 / (1 + weight), atol=0.05, rtol=0)
    torch.testing.assert_close(q.variance[:, 0], torch.full((10,), 1 / (1 + weight)), atol=0.05, rtol=0)
    assert not any(x.requires_grad for x in refitted.parameters())
    assert all(x.equal(before[name]) for name, x in model.state_dict().items()), "the model is left as it is"


def test_free_parameters_give_each_label_the_exact_posterior():
    """The same model with one Gaussian for all labels, which free parameters turn into one for each."""
    torch.manual_seed(0)
    likelihood = GroupedLikelihood(text=FunctionLikelihood(lambda loc, x: Normal(loc, 10.0).log_prob(x), event_dims=0))
    model = MVAE({"text": Shared()}, {"text": TenTimes()}, likelihood, 1)
    labels = torch.arange(10)
    free = label_expert.FreeParameters(model.encoder["text"])
    torch.testing.assert_close(free(labels), model.encoder["text"](labels))
    q = label_expert.refit(model, 1, 1500, free).posterior({"text": labels})
    torch.testing.assert_close(q.mean[:, 0], labels / 20, atol=0.05, rtol=0)
    torch.testing.assert_close(q.variance[:, 0], torch.full((10,), 1 / 2), atol=0.05, rtol=0)
    torch.testing.assert_close(free(labels), model.encoder["text"](labels), msg="both are left as they are")
    assert all(x.eq(0).all() for x in free(labels))


def test_variance_is_that_within_labels():
    images, labels = torch.tensor([[0.0], [2.0], [10.0], [10.0]]), torch.tensor([0, 0, 1, 1])
    assert label_expert.within_labels(images, labels) == pytest.approx(2 / 4)


def test_the_script_refits_the_label_encoder_alone(trained, tmp_path, monkeypatch):
    """Its judge sees a 1 in each picture, so that the test labels that are 1 are recognised."""
    run, ones = trained("mnist"), Judge(("image",), lambda values: torch.ones(len(values["image"]), 1).long())
    monkeypatch.setattr(analyse, "judge", lambda *_: ones)
    options = ("--demo", "--limit", 100, "--weights", 2, "--steps", 3)
    found = call(label_expert, run, *options, "--out-dir", tmp_path)
    refitted = ["q(z|label), refitted, W = 2", "q(z|label), free parameters, W = 1"]
    assert list(found) == ["q(z|label), as trained", *refitted, "aggregate posterior"]
    labels = MNIST.load("test", label_expert.Config(run, demo=True, limit=100)).modalities["text"]
    assert {x["recognised"] for x in found.values()} == {(labels == 1).double().mean().item()}
    assert all(x["log p(label|z)"] < 0 < x["variance"] < math.inf for x in found.values())
    old, new = (load_model(path).state_dict() for path in (run, tmp_path / "label_expert_2.pth.tar"))
    assert {name.split(".")[:2] == ["encoder", "text"] for name in old if not old[name].equal(new[name])} == {True}
