"""fashionmnist's scripts on the demo data."""

import fashionmnist.loglike
import fashionmnist.sample
import fashionmnist.train
from fashionmnist.data import CLASSES
from tests.helpers.demo_runs import TINY, texts
from tests.helpers.scripts import call

import pytest
import torch


@pytest.mark.parametrize("given", ["9", "Ankle boot", "ankle BOOT"])
def test_a_class_is_given_by_number_or_name(trained, tmp_path, monkeypatch, given):
    run, seen = trained("fashionmnist"), []
    monkeypatch.setattr(
        "reports.sampling.samples", lambda *_, given, **__: seen.append(given.inputs) or {"text": torch.zeros(1).long()}
    )
    call(fashionmnist.sample, run, "--demo", "--condition-on-text", given, "--out-dir", tmp_path)
    assert seen[0]["text"].tolist() == [9]


def test_outputs_name_the_classes(trained, tmp_path):
    args = ("--demo", "--condition-on-image", "sandal", "--n-samples", 9, "--out-dir", tmp_path)
    call(fashionmnist.sample, trained("fashionmnist"), *args)
    assert len(texts(tmp_path)) == 9 and set(texts(tmp_path)) <= set(CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["jmvae", "mopoe", "vae", "cvae"])
def test_every_kind_of_model_is_trained_sampled_and_scored(tmp_path, model):
    """By their scripts, each with the pictures and the estimates that it can have."""
    call(fashionmnist.train, "--demo", *TINY, "--model", model, "--save-dir", tmp_path / "run")
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
