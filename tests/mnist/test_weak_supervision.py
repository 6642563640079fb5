"""Weak supervision."""

import json
import subprocess
import sys

import mnist.weak_supervision
from common.checkpoints import load_model
from common.data.splits import draw_paired
from mnist.data import load as load_mnist
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import OPTIONS
from tests.helpers.scripts import ROOT, call
from training import weak_supervision

import pytest
import torch


@pytest.mark.slow
def test_the_curve_of_weak_supervision(tmp_path, capsys, monkeypatch):
    args = [*OPTIONS, "--classifier-steps", 50, "--limit", 200, "--jobs", 1, "--save-dir", tmp_path]
    seen, paired = [], []
    original, classifier = weak_supervision.cross_entropy, weak_supervision.classifier
    monkeypatch.setattr(
        weak_supervision, "classifier", lambda *args: paired.append(args[2][:].modalities) or classifier(*args)
    )
    monkeypatch.setattr(
        weak_supervision, "cross_entropy", lambda logits, y: seen.append((logits, y)) or original(logits, y)
    )
    few = call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0, 1)
    assert [(r.fraction, r.n_paired, r.seed) for r in few] == [(0.05, 10, 0), (0.05, 10, 1)]
    assert len(seen) == 2 * 50
    train = load_mnist("train", data_config("", demo=True, limit=200))
    for seed, pairs in enumerate(paired):
        of_model = train.take(draw_paired(train, 0.05, seed))[:].modalities
        assert all(pairs[name].equal(x) for name, x in of_model.items()), "the pairs that the model learns from"
    assert call(mnist.weak_supervision, *args, "--fractions", 0.05, "--seeds", 0, 1) == few
    assert len(seen) == 2 * 50, "a run that is there is not repeated"
    more = call(mnist.weak_supervision, *args, "--fractions", 1, 0.05, "--seeds", 0, 1)
    assert more[:2] == few
    content = json.loads((tmp_path / "weak_supervision.json").read_text())
    assert content["results"][3]["n_paired"] == 200 and content["config"]["epochs"] == 1
    mean, values = 50 * (few[0].model + few[1].model), torch.tensor([few[0].model, few[1].model])
    row = f"| 10 | {mean:.1f} ± {100 * values.double().std():.1f} % |"
    assert row in (tmp_path / "weak_supervision.md").read_text() and row in capsys.readouterr().out
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
