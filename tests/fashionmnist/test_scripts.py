"""fashionmnist's scripts on the demo data."""

import pytest
import torch

import fashionmnist.loglike
import fashionmnist.sample
import fashionmnist.train
import multimnist.loglike
from fashionmnist.data import CLASSES
from tests.helpers.demo_runs import OPTIONS, texts
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("fashion")
    call(fashionmnist.train, *OPTIONS, "--limit", 100, "--save-dir", save_dir)
    return save_dir


@pytest.mark.parametrize("given", ["9", "Ankle boot", "ankle BOOT"])
def test_a_class_is_given_by_number_or_name(fashion, tmp_path, monkeypatch, given):
    seen = []
    monkeypatch.setattr(
        "reports.sampling.samples", lambda *_, given, **__: seen.append(given.inputs) or {"text": torch.zeros(1).long()}
    )
    call(fashionmnist.sample, fashion, "--condition-on-text", given, "--out-dir", tmp_path)
    assert seen[0]["text"].tolist() == [9]


def test_samples_of_a_mixture(fashion, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, fashionmnist.sample, fashion, *options)


def test_outputs_name_the_classes(fashion, tmp_path):
    args = ("--demo", "--condition-on-image", "sandal", "--n-samples", 9, "--out-dir", tmp_path)
    call(fashionmnist.sample, fashion, *args)
    assert len(texts(tmp_path)) == 9 and set(texts(tmp_path)) <= set(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["jmvae", "mopoe", "mvae-q", "vae", "cvae", "bivcca"])
def test_every_model_is_trained_sampled_and_scored(tmp_path, model):
    """By their scripts, each with the pictures and the estimates that it can have."""
    args = (*OPTIONS, "--limit", 100, "--model", model, "--save-dir", tmp_path / "run")
    call(fashionmnist.train, *args)
    pictures = {path.name for path in (tmp_path / "run" / "samples").iterdir()}
    expected = {"reconstructions.png", *(() if model == "vae" else ("conditional.png",))}
    assert pictures == expected | (set() if model == "cvae" else {"prior.png"})
    call(fashionmnist.sample, tmp_path / "run", "--demo", "--reconstruct", "--n-samples", 3)
    estimates = call(fashionmnist.loglike, tmp_path / "run", "--demo", "--limit", 5, "--n-samples", 4)
    likelihoods = {name for name in estimates if name.startswith("log p")}
    if model in ("vae", "cvae"):
        assert likelihoods == {"log p(image)" if model == "vae" else "log p(image|text)"}
    else:
        assert {"log p(image)", "log p(image,text)", "log p(image|text)"} < likelihoods


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (fashionmnist.sample, ["--condition-on-text", "boots"], "a name among T-shirt/top, Trouser"),
        (fashionmnist.sample, ["--condition-on-text", "10"], "a class is a number from 0 to 9 or"),
        (fashionmnist.loglike, ["--data-dir", "nowhere"], "there is no folder nowhere: --data-dir"),
        (multimnist.loglike, ["--demo"], "is a checkpoint of fashionmnist, not of multimnist"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(fashion, capsys, script, args, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [str(fashion), *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1
