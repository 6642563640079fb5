"""Two processes at one run, by torchrun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.checkpoints import BEST, LAST, load
from mnist import loglike
from mnist import train as mnist_train
from tests import distributed_jobs

ROOT = Path(__file__).parents[1]
OPTIONS = ["--demo", "--limit", "120", "--n-latents", "8", "--batch-size", "25", "--annealing-epochs", "1"]


def torchrun(*args, n=2):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(n),
        *map(str, args),
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_gradients_are_those_of_one_process_at_the_same_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed_jobs.DiagonalGaussian, "rsample", None)
    expected = distributed_jobs.gradients()
    said = torchrun("-m", "tests.distributed_jobs", tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    assert said == "process 0\n" and found["world"] == 2 and found["any"] == (True, False)
    assert found["rows"].flatten().tolist() == list(range(7))
    for ours, theirs in zip(found["gradients"], expected, strict=True):
        assert [x is None for x in ours] == [x is None for x in theirs]
        assert all(
            torch.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(ours, theirs, strict=True) if y is not None
        )
    assert any(x.abs().sum() > 0 for x in found["gradients"][-1] if x is not None)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    def train(epochs, n):
        args = ["mnist/train.py", *OPTIONS, "--epochs", epochs, "--resume", "--save-dir", tmp_path]
        return torchrun(*args, n=n)

    out = train(2, 2)
    assert out.count("epoch 1/2") == out.count("epoch 2/2") == out.count("best epoch") == 1
    assert len(load(tmp_path / LAST)["rng"]) == 2
    train(3, 1)
    train(4, 2)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    bounds = [line["valid"]["bound"] for line in lines]
    assert bounds[-1] > bounds[0] and (tmp_path / BEST).exists() and (tmp_path / "samples").exists()


@pytest.mark.slow
def test_a_resumed_run_of_two_processes_is_the_run_never_stopped(tmp_path):
    for folder, lengths in (("whole", (3,)), ("parts", (1, 3))):
        for epochs in lengths:
            args = ["mnist/train.py", *OPTIONS, "--epochs", epochs, "--resume", "--save-dir", tmp_path / folder]
            torchrun(*args)
    whole, parts = (load(tmp_path / folder / LAST)["state_dict"] for folder in ("whole", "parts"))
    assert all(parts[name].equal(x) for name, x in whole.items())


@pytest.mark.slow
def test_likelihoods_are_shared(tmp_path):
    options = {"demo": True, "n_latents": 8, "epochs": 10, "annealing_epochs": 5, "lambda_text": 1.0, "batch_size": 20}
    mnist_train.main(mnist_train.Config(limit=400, save_dir=tmp_path, **options))
    options = ["--demo", "--limit", "21", "--n-samples", "500"]
    out = torchrun("mnist/loglike.py", tmp_path, *options, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    expected = loglike.main(loglike.Config(tmp_path, demo=True, limit=21, n_samples=500))
    assert found["n_examples"] == 21 and out.count("log p(image)") == 1 + out.count("log p(image), z")
    accuracy = "label accuracy from the image"  # which takes no draws
    assert found["estimates"][accuracy] == pytest.approx(expected[accuracy]) and 0 < expected[accuracy]["mean"] < 1
    for name in ("log p(image)", "log p(text)", "log p(image,text)"):
        assert found["estimates"][name]["mean"] == pytest.approx(expected[name]["mean"], abs=0.5)
