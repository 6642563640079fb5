"""The scripts of cub, on the demo data."""

import json
import shutil

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from common.checkpoints import LAST, load, load_config, load_model
from common.errors import InputError
from common.models.objectives import make_objective
from common.objectives import DregIwaeElbo, IwaeElbo, MmvaeElbo, MvaeElbo
from cub import loglike, sample, train, trained_model
from cub.data import load_train
from cub.demo import draw as draw_birds
from cub.demo import features, random_attributes
from cub.model import build
from cub.options import BirdOptions
from tests.helpers.authors import WORDS, authors_folder
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script

SMALL = {"demo": True, "limit": 7, "valid": 2, "epochs": 1, "batch_size": 50, "n_latents": 6}


def config(save_dir="unused", **changes):
    several = {"K": 1} if changes.get("obj", "dreg") in ("dreg", "iwae", "stl") else {}
    return train.Config(save_dir=save_dir, **(SMALL | several | changes))


@pytest.fixture(scope="module", params=["images", "features"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    train.main(config(folder, model=request.param))
    return folder


@pytest.mark.parametrize(("theirs", "ours"), [("cubIS", "images"), ("cubISft", "features")])
def test_the_authors_names_of_the_models(theirs, ours):
    given, same = (tyro.cli(train.Config, args=["--model", name]) for name in (theirs, ours))
    assert given == same and given.model == ours


def test_the_authors_number_of_hidden_layers_is_taken(capsys):
    """Their pre-trained models' flags have it; no other number means anything for networks of birds."""
    assert tyro.cli(train.Config, args=["--num-hidden-layers", "1"]) == train.Config()
    with pytest.raises(SystemExit, match="2"):
        run_script(train, ["--num-hidden-layers", "2"])
    assert "--num-hidden-layers" in capsys.readouterr().err


def test_runs_leave_a_model_pictures_and_its_words(trained):
    model, about = load_model(trained), load_config(trained)
    assert model.modalities in (("image", "caption"), ("feature", "caption"))
    for name in ("prior", *(f"from_{name}" for name in model.modalities)):
        with Image.open(trained / "samples" / f"{name}.png") as picture:
            assert picture.width > 300
        assert len((trained / "samples" / f"{name}.txt").read_text().splitlines()) > 0
    assert {"yellow", "wings", "bill"} < set(about["vocabulary"])
    assert model.encoder["caption"][0].num_embeddings == len(about["vocabulary"])
    line = json.loads((trained / "metrics.jsonl").read_text())
    assert all(torch.tensor([*line[split].values()]).isfinite().all() for split in ("train", "valid"))
    assert load(trained / LAST)["n_train"] == 50, "ten captions of each of 5 images"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"model": "image", "obj": "elbo"},
        {"model": "feature", "obj": "iwae", "K": 2},
        {"model": "caption", "learn_prior": False},
        {"model": "features", "obj": "elbo"},
        {"model": "features", "fusion": "poe"},
        {"model": "features", "fusion": "mopoe", "obj": "iwae", "looser": False},
        {"model": "features", "posterior": "vmf"},
    ],
)
def test_models_and_objectives_train_and_load(tmp_path, options):
    few = {"limit": 3, "valid": 1} if options["model"] == "feature" else {}
    options = config(tmp_path, **options, **few, analytics=False, logp=bool(few))
    train.main(options)
    assert load_model(tmp_path).modalities == train.MODELS[options.model].modalities
    if options.posterior != "vmf" and options.fusion == "moe":
        assert (load_model(tmp_path).state_dict()["prior.scale"] != 0).any().item() == options.learn_prior


@pytest.mark.slow
def test_training_learns_what_captions_are_like(tmp_path):
    """Words as likely as they are wherever they stand have -69 nats, each at its place about -20."""
    train.main(config(tmp_path, model="caption", limit=120, valid=20, batch_size=10, analytics=False))
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["valid"]["bound"] > -40


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, DregIwaeElbo),
        ({"obj": "iwae"}, IwaeElbo),
        ({"obj": "elbo"}, MmvaeElbo),
        ({"fusion": "poe"}, MvaeElbo),
        ({"fusion": "poe", "obj": "dreg"}, DregIwaeElbo),
    ],
)
def test_objectives_by_name(options, kind):
    options = train.Config(**SMALL, model="features", **options)
    options.vocabulary = WORDS
    objective = make_objective(options.obj, build(options), options)
    assert type(objective) is kind
    assert objective.weights == {"feature": 0.002, "caption": 1.0}
    if isinstance(objective, IwaeElbo):
        assert objective.K == 50


