import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common import runs, training
from common.checkpoints import BEST, LAST, load, load_model
from common.errors import InputError
from mnist import loglike
from mnist import train as mnist_train
from mnist.data import load as load_mnist

ROOT = Path(__file__).parents[1]
SMALL = {"demo": True, "limit": 300, "epochs": 5, "annealing_epochs": 3, "batch_size": 50, "n_latents": 8}


def config(save_dir, **changes):
    return mnist_train.Config(save_dir=save_dir, **(SMALL | changes))


def metrics(save_dir):
    lines = [json.loads(line) for line in (save_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "examples_per_second")} for line in lines]


def assert_same_run(a, b):
    """Bit for bit: the weights, the optimiser's state, the random state, every figure."""
    assert metrics(a) == metrics(b)
    for name in (LAST, BEST):
        x, y = load(a / name), load(b / name)
        assert (x["epoch"], x["best"], x["best_epoch"]) == (y["epoch"], y["best"], y["best_epoch"])
        assert all(x["state_dict"][key].equal(y["state_dict"][key]) for key in x["state_dict"])
    x, y = load(a / LAST), load(b / LAST)
    assert x["rng"]["cpu"].equal(y["rng"]["cpu"])
    for one, other in zip(x["optimizer"]["state"].values(), y["optimizer"]["state"].values(), strict=True):
        assert all(one[key].equal(other[key]) for key in one)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("uninterrupted")
    mnist_train.main(config(save_dir))
    return save_dir


def test_resumed_after_kill_9_is_as_if_never_stopped(tmp_path, uninterrupted):
    options = ["--demo", "--limit=300", "--epochs=5", "--annealing-epochs=3", "--batch-size=50", "--n-latents=8"]
    command = [sys.executable, "train.py", *options, f"--save-dir={tmp_path}"]
    process = subprocess.Popen(command, cwd=ROOT / "mnist", stdout=subprocess.DEVNULL)
    while not (tmp_path / LAST).exists() or len(metrics(tmp_path)) < 2:
        assert process.poll() is None, "it ended by itself"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 5, "tr')  # a line that the kill cut in two
    assert load(tmp_path / LAST)["epoch"] < 5
    mnist_train.main(config(tmp_path, resume=True))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize("step", [2, 8], ids=["first epoch", "second epoch"])
