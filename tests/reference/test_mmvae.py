"""reference/mmvae.py: common/ has its loss, bound and gradients, and it trains."""

from types import SimpleNamespace

from common.objectives import DregIwaeElbo
from mnist_svhn.model import build
from reference import mmvae
from tests.helpers.experts import draw_one_by_one
from tests.helpers.mnist_files import write_mnist
from tests.helpers.small_files import mat

import torch
from torch.distributions import Laplace

OPTIONS = SimpleNamespace(
    model="mmvae",
    n_latents=mmvae.D,
    num_hidden_layers=1,
    prior_and_posterior="laplace",
    llik_scaling=0.0,
    learn_prior=True,
    n_private=None,
    n_clusters=None,
    rho=None,
)


def test_loss_and_gradients_are_those_of_our_objective(monkeypatch):
    draw_one_by_one(monkeypatch, Laplace, Laplace)
    ours, model = build(OPTIONS).double(), mmvae.MMVAE(mmvae.encoders(), mmvae.decoders()).double()
    torch.nn.init.normal_(ours.prior.scale)
    state = [x for name, x in ours.state_dict().items() if not name.startswith("prior.")]
    model.load_state_dict(dict(zip(model.state_dict(), [ours.prior.scale, *state], strict=True)))
    x = {
        name: torch.rand(3, *size, dtype=torch.float64)
        for name, size in (("mnist", (1, 28, 28)), ("svhn", (3, 32, 32)))
    }
    torch.manual_seed(0)
    loss, bound = mmvae.dreg_looser(model, x, 4, mmvae.LAMBDA)
    loss.backward()
    torch.manual_seed(0)
    our_loss, _ = DregIwaeElbo(ours, 4, looser=True, gradient="stop-all").loss(x)
    our_loss.backward()
    torch.testing.assert_close(bound, -our_loss, rtol=1e-12, atol=0)  # the reference's loss is the surrogate
    parameters = [ours.prior.scale, *ours.encoder.parameters(), *ours.decoder.parameters()]
    for (name, p), q in zip(model.named_parameters(), parameters, strict=True):
        scale = q.grad.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10 * scale, msg=name)


def test_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mmvae, "EPOCHS", 1)
    monkeypatch.setattr(mmvae, "K", 2)
    (tmp_path / "train_32x32.mat").write_bytes(mat(compressed=True))
    mmvae.main(write_mnist(tmp_path))
    assert capsys.readouterr().out.startswith("epoch 1: bound -")
