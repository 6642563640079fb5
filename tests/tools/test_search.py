"""The search for options by validation examples, over any folder's train.py."""

import os

from common.checkpoints import load_model
from common.errors import Diverged, InputError
from common.estimators import log_marginal
from mnist import train as mnist_train
from mnist.data import digits as read_digits
from mnist.data import load
from tests.helpers.data_config import data_config
from tools import search
from training.command_line import parse

import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

SMALL = ("--demo", "--epochs", 1, "--n-latents", 4, "--limit", 60, "--n-samples", 3, "--jobs", 1)
OVER = ("--over", "lambda-text=1,10,50", "lr=1e-3,2e-3")


def given(*args, folder="mnist"):
    return parse(search.config_of(folder), None, [folder, *map(str, args)])


def call(*args, folder="mnist"):
    return search.main(given(*args, folder=folder))


def plan(*args):
    return search.plan_of(given(*OVER, *args))


@pytest.mark.slow
def test_settings_are_scored_by_validation_images_alone(tmp_path, monkeypatch, capsys):
    loaded = []
    monkeypatch.setattr("mnist.data.digits", lambda split, *args: loaded.append(split) or read_digits(split, *args))
    of_label = ("--target", "image", "text", "--given", "image")
    best, *others = call(*OVER, *SMALL, *of_label, "--trials", 2, "--seeds", 0, 1, "--save-dir", tmp_path)
    assert set(loaded) == {"train"}
    assert len(others) == 1 and best.value > others[0].value
    first = min((best, *others), key=lambda trial: trial.number)
    assert first.params == {"lambda_text": 1.0, "lr": 1e-3}, "the values as given come first"
    runs = plan(*SMALL, "--seeds", 0, 1, "--save-dir", tmp_path).runs(best.params)
    model = load_model(runs[1].save_dir)
    valid = load("train", data_config("", demo=True, limit=60))[50:].modalities
    torch.manual_seed(0)
    expected = log_marginal(model, valid, ("image", "text"), ("image",), n_samples=3).mean()
    assert best.user_attrs["scores"][1] == pytest.approx(expected.item(), abs=1e-3)
    said = capsys.readouterr().out
    chosen = f"--lr {best.params['lr']} --lambda-text {best.params['lambda_text']}"
    assert f"python train.py --demo --limit 60 --n-latents 4 --epochs 1 {chosen}\n" in said
    assert "3 samples of q(z|image); mean and standard deviation over the seeds 0, 1." in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "over"), [("mfeat", "lambda-digit"), ("polymnist", "n-latents=4,5"), ("translation", "lr")]
)
def test_folders_of_every_kind_can_be_searched(folder, over, tmp_path):
    small = ("--epochs", 1, "--limit", 40, "--n-samples", 2, "--jobs", 1, "--trials", 2)
    found = call("--over", over, "--demo", *small, "--save-dir", tmp_path, folder=folder)
    assert len(found) == 2 and found[0].value >= found[1].value
    assert (tmp_path / "search.md").read_text().count("\n| ") == 2


def test_what_is_chosen_and_among_which_values():
    over = ("lr", "n-latents", "lambda-text", "batch-size=20:100", "model=mvae,mopoe", "binary", "posterior")
    found = search.plan_of(given("--over", *over)).space
    assert [*found] == ["lr", "n_latents", "lambda_text", "batch_size", "model", "binary", "posterior"]
    assert found["lr"] == FloatDistribution(1e-4, 1e-2, log=True)
    assert found["n_latents"] == IntDistribution(16, 256, log=True)
    assert found["lambda_text"] == FloatDistribution(0.1, 10, log=True)
    assert found["batch_size"] == IntDistribution(20, 100, log=True)
    assert found["model"] == CategoricalDistribution(["mvae", "mopoe"])
    assert found["binary"] == CategoricalDistribution([False, True])
    assert "vmf" in found["posterior"].choices


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ((), "--over names the options to choose, such as --over lr n-latents"),
        (("alphabet",), "--over alphabet: the train.py of this folder has no option --alphabet"),
        (("max-grad-norm",), "--over max-grad-norm: give its values, max-grad-norm=A,B,C"),
        (("lr=fast",), "--over lr: 'fast' is no value of --lr"),
        (("lr=0.1:0.01",), "--over lr=0.1:0.01: a range is NAME=A:B, with 0 < A < B"),
        (("model=mvae,unknown",), "--over model: 'unknown' is no value of --model"),
        (("batch-size=50,50",), "--over batch-size=50,50: give each value once"),
        (("seed=1,2",), "--over seed: settings would be scored by other examples, leave it out"),
        (("lr=1e-3,2e-3",), "--trials 12 is more than the 2 possible settings: give fewer"),
    ],
)
def test_options_that_cannot_be_chosen_are_refused(over, message, tmp_path):
    with pytest.raises(InputError, match=f"^{message}"):
        call("--over", *over, "--demo", "--save-dir", tmp_path)


def test_a_search_needs_validation_examples(tmp_path):
    with pytest.raises(InputError, match="a search needs validation examples: leave out --valid 0, or raise --limit"):
        call(*OVER, *SMALL, "--valid", 0, "--trials", 1, "--save-dir", tmp_path)


def test_what_other_options_imply_follows_what_is_chosen():
    plan = search.plan_of(given("--over", "epochs=8,80", "model"))
    assert [plan.runs({"epochs": epochs})[0].annealing_epochs for epochs in (8, 80)] == [3, 30]


