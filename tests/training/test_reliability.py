"""Runs that something befalls: values that are not finite, a second process, a kill, a path out of the save-dir."""

import resource
import subprocess
import sys
from functools import partial

from common.checkpoints import BEST, LAST, load
from common.errors import InputError
from mnist import train as mnist_train
from tests.helpers.runs import config
from tests.helpers.scripts import ROOT
from training import run
from training.steps import Step

import pytest
import torch


def test_a_gradient_that_is_not_finite_changes_no_weight_and_stops_the_run(tmp_path, monkeypatch):
    mnist_train.main(config(tmp_path, epochs=1))
    before = load(tmp_path / LAST)
    steps, seen = [], []
    take = Step.__call__

    def third_is_nan(step, examples, index, n, beta):
        steps.append(index)
        parameter = next(step.objective.parameters())
        handle = parameter.register_hook(lambda gradient: gradient * torch.nan) if len(steps) == 3 else None
        weights = parameter.detach().clone()
        result = take(step, examples, index, n, beta)
        seen.append((result[0].value.isfinite().all().item(), parameter.equal(weights)))
        if handle:
            handle.remove()
        return result

    monkeypatch.setattr(Step, "__call__", third_is_nan)
    with pytest.raises(InputError, match=r"not finite at epoch 2, batch 3 .*: norm of the gradient = nan; "):
        mnist_train.main(config(tmp_path, resume=True, log_interval=1))
    assert seen == [(True, False), (True, False), (True, True)]
    assert all(x.equal(before["state_dict"][name]) for name, x in load(tmp_path / LAST)["state_dict"].items())


@pytest.mark.parametrize("broken", ["buffer", "moment"])
def test_no_checkpoint_holds_buffers_or_moments_that_are_not_finite(broken, tmp_path, monkeypatch):
    mnist_train.main(config(tmp_path, epochs=1))
    before = (tmp_path / LAST).read_bytes(), (tmp_path / BEST).read_bytes()
    take = Step.__call__

    def then_break(step, *args):
        result = take(step, *args)
        if broken == "buffer":
            step.objective.model.register_buffer("running", torch.tensor(torch.inf))
        else:
            next(iter(step.optimizer.state.values()))["exp_avg_sq"].fill_(torch.inf)
        return result

    monkeypatch.setattr(Step, "__call__", then_break)
    name = "running" if broken == "buffer" else "the optimiser's exp_avg_sq of parameter 0"
    with pytest.raises(InputError, match=f"not finite at epoch 2: {name}"):
        mnist_train.main(config(tmp_path, resume=True))
    assert before == ((tmp_path / LAST).read_bytes(), (tmp_path / BEST).read_bytes())


def test_two_runs_do_not_share_a_save_dir(tmp_path, monkeypatch):
    refused = []

    def start_another(*_):
        for resume in (False, True):
            with pytest.raises(InputError, match="another process is at work in .*: wait for its end, or choose"):
                mnist_train.main(config(tmp_path, seed=1, resume=resume))
            refused.append(resume)

    experiment = mnist_train.experiment()._replace(draw=lambda *_, **__: start_another())
    run(config(tmp_path, epochs=1, limit=100), experiment)
    assert refused == [False, True]
    mnist_train.main(config(tmp_path, epochs=2, limit=100, resume=True))


def test_a_run_that_is_refused_holds_no_lock(tmp_path):
    mnist_train.main(config(tmp_path, epochs=1, limit=100))
    with pytest.raises(InputError, match="holds a run already") as kept:  # and so all that its frames hold
        mnist_train.main(config(tmp_path, epochs=1, limit=100))
    mnist_train.main(config(tmp_path, epochs=2, limit=100, resume=True))
    assert "--resume continues it" in str(kept.value)


@pytest.mark.parametrize("name", [LAST, BEST, "loss.png"])
def test_a_folder_in_place_of_a_file_is_noticed_before_training(name, tmp_path):
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(InputError, match=r"without config.json|is not a regular file and stays as it is"):
        mnist_train.main(config(tmp_path, epochs=10**6))


@pytest.mark.slow
def test_memory_that_runs_out_takes_one_line(tmp_path):
    command = [sys.executable, "-m", "mnist.train", "--demo", "--limit", "60", "--n-latents", "300000"]
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (3 * 2**30,) * 2)
    result = subprocess.run(
        [*command, "--save-dir", tmp_path], cwd=ROOT, preexec_fn=limit, capture_output=True, text=True
    )
    assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith("error: memory ran out (")


def test_pictures_that_a_kill_prevented_are_drawn_on_resuming(tmp_path):
    mnist_train.main(config(tmp_path, epochs=1, limit=100))
    (tmp_path / "loss.png").unlink()
    (tmp_path / "samples" / "prior.png").unlink()
    mnist_train.main(config(tmp_path, epochs=1, limit=100, resume=True))
    assert (tmp_path / "loss.png").exists() and (tmp_path / "samples" / "prior.png").exists()
    drawn = (tmp_path / "loss.png").stat().st_mtime_ns
    mnist_train.main(config(tmp_path, epochs=1, limit=100, resume=True))
    assert (tmp_path / "loss.png").stat().st_mtime_ns == drawn, "nothing is drawn twice"
