"""The scripts of the folders that share mnist's: fashionmnist and multimnist, and the analysis of weak supervision."""

import json
import subprocess
import sys
import time

import pytest
import torch
import tyro
from PIL import Image

import fashionmnist.analyse
import fashionmnist.loglike
import fashionmnist.sample
import fashionmnist.train
import mnist.analyse
import mnist.sample
import mnist.train
import multimnist.data
import multimnist.loglike
import multimnist.sample
import multimnist.train
from common import runs
from common.checkpoints import load_model
from common.errors import InputError
from common.parallel import in_parallel
from fashionmnist.data import CLASSES
from mnist.data import MNIST
from mnist.data import load as load_mnist
from tests.jobs import sleep_or_fail
from tests.test_scripts import ROOT, call

OPTIONS = ["--demo", "--epochs", "1", "--annealing-epochs", "1", "--n-latents", "8"]


def train_in(folder, save_dir, *options):
    command = [sys.executable, "train.py", *OPTIONS, *options, "--save-dir", str(save_dir)]
    result = subprocess.run(command, cwd=ROOT / folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return save_dir


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    return train_in("fashionmnist", tmp_path_factory.mktemp("fashion"), "--limit", "100")


@pytest.fixture(scope="module")
def feedback(tmp_path_factory):
    return train_in("multimnist", tmp_path_factory.mktemp("feedback"), "--limit", "100")


@pytest.fixture(scope="module")
def forced(tmp_path_factory):
    save_dir = tmp_path_factory.mktemp("forced")
    call(multimnist.train, *OPTIONS, "--limit", 60, "--teacher-forcing", "--save-dir", save_dir)
    return save_dir


@pytest.fixture(params=["feedback", "forced"])
def multi(request):
    return request.getfixturevalue(request.param)


def texts(folder):
    return (folder / "sample_text.txt").read_text().split("\n")[:-1]


@pytest.mark.parametrize("given", ["9", "Ankle boot", "ankle BOOT"])
def test_a_class_is_given_by_number_or_name(fashion, tmp_path, monkeypatch, given):
    seen = []
    monkeypatch.setattr("mnist.sample.samples", lambda model, inputs, *_: seen.append(inputs) or ["x"])
    call(fashionmnist.sample, fashion, "--condition-on-text", given, "--out-dir", tmp_path)
    assert seen[0]["text"].tolist() == [9]


def test_outputs_name_the_classes(fashion, tmp_path):
    args = ("--demo", "--condition-on-image", "sandal", "--n-samples", 9, "--out-dir", tmp_path)
    call(fashionmnist.sample, fashion, *args)
    assert len(texts(tmp_path)) == 9 and set(texts(tmp_path)) <= set(CLASSES)


@pytest.mark.parametrize("given", ["1773", "42", ""])
def test_strings_of_any_length_are_given(multi, tmp_path, given):
    call(multimnist.sample, multi, "--condition-on-text", given, "--n-samples", 5, "--out-dir", tmp_path)
    assert len(texts(tmp_path)) == 5 and all(
        len(text) <= 4 and set(text) <= set("0123456789?") for text in texts(tmp_path)
    )


def test_an_image_is_given_by_its_string_or_a_file(multi, tmp_path, monkeypatch):
    shown = multimnist.data.load("test", "", demo=True)
    text = next(name for name in multimnist.data.names(shown.modalities["text"]) if len(name) == 4)
    seen = []
    monkeypatch.setattr("mnist.sample.samples", lambda model, inputs, *_: seen.append(inputs["image"]) or ["x"])
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
    examples = multimnist.data.load("test", "", demo=True, limit=8)[:]
    right = (
        load_model(multi).reconstruct({"image": examples.modalities["image"]})["text"] == examples.modalities["text"]
    )
    assert estimates["character accuracy from the image"]["mean"] == pytest.approx(right.double().mean().item())
    assert estimates["string accuracy from the image"]["mean"] == pytest.approx(right.all(dim=1).double().mean().item())
    assert estimates["log p(image,text)"]["mean"] < 0


@pytest.mark.parametrize(
    ("folder", "script", "args", "message"),
    [
        ("fashion", fashionmnist.sample, ["--condition-on-text", "boots"], "a name among T-shirt/top, Trouser"),
        ("fashion", fashionmnist.sample, ["--condition-on-text", "10"], "a class is a number from 0 to 9 or"),
        ("fashion", fashionmnist.loglike, ["--data-dir", "nowhere"], "t10k-images-idx3-ubyte.gz is missing"),
        ("fashion", multimnist.loglike, ["--demo"], "is a checkpoint of fashionmnist, not of multimnist"),
        ("feedback", multimnist.sample, ["--condition-on-text", "12a"], "up to four digits, not '12a'"),
        ("feedback", multimnist.sample, ["--condition-on-text", "12345"], "up to four digits, not '12345'"),
        ("feedback", multimnist.sample, ["--condition-on-image", "12345"], "there is no such file, and"),
        ("feedback", multimnist.loglike, ["--data-dir", "nowhere"], "multimnist.npz is missing"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(request, capsys, folder, script, args, message):
    with pytest.raises(SystemExit) as exit_:
        runs.command_line(script.main, script.Config, "", [str(request.getfixturevalue(folder)), *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize("model", ["mvae-q", "jmvae", "vae", "cvae", "bivcca", "mopoe"])
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


def test_weights_of_another_family_are_not_taken(tmp_path):
    options = {"demo": True, "limit": 40, "epochs": 1, "n_latents": 4, "model": "bivcca"}
    mnist.train.main(mnist.train.Config(save_dir=tmp_path / "run", **options))
    other = {"posterior": "laplace", "pre_trained": tmp_path / "run", "save_dir": tmp_path / "other"}
    with pytest.raises(InputError, match="has posterior gaussian, not laplace: its parameters would not fit"):
        mnist.train.main(mnist.train.Config(**options, **other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "jmvae", "--paired-fraction", "0.5"], "--model jmvae has no use for unpaired examples"),
        (["--model", "cvae", "--paired-fraction", "0.5"], "--model cvae has no use for unpaired examples"),
        (
            ["--model", "jmvae", "--obj", "elbo"],
            "--obj elbo trains no posterior of a part .* jmvae has jmvae, student, ar",
        ),
        (["--model", "bivcca", "--obj", "ar"], "--obj ar takes KLs between posteriors of subsets, which mixtures"),
        (["--posterior", "laplace"], "a product of laplace experts is no laplace distribution: only their mixture"),
        (["--model", "mvae-q", "--posterior", "vmf"], "quotients are of gaussian experts, not of vmf"),
        (["--obj", "iwae", "--K", "0"], "--K must be positive, not 0"),
        (["--obj", "dreg", "--looser"], "--looser is the mean over a mixture's encoders, and --model mvae is none"),
        (["--model", "vae", "--paired-fraction", "0.5"], "--model vae has no use for unpaired examples"),
        (["--model", "jmvae", "--alpha", "-1"], "--alpha must not be negative, it is -1"),
        (["--model", "mvae", "--obj", "jmvae"], "--obj jmvae draws the posteriors of one modality to that of all"),
    ],
)
def test_models_refuse_what_does_not_go_with_them(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(mnist.train, *OPTIONS, *options, "--save-dir", tmp_path)


def test_a_vae_has_no_text_and_a_cvae_needs_it(tmp_path):
    for model in ("vae", "cvae"):
        call(mnist.train, *OPTIONS, "--limit", 60, "--model", model, "--save-dir", tmp_path / model)
    with pytest.raises(InputError, match="this model has no text"):
        call(mnist.sample, tmp_path / "vae", "--condition-on-text", 3)
    for given in ([], ["--demo", "--condition-on-image", 3]):
        with pytest.raises(InputError, match="give it --condition-on-text"):
            call(mnist.sample, tmp_path / "cvae", *given)
    call(mnist.sample, tmp_path / "cvae", "--condition-on-text", 3, "--n-samples", 2)


def test_options_of_the_data_are_those_of_the_training(feedback):
    for script in (multimnist.sample, multimnist.loglike):
        with pytest.raises(InputError, match="was trained with --max-digits 4: give the same options"):
            call(script, feedback, "--demo", "--max-digits", 2)


@pytest.mark.slow
def test_the_curve_of_weak_supervision(tmp_path, capsys, monkeypatch):
    args = ["weak-supervision", *OPTIONS, "--classifier-steps", 50, "--limit", 200, "--jobs", 1, "--save-dir", tmp_path]
    seen, original = [], mnist.analyse.cross_entropy
    monkeypatch.setattr(
        mnist.analyse, "cross_entropy", lambda logits, y: seen.append((logits, y)) or original(logits, y)
    )
    few = call(mnist.analyse, *args, "--fractions", 0.05, "--seeds", 0, 1)
    assert [(r.fraction, r.n_paired, r.seed) for r in few] == [(0.05, 10, 0), (0.05, 10, 1)]
    assert len(seen) == 2 * 50
    for run in (seen[:50], seen[50:]):
        rows = torch.cat([torch.cat([logits, y[:, None]], dim=1) for logits, y in run[:1]])
        assert len(rows.unique(dim=0)) <= 10 < len(rows), "the classifier sees the pairs alone"
    assert call(mnist.analyse, *args, "--fractions", 0.05, "--seeds", 0, 1) == few
    assert len(seen) == 2 * 50, "a run that is there is not repeated"
    more = call(mnist.analyse, *args, "--fractions", 1, 0.05, "--seeds", 0, 1)
    assert more[:2] == few
    content = json.loads((tmp_path / "weak_supervision.json").read_text())
    assert content["results"][3]["n_paired"] == 200 and content["config"]["epochs"] == 1
    mean, values = 50 * (few[0].model + few[1].model), torch.tensor([few[0].model, few[1].model])
    row = f"| 10 | {mean:.2f} ± {100 * values.double().std():.2f} % |"
    assert row in (tmp_path / "weak_supervision.md").read_text() and row in capsys.readouterr().out
    with Image.open(tmp_path / "weak_supervision.png") as picture:
        assert picture.width > 300
    # what the accuracies are of
    test = load_mnist("test", "", demo=True, limit=200)[:].modalities
    label = load_model(tmp_path / "0.05_seed1").reconstruct({"image": test["image"]})["text"]
    assert few[1].model == pytest.approx((label == test["text"]).double().mean().item())
    call(mnist.analyse, *args, "--fractions", 0.05, "--seeds", 0, "--classifier-steps", 60)
    assert seen[-60:] and len(seen) > 2 * 50 + 60, "another number of steps is another classifier"


@pytest.mark.slow
def test_runs_of_weak_supervision_go_in_parallel(tmp_path):
    """By the command, so that the processes find what the script itself defines."""
    options = ["--classifier-steps", "5", "--limit", "60", "--fractions", "0.5", "--seeds", "0", "1", "--jobs", "2"]
    command = [sys.executable, "analyse.py", "weak-supervision", *OPTIONS, *options, "--save-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT / "mnist", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "weak_supervision.json").read_text())["results"]
    assert [(r["n_paired"], r["seed"]) for r in results] == [(30, 0), (30, 1)]
    assert "epoch 1/1" in (tmp_path / "0.5_seed1" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("first", "message"), [(0, "the first one fails"), (-1, "a run was killed")])
def test_a_run_that_fails_stops_the_others(first, message):
    started = time.monotonic()
    with pytest.raises(InputError, match=message):
        list(in_parallel(sleep_or_fail, [first, 1, 2, 3], jobs=2))
    assert time.monotonic() - started < 100, "none of the others slept its time"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fractions", "0.001"], "--fractions 0.001 of 60 images is no pair at all"),
        (["--fractions", "2"], r"--paired-fraction must lie in \[0, 1\]"),
        (["--fractions", "0.5", "0.5"], "--fractions must name each value once"),
        (["--seeds", "0", "0"], "--seeds must name each value once"),
        (["--jobs", "0"], "--jobs must be positive"),
    ],
)
def test_impossible_curves(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(mnist.analyse, "weak-supervision", *OPTIONS, "--limit", 60, "--jobs", 1, *options, "--save-dir", tmp_path)
    assert not any(tmp_path.iterdir()), "nothing was trained for it"


def test_weak_supervision_fetches_what_is_missing(tmp_path, monkeypatch):
    fetched = []

    def load(split, data_dir, demo, fetch=False, limit=None):
        fetched.append((split, fetch))
        return load_mnist(split, "", demo=True, limit=limit)

    monkeypatch.setattr(mnist.analyse, "run", lambda config, **_: mnist.analyse.Result(0.5, 30, 0, 0.5, 0.5))
    options = ["--epochs", 1, "--limit", 60, "--jobs", 1, "--fractions", 0.5, "--seeds", 0, "--save-dir", tmp_path]
    config = tyro.cli(mnist.analyse.Config, args=["weak-supervision", "--download", *map(str, options)])
    mnist.analyse.main(config, MNIST._replace(load=load))
    assert fetched == [("train", True), ("test", True)]
