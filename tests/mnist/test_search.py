"""The search for settings by the validation images."""

from pathlib import Path

import pytest
import torch

from common.checkpoints import load_model
from common.errors import Diverged, InputError
from common.estimators import log_marginal
from mnist import search
from mnist.data import digits as read_digits
from mnist.data import load
from tests.helpers.data_config import data_config
from tests.helpers.scripts import call

SMALL = ("--demo", "--epochs", 1, "--n-latents", 4, "--limit", 60, "--n-samples", 3, "--jobs", 1)


def test_settings_are_scored_by_validation_images_alone(tmp_path, monkeypatch, capsys):
    loaded = []
    monkeypatch.setattr("mnist.data.digits", lambda split, *args: loaded.append(split) or read_digits(split, *args))
    best, *others = call(search, *SMALL, "--trials", 2, "--seeds", 0, 1, "--save-dir", tmp_path)
    assert set(loaded) == {"train"}
    assert len(others) == 1 and best.value > others[0].value
    assert [trial.params["lambda_text"] for trial in sorted((best, *others), key=lambda t: t.number)] == [1, 10]

    runs = search.Config(save_dir=tmp_path, seeds=(0, 1), epochs=1).runs(best.params)
    model = load_model(runs[1].save_dir)
    valid = load("train", data_config("", demo=True, limit=60))[50:].modalities
    torch.manual_seed(0)
    expected = log_marginal(model, valid, ("image", "text"), ("image",), n_samples=3).mean()
    assert best.user_attrs["scores"][1] == pytest.approx(expected.item(), abs=1e-3)
    assert f" --lambda-text {best.params['lambda_text']}\n" in capsys.readouterr().out


def test_a_killed_search_tries_its_setting_again(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "score", lambda *_: -1.0)
    opened = search.study(search.Config(save_dir=tmp_path))
    killed = search.new_setting(opened)
    found = call(search, *SMALL, "--trials", 4, "--seeds", 0, "--save-dir", tmp_path)
    assert [trial.params for trial in found].count(killed.params) == 1 and len(found) == 4
    assert len(call(search, *SMALL, "--trials", 4, "--seeds", 0, "--save-dir", tmp_path)) == 4, "nothing is left to try"


def test_a_setting_that_diverges_is_last(tmp_path, monkeypatch, capsys):
    def score(config, _):
        if config.lambda_text == 1:
            raise Diverged("the loss is nan")
        return -100.0 - config.lambda_text

    monkeypatch.setattr(search, "score", score)
    found = call(search, *SMALL, "--trials", 3, "--seeds", 0, "--save-dir", tmp_path)
    assert [trial.params["lambda_text"] for trial in found] == [10, 50, 1]
    assert "| 1 | 0 | 0.001 | 100 | diverged |" in capsys.readouterr().out
    monkeypatch.setattr(search, "score", lambda *_: score(search.Config(), 0))
    with pytest.raises(InputError, match="every setting diverged: the loss is nan"):
        call(search, *SMALL, "--trials", 3, "--seeds", 0, "--save-dir", tmp_path / "other")


def test_scores_of_other_options_are_not_mixed(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "score", lambda *_: -1.0)
    call(search, *SMALL, "--trials", 1, "--seeds", 0, "--save-dir", tmp_path)
    call(search, *SMALL, "--trials", 2, "--seeds", 0, "--log-interval", 3, "--save-dir", tmp_path)
    with pytest.raises(InputError, match=r"holds a search with --model mvae: choose another --save-dir"):
        call(search, *SMALL, "--model", "jmvae", "--trials", 2, "--seeds", 0, "--save-dir", tmp_path)
    monkeypatch.setitem(search.SPACE, "annealing", (0.4, 0.9))
    with pytest.raises(InputError, match=r"holds a search among other settings than SPACE here: choose another --save"):
        call(search, *SMALL, "--trials", 2, "--seeds", 0, "--save-dir", tmp_path)


def test_a_damaged_study_is_named(tmp_path):
    (tmp_path / "study.log").write_text("{{{\n{{{\n")
    with pytest.raises(InputError, match=r"study.log is damaged: delete it"):
        call(search, *SMALL, "--save-dir", tmp_path)


def test_binary_images_are_scored_as_they_are_trained():
    valid = search.validation(search.Config(demo=True, limit=60, binary=True))
    assert set(valid[:].modalities["image"].unique().tolist()) == {0, 1}


def test_no_setting_is_tried_twice(tmp_path, monkeypatch):
    space = {"lambda_text": (1.0,), "annealing": (0.0,), "lr": (1e-3, 2e-3), "batch_size": (50, 100)}
    monkeypatch.setattr(search, "SPACE", space)
    opened = search.study(search.Config(save_dir=tmp_path))
    at_once = [search.new_setting(opened).params for _ in range(4)]
    assert len({(x["lr"], x["batch_size"]) for x in at_once}) == 4, "settings that are being tried count too"


def test_the_command_names_all_that_is_not_a_default():
    config = search.Config(model="jmvae", n_latents=8, precision="bf16", save_dir=Path("x")).runs(search.FIRST[1])[0]
    assert search.command(config) == (
        "python train.py --n-latents 8 --epochs 40 --batch-size 100 --lr 0.001 --annealing-epochs 16 --precision bf16 "
        "--model jmvae --lambda-text 10.0"
    )
