"""MVTCAE, CRMVAE, MMVAE+ and CMVAE have the losses and gradients of the package multivae on the same networks.

z is the mean of its distribution in both: their random draws differ. Deviations of the package that are left: 1e-6 is
added to the scales of Laplace priors.
"""

import common.data.torchvision_import  # noqa: F401 (before the package, whose import of torchvision fails otherwise)

import pytest
import torch
from torch.distributions import Laplace, Normal

pytest.importorskip("multivae")
from common.data import Batch
from polymnist import train
from polymnist.model import build
from tests.helpers import newer_package
from training import objective_of

from multivae.data.datasets import IncompleteDataset, MultimodalBaseDataset
from multivae.models.crmvae import crmvae_model
from multivae.models.mvtcae import mvtcae_model

N, BETA = 4, 0.7
NAMES = ("m0", "m1", "m2")
WEIGHTS = {"m0": 2.0, "m1": 1.0, "m2": 0.5}
MASK = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [True, True, False]])


@pytest.fixture(autouse=True)
def no_noise(monkeypatch):
    """Every sample is the location of its distribution."""
    for family in (Normal, Laplace):
        monkeypatch.setattr(
            family, "rsample", lambda self, shape=(): self.loc.expand(*shape, *self.batch_shape).contiguous()
        )
    for module in (mvtcae_model, crmvae_model):
        monkeypatch.setattr(module, "rsample_from_gaussian", lambda mu, logvar, *_, **__: mu)


def ours(model, **options):
    """The objective of a model by name, in double precision, with experts of some width."""
    torch.manual_seed(0)
    config = train.Config(model=model, n_latents=5, n_modalities=3, **options)
    vae = build(config).double()
    for encoder in vae.encoder.values():  # the networks' first outputs hardly differ from 0
        encoder[-1].linear.weight.data *= 20
    objective = objective_of(config, vae)
    objective.weights = WEIGHTS
    return objective


def theirs(objective, kind, **options):
    return newer_package.counterpart(objective, kind, BETA, **options).double()


def batches(incomplete):
    x = {name: torch.rand(N, 3, 28, 28, dtype=torch.float64) for name in NAMES}
    if not incomplete:
        return Batch(x), MultimodalBaseDataset(x)
    return Batch(x, MASK), IncompleteDataset(x, {name: MASK[:, m] for m, name in enumerate(NAMES)})


def gradients_of(vae, loss):
    vae.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}


def assert_same(objective, package, incomplete, rtol=1e-9):
    batch, data = batches(incomplete)
    (loss, _), other = objective.loss(batch, BETA), package(data)
    their_loss = other.loss_sum / N
    torch.testing.assert_close(loss, their_loss, rtol=rtol, atol=0)
    expected = gradients_of(objective.model, their_loss)
    for name, gradient in gradients_of(objective.model, loss).items():
        if name in expected:
            scale = expected[name].abs().max().item()
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=10 * rtol * scale + 1e-12, msg=name)
    assert {name.split(".")[0] for name in expected} == {"encoder", "decoder"}


@pytest.mark.parametrize("incomplete", [False, True])
def test_mvtcae(incomplete):
    objective = ours("mvtcae", alpha=0.6)
    assert_same(objective, theirs(objective, "MVTCAE", alpha=0.6), incomplete, rtol=1e-6)


@pytest.mark.parametrize("incomplete", [False, True])
def test_crmvae(incomplete):
    objective = ours("crmvae")
    assert_same(objective, theirs(objective, "CRMVAE"), incomplete, rtol=1e-6)


@pytest.mark.parametrize("incomplete", [False, True])
@pytest.mark.parametrize("model", ["mmvae+", "cmvae"])
def test_mmvae_plus_and_cmvae(model, incomplete):
    clusters = {"n_clusters": 4} if model == "cmvae" else {}
    objective = ours(model, n_private=3, K=2, **clusters)
    vae, kind = objective.model, "CMVAE" if model == "cmvae" else "MMVAEPlus"
    with torch.no_grad():
        vae.auxiliary.scale.copy_(torch.randn(vae.latent_dim))
    options = {"number_of_clusters": 4} if clusters else {}
    package = theirs(objective, kind, K=2, loss="iwae_looser", modalities_specific_dim=3, **options)
    with torch.no_grad():
        for modality in vae.private:
            own = slice(modality.private_latents.start, modality.private_latents.stop)
            priors = package.r_logvars_priors if clusters else package.logvars_priors
            priors[modality.name].copy_(vae.auxiliary.scale[own])
        if clusters:
            vae.prior.logits.copy_(torch.randn(4))
            package._pc_params.copy_(vae.prior.logits.view_as(package._pc_params))
            for c, loc in enumerate(vae.prior.loc):
                package.mean_clusters[c].copy_(loc.view_as(package.mean_clusters[c]))
    assert_same(objective, package, incomplete, rtol=1e-5)
