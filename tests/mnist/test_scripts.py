"""mnist's scripts on a model trained from its folder."""

import json
import shutil
from datetime import datetime

import mnist.train
from common.errors import InputError
from mnist import analyse, label_expert, loglike, sample
from mnist.data import load
from reports import classifiers
from reports.metrics import Judge
from tests.helpers.authors import authors_file
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import TINY
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call
from training.provenance import provenance

import pytest
import torch


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    return shutil.copytree(trained("mnist"), tmp_path_factory.mktemp("mnist") / "run")


def test_samples_of_a_mixture(run, tmp_path, monkeypatch):
    assert_samples_a_mixture(monkeypatch, sample, run, "--demo", "--limit", 20, "--out-dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mixture_2.png", "mixture_2.txt", "maf.png", "maf.txt"}


def test_label_zero_is_a_condition_like_any_other(run, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "reports.sampling.samples", lambda *_, given, **__: seen.append(given.inputs) or {"text": torch.zeros(1).long()}
    )
    for label in (0, 5):
        given = ("--condition-on-text", label, "--condition-on-image", label)
        call(sample, run, "--demo", *given, "--out-dir", tmp_path)
    digits = load("test", data_config("", demo=True))
    for inputs, label in zip(seen, (0, 5), strict=True):
        assert inputs["text"].tolist() == [label]
        same = (digits[:].modalities["image"] == inputs["image"]).flatten(1).all(dim=1)
        assert digits.modalities["text"][same].tolist() == [label], "an image of that class, between 0 and 1"


def test_samples_lie_beside_the_model_by_default(run):
    call(sample, run / "model_best.pth.tar", "--n-samples", 1)
    call(sample, run / "model_best.pth.tar", "--n-samples", 2, "--condition-on-text", 5, "--demo")
    files = [run / "samples" / f"{name}.txt" for name in ("prior", "given_text_5")]
    assert [len(file.read_text().split()) for file in files] == [1, 2], "neither replaces the other"


def test_loglike_table_and_json(run, tmp_path, capsys):
    estimates = call(loglike, run, "--demo", "--limit", 20, "--n-samples", 50, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content.pop("estimates") == estimates and content.pop("checkpoint")
    about = {"experiment": "mnist", "data": "demo", "split": "test", "n_examples": 20, "n_samples": 50, "seed": 0}
    assert content == about | {"date": datetime.now().date().isoformat(), **provenance()}
    out = capsys.readouterr().out
    for name in ("image", "text", "image,text", "image|text", "text|image"):
        cell = f"log p({name})".replace("|", r"\|")
        assert f"| {cell} | {estimates[f'log p({name})']['mean']:.3f} |" in out
    assert 1 <= estimates["effective samples, log p(image)"]["mean"] <= 50
    assert call(loglike, run, "--demo", "--limit", 20, "--iwae-samples", 50) == estimates, "same seed, same figures"


def test_the_authors_checkpoint_works_wherever_ours_does(tmp_path):
    path = authors_file(tmp_path / "model_best.pth.tar")
    call(sample, path, "--demo", "--condition-on-text", 3, "--n-samples", 2)
    assert call(loglike, path, "--demo", "--limit", 3, "--n-samples", 5)["log p(image)"]["mean"] < -300


@pytest.mark.parametrize("script", [analyse, label_expert])
def test_judges_are_trained_on_training_images(run, monkeypatch, tmp_path, script):
    known = []

    def judge(build, train, name, labels, steps, cache):
        known.append((train[:].modalities["image"], labels))
        return Judge((name,), lambda values: torch.zeros(len(values[name]), 1).long())

    monkeypatch.setattr(analyse, "judge", judge)
    monkeypatch.setattr(classifiers, "MAX_EPOCHS", 1)
    options = ("--steps", 1) if script is label_expert else ("--n-samples", 5, "--no-umap")
    call(script, run, "--demo", "--limit", 60, *options, "--out-dir", tmp_path)
    ((image, labels),) = known
    train = load("train", data_config("", demo=True, limit=60))[:].modalities
    assert image.equal(train["image"]) and labels[:, 0].equal(train["text"])


def test_a_trainings_pictures_of_labels_come_from_aggregate_posteriors_but_for_a_cvae(tmp_path, monkeypatch):
    drawn = []

    def recorded(model, examples, texts, original=sample.from_aggregate_posterior):
        drawn.append((model.modality["image"].given, len(texts)))
        return original(model, examples, texts)

    monkeypatch.setattr(sample, "from_aggregate_posterior", recorded)
    for model in ("mvae", "cvae"):
        call(mnist.train, "--demo", *TINY, "--model", model, "--save-dir", tmp_path / model)
    ((given, n),) = drawn
    assert not given and n % 12 == 0 and (tmp_path / "cvae" / "samples" / "conditional.png").exists()


def test_a_vae_has_no_text_and_a_cvae_needs_it(tmp_path):
    for model in ("vae", "cvae"):
        call(mnist.train, "--demo", *TINY, "--model", model, "--save-dir", tmp_path / model)
    for script, args in ((sample, ("--condition-on-text", 3)), (label_expert, ("--demo",))):
        with pytest.raises(InputError, match="this model has no text|does not model images and labels"):
            call(script, tmp_path / "vae", *args)
    for given in ([], ["--demo", "--condition-on-image", 3]):
        with pytest.raises(InputError, match="give it --condition-on-text"):
            call(sample, tmp_path / "cvae", *given)
    call(sample, tmp_path / "cvae", "--condition-on-text", 3, "--n-samples", 2)
