"""reference/mvae.py: common/ has its loss and its gradients, and it trains."""

import runpy
import sys
from types import SimpleNamespace

from common.objectives import MvaeElbo
from mnist.model import build
from reference import mvae
from tests.helpers.mnist_files import write_mnist
from tests.helpers.scripts import ROOT

import pytest
import torch


def test_loss_and_gradients_are_those_of_our_objective():
    ours = build(SimpleNamespace(n_latents=mvae.D, model="mvae", posterior="gaussian")).double()
    model = mvae.MVAE(mvae.encoders(), mvae.decoders()).double()
    model.load_state_dict(dict(zip(model.state_dict(), ours.state_dict().values(), strict=True)))
    x = {"image": torch.rand(5, 1, 28, 28, dtype=torch.float64), "text": torch.randint(10, (5,))}
    losses = []
    for loss in (lambda: mvae.loss(model, x, beta=0.3), lambda: MvaeElbo(ours, weights=mvae.LAMBDA)(x, beta=0.3)):
        torch.manual_seed(0)
        losses.append(loss())
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
    for (name, p), q in zip(model.named_parameters(), ours.parameters(), strict=True):
        scale = q.grad.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=1e-10 * scale, msg=name)


def test_it_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mvae, "EPOCHS", 2)
    monkeypatch.setattr(mvae, "ANNEALING_EPOCHS", 2)
    mvae.main(write_mnist(tmp_path))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("epoch 1: loss ") and first.endswith(" nats, beta 0.500")
    assert second.startswith("epoch 2: loss ") and second.endswith(" nats, beta 1.000")


@pytest.mark.parametrize("name", ["mvae", "mmvae"])
def test_missing_data_are_told_in_one_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_path(str(ROOT / "reference" / f"{name}.py"), run_name="__main__")
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "is missing" in error and error.count("\n") == 1
