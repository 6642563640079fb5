"""The scripts of cub, on the demo data."""

import json

from common.checkpoints import load_config
from common.errors import InputError
from common.models.objectives import make_objective
from cub import loglike, sample, train, trained_model
from cub.data import load_train
from cub.demo import features
from cub.model import build
from cub.options import BirdOptions
from tests.helpers.authors import WORDS, authors_folder
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script
from tests.repository.test_evaluations import untrained

import pytest
import torch
import tyro
from PIL import Image


def config(save_dir, **changes):
    small = {"demo": True, "limit": 7, "valid": 2, "epochs": 1, "batch_size": 50, "n_latents": 6, "K": 1}
    return train.Config(save_dir=save_dir, analytics=False, **small | changes)


def test_the_authors_names_of_models_and_their_number_of_hidden_layers_are_taken():
    for theirs, ours in (("cubIS", "images"), ("cubISft", "features")):
        given, same = (tyro.cli(train.Config, args=["--model", name]) for name in (theirs, ours))
        assert given == same and given.model == ours
    assert tyro.cli(train.Config, args=["--num-hidden-layers", "1"]) == train.Config()


def test_the_objectives_weights_are_those_of_the_features():
    options = train.Config(model="features", demo=True)
    options.vocabulary = WORDS
    objective = make_objective(options.obj, build(options), options)
    assert objective.weights == {"feature": 0.002, "caption": 1.0} and objective.K == 50


def test_a_run_is_not_resumed_on_other_words(tmp_path, monkeypatch):
    train.main(config(tmp_path, model="caption"))
    original = trained_model.load_train

    def other_words(*args):
        birds, valid = original(*args)
        config, words = args[0], [*birds.vocabulary.words]  # which other tests of this process share
        config.vocabulary = [*words[:5], "penguin", *words[6:]]
        return birds, valid

    monkeypatch.setattr(train, "load_train", other_words)
    with pytest.raises(InputError, match=r"with another vocabulary: --resume needs the same, or another save_dir$"):
        train.main(config(tmp_path, model="caption", epochs=2, resume=True))


def test_weights_of_another_run_bring_their_words(tmp_path):
    train.main(config(tmp_path / "first", model="caption"))
    before = load_config(tmp_path / "first")["vocabulary"]
    given = config(tmp_path / "second", model="caption", pre_trained=tmp_path / "first")
    given.vocabulary = before[:-3]
    train.main(given)
    assert load_config(tmp_path / "second")["vocabulary"] == before
    (tmp_path / "first").rename(tmp_path / "gone")
    run_script(train, ["--save-dir", tmp_path / "second", "--resume", "--epochs", "2"])
    assert load_config(tmp_path / "second")["vocabulary"] == before, "the run holds its words"


def test_what_is_typed_and_shown_is_what_the_model_is_given(trained, tmp_path, capsys):
    pixels = torch.randint(256, (64, 64, 3), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "bird.png")

    def given(typed, **options):
        config = sample.Config(trained("cub"), demo=True, condition_on_text=typed, **options)
        model, vocabulary = sample.load_trained(config)
        return sample.given(config, model, vocabulary), vocabulary

    found, vocabulary = given("a Yellow zebra has wings", condition_on_image=tmp_path / "bird.png")
    assert "unknown words, all read as <exc>: zebra\n" in capsys.readouterr().out
    assert vocabulary.sentences(found.inputs["caption"]) == ["a yellow <exc> has wings"]
    image = pixels.permute(2, 0, 1)[None].float() / 255
    assert found.beside.equal(image) and found.inputs["feature"].equal(features(image))
    assert found.names == {"text": "a Yellow zebra has wings", "image": "bird.png"}
    found, _ = given(" ".join(["a bird has wings"] * 9))
    assert "too long by 5 words, left out: wings a bird has wings\n" in capsys.readouterr().out
    assert found.inputs["caption"].shape == (1, 32) and list(found.inputs) == ["caption"]
    assert found.beside.isnan().all()


def test_features_of_another_network_are_refused(trained, monkeypatch):
    config = sample.Config(trained("cub"), demo=True)
    model, vocabulary = sample.load_trained(config)
    monkeypatch.setattr(trained_model, "network_behind", lambda config: {"weights": "others", "size": 7})
    message = "was trained on features from weights correlograms of colours, these are from weights others, size 7"
    with pytest.raises(InputError, match=message):
        trained_model.load_birds("test", model, vocabulary, config)


def test_standard_errors_are_of_images(monkeypatch, trained):
    """Ten captions of one image say nothing more about the spread of images."""
    run = trained("cub")
    monkeypatch.setattr(
        loglike, "mmvae_estimates", lambda *_, **__: {"log p(image)": torch.arange(4.0).repeat_interleave(10)}
    )
    found = call(loglike, run, "--demo", "--limit", 4)["log p(image)"]
    assert found == {"mean": 1.5, "stderr": pytest.approx((5 / 3) ** 0.5 / 2)}


def test_features_are_shown_by_their_nearest_training_image():
    birds = load_train(data_config("", BirdOptions(), demo=True, limit=6, valid=0), "feature")[0]
    view = sample.View(None, birds.vocabulary, birds)
    some = torch.tensor([3, 0])
    shown = view.images({"feature": birds.examples.modalities["feature"][some] + 0.01 * torch.randn(2, 2048)})
    assert shown.equal(birds.examples.modalities["image"][some].float() / 255)


@pytest.mark.slow
def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    assert_samples_a_mixture(monkeypatch, sample, trained("cub"), "--demo", "--limit", 12, "--out-dir", tmp_path)


def test_a_model_of_images_alone_has_no_captions(tmp_path):
    options = config(tmp_path, model="image")
    untrained(train.experiment(options), options, tmp_path / "model.pt")
    with pytest.raises(InputError, match="this model has no captions: leave out --condition-on-text"):
        call(sample, tmp_path / "model.pt", "--demo", "--condition-on-text", "a bird")
    call(sample, tmp_path / "model.pt", "--demo", "--n-samples", 2, "--out-dir", tmp_path)
    assert (tmp_path / "prior.png").exists() and not (tmp_path / "prior.txt").exists()
    paper = call(loglike, tmp_path / "model.pt", "--demo", "--limit", 2, "--n-samples", 2, "--paper")
    assert "log p(image) weighed as in training, by the paper's estimator" in paper


def test_the_authors_folder_takes_its_words_from_a_file(tmp_path, capsys):
    authors_folder(tmp_path, "cubISft")
    args = [tmp_path, "--demo", "--limit", 1, "--n-samples", 2]
    with pytest.raises(InputError, match=r"does not hold its vocabulary: add --vocab PATH"):
        call(loglike, *args)
    words = [*WORDS, *(f"other{i}" for i in range(1590 - len(WORDS)))]
    content = {"w2i": {word: i for i, word in enumerate(words)}, "i2w": dict(enumerate(words))}
    (tmp_path / "cub.vocab").write_text(json.dumps(content))
    estimates = call(loglike, *args, "--vocab", tmp_path / "cub.vocab")
    assert "does not say which features it was trained on" in capsys.readouterr().out
    assert estimates["log p(caption)"]["mean"] < 0
    del content["w2i"][words[-1]], content["i2w"][len(words) - 1]
    (tmp_path / "cub.vocab").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has 1589 words, the model 1590"):
        call(loglike, *args, "--vocab", tmp_path / "cub.vocab")
