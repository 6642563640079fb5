"""The search for settings by the validation images."""

import pytest
import torch

from common.checkpoints import load_model
from common.errors import InputError
from common.estimators import log_marginal
from mnist import search
from mnist.data import digits as read_digits
from mnist.data import load
from tests.helpers.data_config import data_config
from tests.helpers.scripts import call

SMALL = ("--demo", "--epochs", 1, "--n-latents", 4, "--limit", 300, "--n-samples", 3, "--jobs", 1)


def test_settings_are_scored_by_validation_images_alone(tmp_path, monkeypatch, capsys):
    loaded = []
    monkeypatch.setattr("mnist.data.digits", lambda split, *args: loaded.append(split) or read_digits(split, *args))
    best, *others = call(search, *SMALL, "--trials", 2, "--seeds", 0, 1, "--save-dir", tmp_path)
    assert set(loaded) == {"train"}
    assert len(others) == 1 and best.value > others[0].value
    assert [trial.params["lambda_text"] for trial in sorted((best, *others), key=lambda t: t.number)] == [1, 10]

    runs = search.Config(save_dir=tmp_path, seeds=(0, 1), epochs=1).runs(best.params)
    model = load_model(runs[1].save_dir)
    valid = load("train", data_config("", demo=True, limit=300))[250:].modalities
    torch.manual_seed(0)
    expected = log_marginal(model, valid, ("image", "text"), ("image",), n_samples=3).mean()
    assert best.user_attrs["scores"][1] == pytest.approx(expected.item(), abs=0.02)
    assert f"python train.py --model mvae --lambda-text {best.params['lambda_text']:g} " in capsys.readouterr().out


def test_a_killed_search_tries_its_setting_again(tmp_path):
    opened = search.study(search.Config(save_dir=tmp_path))
    killed = opened.ask(search.SPACE)
    found = call(search, *SMALL, "--trials", 4, "--seeds", 0, "--save-dir", tmp_path)
    assert [trial.params for trial in found].count(killed.params) == 1 and len(found) == 4
    assert len(call(search, *SMALL, "--trials", 4, "--seeds", 0, "--save-dir", tmp_path)) == 4, "nothing is left to try"


def test_a_setting_that_diverges_is_last(tmp_path, monkeypatch, capsys):
    def score(config, _):
        if config.lambda_text == 1:
            raise InputError("the loss is nan")
        return -100.0 - config.lambda_text

    monkeypatch.setattr(search, "score", score)
    found = call(search, *SMALL, "--trials", 3, "--seeds", 0, "--save-dir", tmp_path)
    assert [trial.params["lambda_text"] for trial in found] == [10, 50, 1]
    assert "| 1 | 0 | 0.001 | 100 | diverged |" in capsys.readouterr().out
    monkeypatch.setattr(search, "score", lambda *_: score(search.Config(), 0))
    with pytest.raises(InputError, match="no setting could be trained: see log.txt in"):
        call(search, *SMALL, "--trials", 3, "--seeds", 0, "--save-dir", tmp_path / "other")