@pytest.mark.slow
def test_a_resumed_run_is_the_run_never_stopped(tmp_path):
    options = {"model": "features", "analytics": False, "limit": 5, "valid": 1, "batch_size": 20}
    train.main(config(tmp_path / "whole", epochs=2, **options))
    train.main(config(tmp_path / "parts", epochs=1, **options))
    train.main(config(tmp_path / "parts", epochs=2, resume=True, **options))
    whole, parts = (load(tmp_path / name / LAST)["state_dict"] for name in ("whole", "parts"))
    assert all(x.equal(parts[name]) for name, x in whole.items())


def test_a_run_is_not_resumed_on_other_words(tmp_path, monkeypatch):
    options = {"model": "caption", "analytics": False}
    train.main(config(tmp_path, **options))
    original = trained_model.load_train

    def other_words(*args):
        birds, valid = original(*args)
        birds.vocabulary.words[5] = "penguin"
        return birds, valid

    monkeypatch.setattr(train, "load_train", other_words)
    with pytest.raises(InputError, match=r"with another vocabulary: --resume needs the same, or another save_dir$"):
        train.main(config(tmp_path, epochs=2, resume=True, **options))


def test_weights_of_another_run_bring_their_words(tmp_path):
    train.main(config(tmp_path / "first", model="caption", analytics=False))
    before = load_config(tmp_path / "first")["vocabulary"]
    given = train.Config(pre_trained=tmp_path / "first", save_dir=tmp_path / "second", **SMALL, model="caption", K=1)
    given.analytics, given.vocabulary = False, before[:-3]
    train.main(given)
    assert load_config(tmp_path / "second")["vocabulary"] == before
    args = [
        "--pre-trained",
        tmp_path / "first",
        "--save-dir",
        tmp_path / "third",
        "--demo",
        "--limit",
        "5",
        "--no-analytics",
    ]
    run_script(train, [str(arg) for arg in args])
    about = load_config(tmp_path / "third")
    assert about["vocabulary"] == before and (about["model"], about["limit"]) == ("caption", 5)
    shutil.rmtree(tmp_path / "first")
    args = ["--save-dir", tmp_path / "third", "--resume", "--epochs", "2"]
    run_script(train, [str(arg) for arg in args])
    assert load_config(tmp_path / "third")["vocabulary"] == before, "the run holds its words"


@pytest.mark.parametrize("condition", ["nothing", "text", "image", "both"])
def test_sampling_given_anything(trained, tmp_path, condition, capsys):
    picture = draw_birds(random_attributes(1, torch.Generator()), torch.Generator())[0].permute(1, 2, 0)
    Image.fromarray(picture.numpy()).resize((80, 70)).save(tmp_path / "bird.png")
    args = [trained, "--demo", "--limit", 12, "--n-samples", 8, "--out-dir", tmp_path]
    args += ["--condition-on-text", "a Yellow zebra has black wings."] if condition in ("text", "both") else []
    args += ["--condition-on-image", tmp_path / "bird.png"] if condition in ("image", "both") else []
    call(sample, *args)
    out = capsys.readouterr().out
    assert ("unknown words, all read as <exc>: zebra\n" in out) == (condition in ("text", "both"))
    text = "text_a_Yellow_zebra_has_black_wings_"
    names = {"text": text, "image": "image_bird_png", "both": f"{text}_image_bird_png"}
    name = "prior" if condition == "nothing" else f"given_{names[condition]}"
    with Image.open(tmp_path / f"{name}.png") as found:
        assert found.width > 300
    words = set(load_config(trained)["vocabulary"])
    lines = (tmp_path / f"{name}.txt").read_text().splitlines()
    assert 0 < len(lines) <= 8 and words & set(" ".join(lines).split())


def test_what_is_typed_is_what_the_model_is_given(trained):
    options = sample.Config(trained, demo=True, condition_on_text="a small bird has yellow wings")
    model, vocabulary = sample.load_trained(options)
    given = sample.given(options, model, vocabulary)
    assert vocabulary.sentences(given.inputs["caption"]) == ["a small bird has yellow wings"]
    assert given.beside.isnan().all() and list(given.inputs) == ["caption"]


def test_standard_errors_are_of_images(monkeypatch, trained):
    """Ten captions of one image say nothing more about the spread of images."""
    monkeypatch.setattr(
        loglike, "mmvae_estimates", lambda *_, **__: {"log p(image)": torch.arange(4.0).repeat_interleave(10)}
    )
    found = call(loglike, trained, "--demo", "--limit", 4)["log p(image)"]
    assert found == {"mean": 1.5, "stderr": pytest.approx((5 / 3) ** 0.5 / 2)}