def test_a_killed_search_tries_its_setting_again(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "score", lambda *_: -1.0)
    ours = plan("--save-dir", tmp_path)
    tmp_path.mkdir(exist_ok=True)
    killed = search.new_setting(search.study(ours), ours)
    found = call(*OVER, *SMALL, "--trials", 4, "--save-dir", tmp_path)
    assert [trial.params for trial in found].count(killed.params) == 1 and len(found) == 4
    assert len(call(*OVER, *SMALL, "--trials", 4, "--save-dir", tmp_path)) == 4, "nothing is left to try"


def test_a_setting_that_diverges_is_last(tmp_path, monkeypatch, capsys):
    def score(config, _):
        if config.lambda_text == 1:
            raise Diverged("the loss is nan")
        return -100.0 - config.lambda_text

    monkeypatch.setattr(search, "score", score)
    only = ("--over", "lambda-text=1,10,50")
    found = call(*only, *SMALL, "--trials", 3, "--save-dir", tmp_path)
    assert [trial.params["lambda_text"] for trial in found] == [10, 50, 1]
    assert "| 1 | failed |" in capsys.readouterr().out
    monkeypatch.setattr(search, "score", lambda *_: score(mnist_train.Config(lambda_text=1.0), 0))
    with pytest.raises(InputError, match="no setting could be trained: the loss is nan"):
        call(*only, *SMALL, "--trials", 3, "--save-dir", tmp_path / "other")


def test_settings_that_are_refused_end_no_search(tmp_path):
    small = (*SMALL, "--trials", 2, "--save-dir", tmp_path)
    best, worst = call("--over", "obj=mvae,jnf", *small)
    assert best.params == {"obj": "mvae"} and worst.value is None and "--obj jnf" in worst.user_attrs["failed"]
    with pytest.raises(InputError, match="unknown modality colour: the model has image, text"):
        call("--over", "lr=1e-3", "--target", "colour", *SMALL, "--trials", 1, "--save-dir", tmp_path / "other")


def test_scores_of_other_options_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "score", lambda *_: -1.0)
    call(*OVER, *SMALL, "--trials", 1, "--save-dir", tmp_path)
    call(*OVER, *SMALL, "--trials", 2, "--log-interval", 3, "--save-dir", tmp_path)
    for other, was in ((("--model", "jmvae"), "--model mvae"), (("--target", "text"), "--target")):
        with pytest.raises(InputError, match=f"holds a search with {was}.*: choose another --save-dir"):
            call(*OVER, *SMALL, *other, "--trials", 2, "--save-dir", tmp_path)
    with pytest.raises(InputError, match="holds a search with --over lambda-text=1,10,50 lr=1e-3,2e-3: choose another"):
        call("--over", "lambda-text=1,20", "lr=1e-3,2e-3", *SMALL, "--trials", 2, "--save-dir", tmp_path)


@pytest.mark.parametrize("lines", ["{{{\n{{{\n", "{{{\n", "\0\0\n", "1\n", "{}\n", '{"op_code":99}\n', "\xff\n"])
def test_a_damaged_study_is_named(tmp_path, lines):
    (tmp_path / "study.log").write_text(lines, "latin-1")
    damaged = r"study.log is damaged or not a search's study \(.*\): delete it; finished trainings are used again$"
    with pytest.raises(InputError, match=damaged):
        call(*OVER, *SMALL, "--trials", 2, "--save-dir", tmp_path)


def test_a_study_that_may_never_end_is_refused(tmp_path):
    os.mkfifo(tmp_path / "study.log")
    with pytest.raises(InputError, match=r"study.log is not a regular file: delete it"):
        call(*OVER, *SMALL, "--trials", 2, "--save-dir", tmp_path)


def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "score", lambda *_: -1.0)
    call(*OVER, *SMALL, "--trials", 1, "--save-dir", tmp_path)
    before = (tmp_path / "study.log").read_bytes()
    fsync = os.fsync

    def full(descriptor):
        os.ftruncate(descriptor, len(before) + 20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"study.log could not be written \(No space left on device\): free"):
        call(*OVER, *SMALL, "--trials", 2, "--save-dir", tmp_path)
    assert len((tmp_path / "study.log").read_bytes()) == len(before) + 20
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(call(*OVER, *SMALL, "--trials", 2, "--save-dir", tmp_path)) == 2


def test_binary_images_are_scored_as_they_are_trained():
    ours = plan("--demo", "--limit", 60, "--binary", "--n-latents", 4)
    (config,) = ours.runs({})
    valid = search.held_out(config, ours, mnist_train.build(config))
    assert set(valid[:].modalities["image"].unique().tolist()) == {0, 1}


def test_no_setting_is_tried_twice(tmp_path):
    ours = search.plan_of(given("--over", "lr=1e-3,2e-3", "batch-size=50,100", "--save-dir", tmp_path))
    opened = search.study(ours)
    at_once = [search.new_setting(opened, ours).params for _ in range(4)]
    assert len({(x["lr"], x["batch_size"]) for x in at_once}) == 4, "settings that are being tried count too"


def test_the_command_names_all_that_is_not_a_default(tmp_path):
    ours = plan("--model", "jmvae", "--n-latents", 8, "--precision", "bf16", "--save-dir", tmp_path)
    chosen = {"lambda_text": 10.0, "lr": 1e-3}
    (config,) = ours.runs(chosen)
    assert search.command(config, chosen) == (
        "python train.py --n-latents 8 --lr 0.001 --precision bf16 --model jmvae --lambda-text 10.0"
    )
