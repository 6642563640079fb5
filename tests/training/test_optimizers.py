"""Optimisers and schedules of the learning rate by name: their rates, and runs that use them."""

import signal

from common.checkpoints import LAST, load
from common.errors import InputError
from mnist import train as mnist_train
from tests.common.test_checkpoints import PairsConfig
from tests.helpers.runs import assert_same_run, config, metrics
from training import loop, optimizers
from training.steps import Step, total_norm

import pytest
import torch
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import CosineAnnealingLR

SMALL = {"limit": 60, "batch_size": 10, "epochs": 4}  # five batches an epoch


def rates(n_batches, **options):
    """The learning rates of all steps."""
    settings = PairsConfig(lr=0.1, **options)
    optimizer = SGD([torch.nn.Parameter(torch.zeros(()))], lr=settings.lr)
    schedule = optimizers.schedule(settings, optimizer, n_batches, 0)
    found = []
    for _ in range(settings.epochs * n_batches):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_norm_of_gradients_in_any_memory_format():
    image = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    gradients = [image, torch.randn(7, 2).t(), torch.randn(()), torch.zeros(0, 2)]
    exact = torch.cat([x.double().flatten() for x in gradients]).norm()
    torch.testing.assert_close(total_norm(gradients).double(), exact, rtol=1e-6, atol=0)
    for x in (torch.nan, torch.inf):
        assert not total_norm([*gradients, torch.tensor([1.0, x])]).isfinite()
    assert total_norm([]) == 0


@pytest.mark.parametrize("name", optimizers.TENSORS)
def test_a_network_may_wait_for_its_first_gradient(name):
    """As a decoder does whose modality the first batches lack."""
    both = [[torch.nn.Parameter(torch.ones(2)) for _ in range(2)] for _ in range(2)]
    ours = optimizers.make(PairsConfig(lr=0.1, optimizer=name), both[0], torch.device("cpu"))
    theirs = Adam(both[1], lr=0.1, amsgrad=name == "amsgrad", foreach=False)
    for late in (False, False, True, True):
        for parameters in both:
            for parameter in parameters if late else parameters[:1]:
                parameter.grad = torch.tensor([1.0, -2.0])
        ours.step()
        theirs.step()
    torch.testing.assert_close(both[0], both[1])
    assert (both[0][1] != 1).all()


def test_the_schedule_is_that_of_torch():
    optimizer = SGD([torch.nn.Parameter(torch.zeros(()))], lr=0.1)
    schedule, expected = CosineAnnealingLR(optimizer, 12), []
    for _ in range(12):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(4, epochs=3, lr_schedule="cosine") == pytest.approx(expected)
    assert set(rates(3, epochs=2)) == {0.1}, "exactly"


def test_a_rate_in_a_tensor_changes_in_place():
    """A CUDA graph reads the tensor's memory."""
    lr = torch.tensor(0.1)
    optimizer = Adam([torch.nn.Parameter(torch.zeros(()))], lr=lr, fused=True)
    settings = PairsConfig(lr=0.1, epochs=2, lr_schedule="cosine")
    schedule = optimizers.schedule(settings, optimizer, 1, 0)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] is lr and lr.item() == pytest.approx(0.05)


def test_the_metrics_have_the_rate_of_the_epochs_last_step(tmp_path, monkeypatch):
    used, step = [], Step.__call__

    def watched(self, *args):
        used.append(self.optimizer.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(Step, "__call__", watched)
    mnist_train.main(config(tmp_path, **SMALL, lr_schedule="cosine"))
    assert [line["lr"] for line in metrics(tmp_path)] == used[4::5] and len(set(used)) == 20
    assert used[0] == 1e-3


@pytest.mark.slow
def test_resumed_in_an_epoch_is_as_if_never_stopped(tmp_path, monkeypatch):
    options = SMALL | {"optimizer": "amsgrad", "lr_schedule": "cosine", "lr": 1e-4}
    tensors = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
    mnist_train.main(config(tmp_path / "whole", **options))

    def annealed(at, total, original=loop.annealed):
        if at == 12:
            signal.raise_signal(signal.SIGINT)
        return original(at, total)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "annealed", annealed)
        with pytest.raises(KeyboardInterrupt):
            mnist_train.main(config(tmp_path / "stopped", **options))
    stopped = load(tmp_path / "stopped" / LAST)
    assert (stopped["epoch"], stopped["batch"]) == (2, 3) and set(stopped["optimizer"]["state"][0]) == tensors
    mnist_train.main(config(tmp_path / "stopped", **options, resume=True))
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_whose_rate_falls_keeps_its_epochs(tmp_path):
    options = SMALL | {"epochs": 1, "lr_schedule": "cosine"}
    mnist_train.main(config(tmp_path, **options))
    with pytest.raises(InputError, match="--epochs 1, not --epochs 5: .* since --lr-schedule cosine ends with them"):
        mnist_train.main(config(tmp_path, **options | {"epochs": 5}, resume=True))
