"""Weak supervision."""

import json
import subprocess
import sys

import pytest
import torch
import tyro
from PIL import Image

import mnist.weak_supervision
from common.checkpoints import load_model
from common.data.splits import draw_paired
from common.errors import InputError
from mnist.data import load as load_mnist
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import OPTIONS
from tests.helpers.scripts import ROOT, call
from training import weak_supervision


@pytest.mark.slow
def test_the_curve_of_weak_supervision(tmp_path, capsys, monkeypatch):
    args = [*OPTIONS, "--classifier-steps", 50, "--limit", 200, "--jobs", 1, "--save-dir", tmp_path]
    seen, original = [], weak_supervision.cross_entropy
    monkeypatch.setattr(
        weak_supervision, "cross_entropy", lambda logits, y: seen.append((logits, y)) or original(logits, y)
    )
    few = call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0, 1)
    assert [(r.fraction, r.n_paired, r.seed) for r in few] == [(0.05, 10, 0), (0.05, 10, 1)]
    assert len(seen) == 2 * 50
    for run in (seen[:50], seen[50:]):
        rows = torch.cat([torch.cat([logits, y[:, None]], dim=1) for logits, y in run[:1]])
        assert len(rows.unique(dim=0)) <= 10 < len(rows), "the classifier sees the pairs alone"
    assert call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0, 1) == few
    assert len(seen) == 2 * 50, "a run that is there is not repeated"
    more = call(mnist.weak_supervision, *args, "--fractions", 1, 0.05, "--seeds", 0, 1)
    assert more[:2] == few
    content = json.loads((tmp_path / "weak_supervision.json").read_text())
    assert content["results"][3]["n_paired"] == 200 and content["config"]["epochs"] == 1
    mean, values = 50 * (few[0].model + few[1].model), torch.tensor([few[0].model, few[1].model])
    row = f"| 10 | {mean:.1f} ± {100 * values.double().std():.1f} % |"
    assert row in (tmp_path / "weak_supervision.md").read_text() and row in capsys.readouterr().out
    with Image.open(tmp_path / "weak_supervision.png") as picture:
        assert picture.width > 300
    call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0)
    assert f"| 10 | {100 * few[0].model:.1f} % |" in capsys.readouterr().out, "no deviation of one seed"
    # what the accuracies are of
    test = load_mnist("test", data_config("", demo=True, limit=200))[:].modalities
    label = load_model(tmp_path / "0.05_seed1").reconstruct({"image": test["image"]})["text"]
    assert few[1].model == pytest.approx((label == test["text"]).double().mean().item())
    call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0, "--classifier-steps", 60)
    assert seen[-60:] and len(seen) > 2 * 50 + 60, "another number of steps is another classifier"


@pytest.mark.slow
def test_runs_of_weak_supervision_go_in_parallel(tmp_path):
    """By the command, so that the processes find what the script itself defines."""
    options = ["--classifier-steps", "5", "--limit", "60", "--fractions", "0.5", "--seeds", "0", "1", "--jobs", "2"]
    command = [sys.executable, "weak_supervision.py", *OPTIONS, *options, "--save-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT / "mnist", capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / "weak_supervision.json").read_text())["results"]
    assert [(r["n_paired"], r["seed"]) for r in results] == [(30, 0), (30, 1)]
    assert "epoch 1/1" in (tmp_path / "0.5_seed1" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fractions", "0.001"], "--fractions 0.001 of 60 images leaves no pair"),
        (["--fractions", "2"], r"--fractions must lie in \(0, 1\]"),
        (["--fractions", "0.5", "0.5"], "--fractions must name at least one, each once .got 0.5 0.5"),
        (["--seeds", "0", "0"], "--seeds must name at least one, each once .got 0 0"),
        (["--jobs", "0"], "--jobs must be positive"),
    ],
)
def test_impossible_curves(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(mnist.weak_supervision, *OPTIONS, "--limit", 60, "--jobs", 1, *options, "--save-dir", tmp_path)
    assert not any(tmp_path.iterdir()), "nothing was trained for it"


def test_a_single_pair_is_a_curve(tmp_path, monkeypatch):
    asked = []
    result = weak_supervision.Result(1 / 60, 1, 0, 0.5, 0.5)
    monkeypatch.setattr(weak_supervision, "run_one", lambda config, **_: asked.append(config) or result)
    options = ["--limit", 60, "--jobs", 1, "--fractions", 1 / 60, "--seeds", 0, "--save-dir", tmp_path]
    assert call(mnist.weak_supervision, *OPTIONS, *options) == [result]
    assert [config.paired_fraction for config in asked] == [1 / 60]


def test_weak_supervision_fetches_what_is_missing(tmp_path, monkeypatch):
    fetched = []

    def load(split, config):
        fetched.append((split, config.download))
        return load_mnist(split, data_config("", demo=True, limit=config.limit))

    monkeypatch.setattr(weak_supervision, "run_one", lambda config, **_: weak_supervision.Result(0.5, 30, 0, 0.5, 0.5))
    options = ["--epochs", 1, "--limit", 60, "--jobs", 1, "--fractions", 0.5, "--seeds", 0, "--save-dir", tmp_path]
    config = tyro.cli(mnist.weak_supervision.Config, args=["--download", *map(str, options)])
    mnist.weak_supervision.main(config, lambda: mnist.train.experiment()._replace(load=load))
    assert fetched == [("train", True), ("test", True)]


@pytest.mark.slow
def test_the_classifier_has_the_pairs_that_the_model_learns_from(monkeypatch, tmp_path):
    pairs = []

    def classifier(config, build, paired, *_):
        pairs.append(paired)
        return lambda image: torch.zeros(len(image), 1, 10)

    monkeypatch.setattr(weak_supervision, "classifier", classifier)
    args = [*OPTIONS, "--limit", 60, "--jobs", 1, "--save-dir", tmp_path]
    call(mnist.weak_supervision, *args, "--fractions", 0.2, "--seeds", 3)
    examples = load_mnist("train", data_config("", demo=True, limit=60))
    expected = examples.take(draw_paired(examples, 0.2, 3))
    assert pairs[0][:].modalities["image"].equal(expected[:].modalities["image"])
