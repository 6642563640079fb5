"""mnist's scripts on a model trained from its folder."""

import json
import subprocess
import sys
from datetime import datetime

import pytest
import torch
from PIL import Image

from common.checkpoints import load_model
from common.errors import InputError
from common.multimodal_vae import MultimodalVAE
from mnist import loglike, sample
from mnist.data import load
from tests.helpers.authors import authors_file
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import ROOT, call, run_script
from training.provenance import provenance


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of the demo data, trained from its folder as a user would, in a process of its own."""
    save_dir = tmp_path_factory.mktemp("trained")
    options = ["--demo", "--epochs", "2", "--annealing-epochs", "1", "--n-latents", "8", "--lambda_text", "50."]
    command = [sys.executable, "train.py", *options, "--cuda", "--save-dir", str(save_dir)]
    result = subprocess.run(command, cwd=ROOT / "mnist", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if not torch.cuda.is_available():
        assert "warning: no GPU is available" in result.stderr
    return save_dir


@pytest.mark.parametrize("text", [None, 0, 7])
@pytest.mark.parametrize("image", [None, "0", "4", "file"])
def test_sampling_given_anything(trained, tmp_path, text, image):
    args = [trained, "--demo", "--n-samples", 10, "--out-dir", tmp_path / "out"]
    given = {"image": "given_jpg" if image == "file" else image, "text": text}
    given = [f"{name}_{value}" for name, value in given.items() if value is not None]
    name = "_".join(["given", *given]) if given else "prior"
    if text is not None:
        args += ["--condition-on-text", text]
    if image == "file":
        Image.new("RGB", (40, 56), "white").save(tmp_path / "given.jpg")
        image = tmp_path / "given.jpg"
    if image is not None:
        args += ["--condition-on-image", image]
    call(sample, *args)
    labels = (tmp_path / "out" / f"{name}.txt").read_text().split()
    assert len(labels) == 10 and set(labels) <= set("0123456789")
    with Image.open(tmp_path / "out" / f"{name}.png") as picture:
        assert picture.width > 300


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, sample, trained, *options)
    assert {path.name for path in tmp_path.iterdir()} == {"mixture_2.png", "mixture_2.txt"}


def test_label_zero_is_a_condition_like_any_other(trained, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        "reports.sampling.samples", lambda *_, given, **__: seen.append(given.inputs) or {"text": torch.zeros(1).long()}
    )
    for text, image in ((0, 0), (5, 5)):
        call(
            sample, trained, "--demo", "--condition-on-text", text, "--condition-on-image", image, "--out-dir", tmp_path
        )
    digits = load("test", data_config("", demo=True))
    for inputs, label in zip(seen, (0, 5), strict=True):
        assert inputs["text"].tolist() == [label]
        same = (digits[:].modalities["image"] == inputs["image"]).flatten(1).all(dim=1)
        assert digits.modalities["text"][same].tolist() == [label], "an image of that class, between 0 and 1"


def test_samples_of_the_aggregate_posterior_are_of_the_labels_images(trained, tmp_path, monkeypatch):
    seen, decode = [], MultimodalVAE.decode
    monkeypatch.setattr(
        MultimodalVAE, "decode", lambda self, z, **options: seen.append(z) or decode(self, z, **options)
    )
    args = ["--demo", "--condition-on-text", 3, "--n-samples", 40, "--out-dir", tmp_path]
    call(sample, trained, *args, "--sampler", "aggregate")
    assert (tmp_path / "given_text_3_aggregate.png").exists()
    digits, model = load("train", data_config("", demo=True)), load_model(trained)
    q = model.posterior(digits.take(digits.modalities["text"] == 3)[:].modalities)
    inside = (seen[0][:, None] - q.mean).abs() < 6 * q.stddev  # (40, N, D)
    assert inside.all(dim=2).any(dim=1).all(), "each z belongs to an image of a 3"
    for wrong in (["--condition-on-image", "0"], ["--condition-on-text", 3, "--condition-on-image", "0"], []):
        with pytest.raises(InputError, match="--sampler aggregate needs --condition-on-text, and nothing else"):
            call(sample, trained, "--demo", "--sampler", "aggregate", *wrong)


def test_reconstructions(trained, tmp_path):
    call(sample, trained, "--demo", "--reconstruct", "--n-samples", 5, "--out-dir", tmp_path)
    assert len((tmp_path / "reconstructions.txt").read_text().split()) == 5


def test_samples_lie_beside_the_model_by_default(trained):
    call(sample, trained / "model_best.pth.tar", "--n-samples", 1)
    call(sample, trained / "model_best.pth.tar", "--n-samples", 2, "--condition-on-text", 5)
    files = [trained / "samples" / f"{name}.txt" for name in ("prior", "given_text_5")]
    assert [len(file.read_text().split()) for file in files] == [1, 2], "neither replaces the other"


def test_loglike_table_and_json(trained, tmp_path, capsys):
    estimates = call(loglike, trained, "--demo", "--limit", 20, "--n-samples", 50, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["estimates"] == estimates
    assert {k: v for k, v in content.items() if k not in ("estimates", "checkpoint")} == {
        "experiment": "mnist",
        "data": "demo",
        "split": "test",
        "n_examples": 20,
        "n_samples": 50,
        "seed": 0,
        "date": datetime.now().date().isoformat(),
        **provenance(),
    }
    out = capsys.readouterr().out
    for name in ("image", "text", "image,text", "image|text", "text|image"):
        assert set(estimates[f"log p({name})"]) == {"mean", "stderr"}
        cell = f"log p({name})".replace("|", r"\|")
        assert f"| {cell} | {estimates[f'log p({name})']['mean']:.3f} |" in out
    assert 1 <= estimates["effective samples, log p(image)"]["mean"] <= 50
    assert call(loglike, trained, "--demo", "--limit", 20, "--iwae-samples", 50) == estimates, "same seed, same figures"


def test_the_authors_checkpoint_works_wherever_ours_does(tmp_path):
    path = authors_file(tmp_path / "model_best.pth.tar")
    call(sample, path, "--demo", "--condition-on-text", 3, "--n-samples", 2)
    assert call(loglike, path, "--demo", "--limit", 3, "--n-samples", 5)["log p(image)"]["mean"] < -300


@pytest.mark.parametrize(
    ("script", "args", "message"),
    [
        (sample, ["--condition-on-text", 12], "--condition-on-text: a class is a number from 0 to 9, not '12'"),
        (sample, ["--condition-on-text", -1], "--condition-on-text: a class is a number from 0 to 9, not '-1'"),
        (
            sample,
            ["--condition-on-image", 10],
            "--condition-on-image 10: there is no such file, and a class is a number from 0 to 9, not '10'",
        ),
        (
            sample,
            ["--condition-on-image", "no.png"],
            "--condition-on-image no.png: there is no such file, and a class is",
        ),
        (
            sample,
            ["--condition-on-image", "x" * 300],
            f"--condition-on-image {'x' * 300}: there is no such file, and a",
        ),
        (sample, ["--n-samples", 0], "--n-samples must be positive, not 0"),
        (sample, ["--reconstruct", "--condition-on-text", 1], "--reconstruct takes no condition"),
        (sample, ["--data-dir", "nowhere", "--condition-on-image", 1], "there is no folder nowhere: --data-dir"),
        (loglike, ["--n-samples", 0], "--n-samples must be positive, not 0"),
        (loglike, ["--limit", 0], "--limit must be positive, not 0"),
        (
            loglike,
            ["--json", "nowhere/out.json"],
            "--json nowhere/out.json: there is no folder nowhere, make it or",
        ),
        (loglike, ["--data-dir", "nowhere"], "there is no folder nowhere: --data-dir"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, capsys, script, args, message):
    data = [] if "--data-dir" in args else ["--demo"]
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [str(arg) for arg in [trained, *data, *args]])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_damaged_pictures_are_named(trained, tmp_path):
    (tmp_path / "given.ppm").write_bytes(b"P6 40 x")
    with pytest.raises(InputError, match=r"given.ppm is damaged or not an image"):
        call(sample, trained, "--condition-on-image", tmp_path / "given.ppm")