def test_what_is_too_long_is_said(trained, capsys):
    typed = " ".join(["a bird has wings"] * 9)
    options = sample.Config(trained, demo=True, condition_on_text=typed)
    given = sample.given(options, *sample.load_trained(options))
    assert given.inputs["caption"].shape == (1, 32)
    assert "too long by 5 words, left out: wings a bird has wings\n" in capsys.readouterr().out


def test_features_are_shown_by_their_nearest_training_image():
    birds = load_train(data_config("", BirdOptions(), demo=True, limit=6, valid=0), "feature")[0]
    view = sample.View(None, birds.vocabulary, birds)
    some = torch.tensor([3, 0])
    shown = view.images({"feature": birds.examples.modalities["feature"][some] + 0.01 * torch.randn(2, 2048)})
    assert shown.equal(birds.examples.modalities["image"][some].float() / 255)
    assert features(birds.examples.modalities["image"][some]).equal(birds.examples.modalities["feature"][some])


@pytest.mark.slow
def test_test_birds_are_decoded(trained, tmp_path):
    for name in load_model(trained).modalities:
        call(sample, trained, "--demo", "--limit", 12, "--given", name, "--n-samples", 5, "--out-dir", tmp_path)
        assert (tmp_path / f"from_{name}.png").exists()
        assert len((tmp_path / f"from_{name}.txt").read_text().splitlines()) == 5


@pytest.mark.slow
def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    assert_samples_a_mixture(monkeypatch, sample, trained, "--demo", "--limit", 12, "--out-dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"mixture_2.png", "mixture_2.txt"}


def test_loglike(trained, tmp_path, capsys):
    args = [trained, "--demo", "--limit", 2, "--n-samples", 5, "--paper", "--json", tmp_path / "out.json"]
    estimates = call(loglike, *args)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["estimates"] == estimates
    assert (content["experiment"], content["n_examples"]) == ("cub", 2), "images"
    source = load_model(trained).modalities[0]
    for name in (f"{source},caption", source, "caption", f"caption), z from q(z|{source}"):
        assert f"log p({name})" in estimates
    assert "cub, 10 captions each, demo data, 2 test examples, 5 samples" in capsys.readouterr().out


def test_the_authors_folder_takes_its_words_from_a_file(tmp_path, capsys):
    authors_folder(tmp_path, "cubISft")
    args = [tmp_path, "--demo", "--limit", 1, "--n-samples", 2]
    with pytest.raises(InputError, match=r"does not hold its vocabulary: add --vocab PATH"):
        call(loglike, *args)
    with pytest.raises(InputError, match=r"does not hold its vocabulary: add --vocab PATH"):
        train.main(config(tmp_path / "run", model="features", n_latents=64, pre_trained=tmp_path))
    words = [*WORDS, *(f"other{i}" for i in range(1590 - len(WORDS)))]
    content = {"w2i": {word: i for i, word in enumerate(words)}, "i2w": dict(enumerate(words))}
    (tmp_path / "cub.vocab").write_text(json.dumps(content))
    estimates = call(loglike, *args, "--vocab", tmp_path / "cub.vocab")
    assert "does not say which features it was trained on" in capsys.readouterr().out
    assert np.isfinite(estimates["log p(caption)"]["mean"])
    call(sample, tmp_path, "--demo", "--limit", 12, "--n-samples", 2, "--vocab", tmp_path / "cub.vocab")
    del content["w2i"][words[-1]], content["i2w"][len(words) - 1]
    (tmp_path / "cub.vocab").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has 1589 words, the model 1590"):
        call(loglike, *args, "--vocab", tmp_path / "cub.vocab")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--condition-on-text", "zyzzyva qwerty"], "has no word that the model knows"),
        (["--condition-on-text", " "], "has no word that the model knows"),
        (["--condition-on-image", "none.jpg"], "none.jpg is missing"),
        (["--given", "caption", "--condition-on-text", "a bird"], "--given takes test birds"),
        (["--vocab", "cub.vocab"], "holds its own vocabulary: leave out --vocab"),
        (["--n-samples", "0"], "--n-samples must be positive"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, capsys, args, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(sample, [str(trained), "--demo", "--limit", "12", *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.slow
def test_a_modality_that_a_model_lacks_is_named(trained, tmp_path):
    train.main(config(tmp_path / "run", model="image", analytics=False))
    for args, message in (
        (["--condition-on-text", "a bird"], "this model has no captions"),
        (["--given", "caption"], "this model has no caption: use --given image"),
    ):
        with pytest.raises(InputError, match=message):
            call(sample, tmp_path / "run", "--demo", *args)
    call(sample, tmp_path / "run", "--demo", "--n-samples", 2)
    assert not (tmp_path / "run" / "samples" / "prior.txt").exists()
    shutil.rmtree(tmp_path / "run")