def test_ctrl_c_saves_the_very_batch(tmp_path, uninterrupted, monkeypatch, step):
    def annealed(at, total, original=training.annealed):
        if at == step:
            signal.raise_signal(signal.SIGINT)
        return original(at, total)

    monkeypatch.setattr(training, "annealed", annealed)
    with pytest.raises(KeyboardInterrupt):
        mnist_train.main(config(tmp_path))
    checkpoint = load(tmp_path / LAST)
    assert (checkpoint["epoch"], checkpoint["batch"]) == (step // 5, step % 5 + 1)
    monkeypatch.undo()
    mnist_train.main(config(tmp_path, resume=True))
    assert_same_run(tmp_path, uninterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "the handler is put back"


def test_resuming_a_finished_run_adds_epochs(tmp_path, uninterrupted):
    mnist_train.main(config(tmp_path, epochs=3))
    mnist_train.main(config(tmp_path, epochs=5, resume=True))
    assert_same_run(tmp_path, uninterrupted)


def test_the_save_dir_explains_itself(uninterrupted):
    names = {p.relative_to(uninterrupted).as_posix() for p in uninterrupted.rglob("*") if p.is_file()}
    pictures = {f"samples/{name}.png" for name in ("prior", "conditional", "reconstructions")}
    assert names == {LAST, BEST, "config.json", "metrics.jsonl", "loss.png"} | pictures
    about = json.loads((uninterrupted / "config.json").read_text())
    assert about["experiment"] == "mnist"
    assert about["config"]["batch_size"] == 50 and about["config"]["seed"] == 0
    assert about["versions"]["torch"] == torch.__version__
    lines = metrics(uninterrupted)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["beta"] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    last = lines[-1]
    for split in ("train", "valid"):
        weights = {"image": 1.0, "text": 10.0, "kl": -1.0}
        terms = {name: value for name, value in last[split].items() if name != "bound"}
        assert last[split]["bound"] == pytest.approx(
            sum(weights[n.split("/")[1]] * v for n, v in terms.items()), rel=1e-5
        )


def test_the_best_model_is_the_one_with_the_best_validation_bound(uninterrupted):
    scores = [line["valid"]["bound"] for line in metrics(uninterrupted)]
    best = load(uninterrupted / BEST)
    assert best["best"] == max(scores) and best["epoch"] == best["best_epoch"] == 1 + scores.index(max(scores))


def test_beta_rises_minibatch_by_minibatch_to_one():
    assert [training.annealed(step, 4) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert training.annealed(0, 0) == 1.0


def test_early_stopping(tmp_path, monkeypatch):
    scores = iter([-3.0, -1.0, -2.0, -1.5, -0.5])
    monkeypatch.setattr(training, "evaluate", lambda *_: {"bound": next(scores)})
    monkeypatch.setattr(training, "_draw", lambda *_: None)
    mnist_train.main(config(tmp_path, patience=2, epochs=50))
    checkpoint = load(tmp_path / LAST)
    assert (checkpoint["epoch"], checkpoint["best_epoch"], checkpoint["best"]) == (4, 2, -1.0)
    mnist_train.main(config(tmp_path, patience=3, epochs=5, resume=True))
    assert load(tmp_path / LAST)["best_epoch"] == 5, "more patience goes on"


def test_a_loss_that_is_not_finite_stops_with_its_terms(tmp_path, monkeypatch):
    mnist_train.main(config(tmp_path, epochs=1))
    before = load(tmp_path / LAST)

    def poison(at, total):
        return float("nan") if at == 7 else 1.0

    monkeypatch.setattr(training, "annealed", poison)
    with pytest.raises(
        InputError, match=r"not finite at epoch 2, batch 5.*: bound = nan;.*checkpoints so far are kept"
    ) as error:
        mnist_train.main(config(tmp_path, epochs=3, resume=True))
    assert "\n" not in str(error.value)
    after = load(tmp_path / LAST)
    assert after["epoch"] == 1
    assert all(after["state_dict"][k].equal(before["state_dict"][k]) for k in before["state_dict"])


def test_the_culprit_among_the_terms_is_named(tmp_path):
    with pytest.raises(InputError, match=r"not finite at epoch .*(image|joint)/(image|kl) = (-?inf|nan)"):
        mnist_train.main(config(tmp_path, lr=1e20))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resume": False}, "holds a run already: --resume goes on"),
        ({"lr": 1e-4}, "was run with --lr 0.001, not 0.0001"),
        ({"seed": 1}, "was run with --seed 0, not 1"),
    ],
)
def test_a_save_dir_is_never_mixed_up(uninterrupted, changes, message):
    before = (uninterrupted / "metrics.jsonl").read_text()
    with pytest.raises(InputError, match=message):
        mnist_train.main(config(uninterrupted, **{"resume": True, **changes}))
    assert (uninterrupted / "metrics.jsonl").read_text() == before


def test_another_experiments_save_dir_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"experiment": "celeba", "config": {}}))
    with pytest.raises(InputError, match="holds a run of celeba: choose another --save-dir"):
        mnist_train.main(config(tmp_path, resume=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "--epochs must be positive, not 0"),
        ({"batch_size": -1}, "--batch-size must be positive, not -1"),
        ({"n_latents": 0}, "--n-latents must be positive, not 0"),
        ({"lr": float("nan")}, "--lr must be positive, not nan"),
        ({"limit": -5}, "--limit must be positive, not -5"),
        ({"lambda_text": -1.0}, "--lambda-text must not be negative, it is -1"),
        ({"annealing_epochs": -1}, "--annealing-epochs must not be negative"),
        ({"paired_fraction": 1.5}, r"--paired-fraction must lie in \[0, 1\], it is 1.5"),
        ({"valid": 0, "patience": 3}, "--patience needs validation examples"),
        ({"valid": 300}, "--valid 300 leaves no training example"),
        ({"log_interval": 0}, "--log-interval must be positive"),
    ],
)
def test_impossible_values_leave_no_trace(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        mnist_train.main(config(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_dry_run_shows_the_configuration_and_writes_nothing(tmp_path, capsys):
    mnist_train.main(config(tmp_path / "run", dry_run=True))
    assert json.loads(capsys.readouterr().out)["n_latents"] == 8
    assert not (tmp_path / "run").exists()


def test_training_learns_digits(tmp_path):
    """Held-out figures on the built-in digits after some seconds: far above the untrained, label given the image."""
    settings = config(tmp_path, limit=None, epochs=30, annealing_epochs=10, n_latents=16, lr=2e-3)
    mnist_train.main(settings)
    test = load_mnist("test", "", demo=True)
    estimates = runs.summarise(loglike.evaluate(load_model(tmp_path), test, n_samples=100))
    mean = {name: estimate["mean"] for name, estimate in estimates.items()}
    assert mean["log p(image)"] > -160, "a model of independent pixels has about -230"
    assert mean["label accuracy from the image"] > 0.75
    assert mean["log p(image|text)"] == pytest.approx(mean["log p(image,text)"] - mean["log p(text)"], abs=1e-3)
    assert mean["log p(text)"] == pytest.approx(-2.3, abs=0.2)
    labels = torch.arange(10).repeat(20)
    torch.manual_seed(0)
    model = load_model(tmp_path)
    with torch.no_grad():
        images = model.decode(model.posterior({"text": labels}).sample())["image"].mean
        recognised = model.reconstruct({"image": images})["text"]
    assert (recognised == labels).float().mean() > 0.75, "images of a label are recognised as it"


def test_weak_supervision_uses_the_unpaired(tmp_path):
    """With one label in ten paired, training still sees every image, and the terms say what was scored."""
    mnist_train.main(config(tmp_path, paired_fraction=0.1, epochs=1))
    checkpoint = load(tmp_path / LAST)
    terms = metrics(tmp_path)[0]["train"]
    assert checkpoint["epoch"] == 1
    assert terms["joint/image"] > 0.2 * terms["image/image"]
    n_rows = 25 + 2 * 225
    steps = checkpoint["optimizer"]["state"][0]["step"].item()
    assert steps == -(-n_rows // 50)


def test_separate_runs_of_one_seed_agree_and_of_another_do_not(tmp_path, uninterrupted):
    mnist_train.main(replace(config(tmp_path / "a"), experiment="named"))
    assert_same_run(tmp_path / "a" / "named", uninterrupted)
    mnist_train.main(config(tmp_path / "b", seed=1, epochs=1))
    assert metrics(tmp_path / "b")[0] != metrics(uninterrupted)[0]


def test_exit_codes(capsys):
    def fails(error):
        def main(_):
            raise error

        with pytest.raises(SystemExit) as exit_:
            runs.command_line(main, mnist_train.Config, "", ["--demo"])
        return exit_.value.code

    assert fails(InputError("the thing, and the way out")) == 2
    assert capsys.readouterr().err == "error: the thing, and the way out\n"
    assert fails(KeyboardInterrupt()) == 130
    with pytest.raises(SystemExit) as exit_:
        runs.command_line(lambda _: None, mnist_train.Config, "", ["--no-such-option"])
    assert exit_.value.code == 2
