"""multimnist's scripts on the demo data."""

import json

import multimnist.data
import multimnist.loglike
import multimnist.sample
import multimnist.train
from common.checkpoints import load_model
from multimnist.options import PAPER
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import TINY
from tests.helpers.scripts import call

import pytest
import torch
from PIL import Image


def test_strings_and_images_are_given(trained, tmp_path, monkeypatch):
    """A string of any length; an image by its string, or by a file."""
    shown = multimnist.data.load("test", data_config("", PAPER, demo=True))
    text = next(name for name in multimnist.data.names(shown.modalities["text"]) if len(name) == 4)
    run, seen = trained("multimnist"), []

    def samples(*args, given, **options):
        seen.append(given.inputs)
        return {"text": torch.zeros(1, 4).long()}

    monkeypatch.setattr("reports.sampling.samples", samples)
    Image.new("L", (10, 10), "white").save(tmp_path / "given.png")
    strings = ["1773", "42", ""]
    for given in strings:
        call(multimnist.sample, run, "--condition-on-text", given, "--out-dir", tmp_path)
    for given in (text, tmp_path / "given.png"):
        call(multimnist.sample, run, "--demo", "--condition-on-image", given, "--out-dir", tmp_path)
    assert [multimnist.data.names(inputs["text"]) for inputs in seen[:3]] == [[given] for given in strings]
    same = (shown[:].modalities["image"] == seen[3]["image"]).flatten(1).all(dim=1)
    assert multimnist.data.names(shown.modalities["text"][same]) == [text]
    assert seen[4]["image"].equal(torch.ones(1, 1, 50, 50))


@pytest.mark.parametrize("teacher_forcing", [False, True])
def test_loglike_of_strings_reports_characters_and_strings(trained, tmp_path, teacher_forcing):
    run = tmp_path / "forced" if teacher_forcing else trained("multimnist")
    if teacher_forcing:
        call(multimnist.train, "--demo", *TINY, "--teacher-forcing", "--save-dir", run)
    args = ("--demo", "--limit", 8, "--n-samples", 5, "--json", tmp_path / "out.json")
    estimates = call(multimnist.loglike, run, *args)
    assert json.loads((tmp_path / "out.json").read_text())["experiment"] == "multimnist"
    x = multimnist.data.load("test", data_config("", PAPER, demo=True, limit=8))[:].modalities
    right = load_model(run).reconstruct({"image": x["image"]})["text"] == x["text"]
    assert estimates["character accuracy from the image"]["mean"] == pytest.approx(right.double().mean().item())
    assert estimates["string accuracy from the image"]["mean"] == pytest.approx(right.all(dim=1).double().mean().item())
    assert estimates["log p(image,text)"]["mean"] < 0
