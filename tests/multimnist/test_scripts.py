"""multimnist's scripts on the demo data."""

import json

import pytest
import torch
from PIL import Image

import multimnist.data
import multimnist.loglike
import multimnist.sample
import multimnist.train
from common.checkpoints import load_model
from common.errors import InputError
from multimnist.options import PAPER
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import OPTIONS, texts
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("feedback")
    call(multimnist.train, *OPTIONS, "--limit", 100, "--save-dir", save_dir)
    return save_dir


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("forced")
    call(multimnist.train, *OPTIONS, "--limit", 60, "--teacher-forcing", "--save-dir", save_dir)
    return save_dir


@pytest.fixture(params=["feedback", "forced"])
def multi(request):
    return request.getfixturevalue(request.param)


def test_samples_of_a_mixture(feedback, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, multimnist.sample, feedback, *options)


@pytest.mark.parametrize("given", ["1773", "42", ""])
def test_strings_of_any_length_are_given(multi, tmp_path, given):
    call(multimnist.sample, multi, "--condition-on-text", given, "--n-samples", 5, "--out-dir", tmp_path)
    assert len(texts(tmp_path)) == 5 and all(
        len(text) <= 4 and set(text) <= set("0123456789?") for text in texts(tmp_path)
    )


def test_an_image_is_given_by_its_string_or_a_file(multi, tmp_path, monkeypatch):
    shown = multimnist.data.load("test", data_config("", PAPER, demo=True))
    text = next(name for name in multimnist.data.names(shown.modalities["text"]) if len(name) == 4)
    seen = []

    def samples(*args, given, **options):
        seen.append(given.inputs["image"])
        return {"text": torch.zeros(1, 4).long()}

    monkeypatch.setattr("reports.sampling.samples", samples)
    Image.new("L", (10, 10), "white").save(tmp_path / "given.png")
    for given in (text, tmp_path / "given.png"):
        call(multimnist.sample, multi, "--demo", "--condition-on-image", given, "--out-dir", tmp_path)
    same = (shown[:].modalities["image"] == seen[0]).flatten(1).all(dim=1)
    assert multimnist.data.names(shown.modalities["text"][same]) == [text]
    assert seen[1].equal(torch.ones(1, 1, 50, 50))


def test_loglike_of_strings_reports_characters_and_strings(multi, tmp_path, monkeypatch):
    args = ("--demo", "--limit", 8, "--n-samples", 5, "--json", tmp_path / "out.json")
    estimates = call(multimnist.loglike, multi, *args)
    assert json.loads((tmp_path / "out.json").read_text())["experiment"] == "multimnist"
    examples = multimnist.data.load("test", data_config("", PAPER, demo=True, limit=8))[:]
    right = (
        load_model(multi).reconstruct({"image": examples.modalities["image"]})["text"] == examples.modalities["text"]
    )
    assert estimates["character accuracy from the image"]["mean"] == pytest.approx(right.double().mean().item())
    assert estimates["string accuracy from the image"]["mean"] == pytest.approx(right.all(dim=1).double().mean().item())
    assert estimates["log p(image,text)"]["mean"] < 0


@pytest.mark.parametrize("model", ["vae", "cvae"])
def test_no_text_is_forced_where_none_is_modelled(model):
    with pytest.raises(InputError, match=f"--model {model} models no text: leave out --teacher-forcing"):
        multimnist.train.Config(model=model, teacher_forcing=True).check()


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (multimnist.sample, ["--condition-on-text", "12a"], "up to four digits, not '12a'"),
        (multimnist.sample, ["--condition-on-text", "12345"], "up to four digits, not '12345'"),
        (multimnist.sample, ["--condition-on-image", "12345"], "there is no such file, and"),
        (multimnist.loglike, ["--data-dir", "nowhere"], "multimnist.npz is missing"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(feedback, capsys, script, args, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [str(feedback), *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_options_of_the_data_are_those_of_the_training(feedback):
    for script in (multimnist.sample, multimnist.loglike):
        with pytest.raises(InputError, match="was trained with --demo --max-digits 4: give the same options"):
            call(script, feedback, "--demo", "--max-digits", 2)
