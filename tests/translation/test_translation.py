"""Numbers in English and French: the data, the networks, and the scripts on a model that learns them."""

import sys

import multimnist.model
import reports.metrics
from common.checkpoints import load_model
from common.errors import InputError
from multimnist.model import TextDecoder, TextEncoder
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call
from translation import data, loglike, sample, train

import pytest
import torch

RIGHT = "accuracy, english -> french"


def test_every_number_is_written_once_and_in_one_split():
    splits = [data.load(split, data_config()).modalities for split in ("train", "test")]
    assert [len(x["french"]) for x in splits] == [9000, 1000]
    texts = {name: [text for x in splits for text in data.names(x[name], name)] for name in data.CODES}
    assert all(len(set(of_language)) == 10_000 for of_language in texts.values())
    french = dict(zip(texts["english"], texts["french"], strict=True))
    assert french["zero"] == "zéro" and french["eighty"] == "quatre vingts"
    assert french["two hundred and seventy one"] == "deux cent soixante et onze"
    assert french["nine thousand nine hundred and ninety nine"] == "neuf mille neuf cent quatre vingt dix neuf"
    few = data.load("test", data_config(limit=3)).modalities["english"]
    assert few.shape == (3, data.LENGTH) and few.equal(splits[1]["english"][:3])


def test_texts_are_read_as_people_write_them():
    for text in ("Twenty-one", "twenty one", " twenty  ONE "):
        assert data.names(data.parse(text, "english"), "english") == ["twenty one"]
    assert data.parse("quatre-vingts", "french").shape == (1, data.LENGTH)


def test_a_missing_num2words_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "num2words", None)
    data.numbers.cache_clear()
    with pytest.raises(InputError, match="pip install num2words"):
        data.numbers("english")


@pytest.mark.parametrize("length", [2, 8])
def test_texts_have_any_length_and_vocabulary(length):
    encoder, decoder = TextEncoder((3, 3), 30), TextDecoder(3, 30, length, start=28).eval()
    assert [x.shape for x in encoder(torch.randint(30, (5, length)))] == [(5, 3), (5, 3)]
    z = torch.randn(5, 3)
    logits = decoder(z)
    assert logits.shape == (5, length, 30) and decoder.sos(z).unique().tolist() == [28]
    torch.testing.assert_close(logits, decoder.teacher_forced(z, logits.argmax(dim=-1)))


def train_on_a_few(save_dir, epochs):
    short = {"limit": 12, "valid": 0, "annealing_epochs": epochs, "batch_size": 4, "n_latents": 8, "lr": 5e-3}
    weights = {"lambda_english": 10, "lambda_french": 10}
    train.main(train.Config(save_dir=save_dir, epochs=epochs, **short, **weights))


@pytest.mark.slow
def test_a_model_learns_to_translate(tmp_path, capsys, monkeypatch):
    """A small one, which learns a few numbers by heart."""
    monkeypatch.setattr(multimnist.model, "N_HIDDEN", 100)
    train_on_a_few(tmp_path / "run", epochs=40)
    trained = tmp_path / "run"
    learnt = data.load("train", data_config(limit=12))
    accuracies = reports.metrics.evaluate_examples(load_model(trained), learnt, [loglike.accuracies], 10)
    assert accuracies[RIGHT].mean() > 0.7 and accuracies["accuracy, french -> english"].mean() > 0.7
    known = int(accuracies[RIGHT].argmax())
    english, french = (data.names(learnt.modalities[name][known : known + 1], name)[0] for name in data.CODES)
    capsys.readouterr()
    call(sample, trained, "--condition-on-english", english.replace(" ", "-"), "--out-dir", tmp_path)
    assert capsys.readouterr().out.splitlines()[0].endswith(f" = {french}")
    assert (tmp_path / f"given_english_{english.replace(' ', '-')}.txt").read_text().endswith(f" = {french}\n")


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, sample, trained("translation"), *options)
    assert {path.name for path in tmp_path.iterdir()} == {"mixture_2.txt", "maf.txt"}


def test_samples_and_translations_are_lines(trained, tmp_path):
    call(sample, trained("translation"), "--n-samples", 5, "--out-dir", tmp_path)
    said = (tmp_path / "prior.txt").read_text().splitlines()
    assert len(said) == 5 and all(" = " in line for line in said)
    call(sample, trained("translation"), "--n-samples", 5, "--reconstruct", "--out-dir", tmp_path)
    said = (tmp_path / "translations.txt").read_text().splitlines()
    assert len(said) == 10 and any("(wrong: " in line for line in said), "it has not seen test numbers"


def test_what_is_given_is_shown_as_it_is(trained, tmp_path, capsys):
    unseen = "nine thousand seven hundred and sixty-eight"
    call(sample, trained("translation"), "--condition-on-english", unseen, "--out-dir", tmp_path)
    (given,) = data.names(data.parse(unseen, "english"), "english")
    assert capsys.readouterr().out.startswith(f"{given} = ") and "seven hundred" in given
