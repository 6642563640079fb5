"""Two processes at one run, by torchrun."""

import json
import math
import shutil
import subprocess
import sys
import time

from common.checkpoints import BEST, LAST, load
from common.errors import InputError
from common.execution import processes
from mnist import compare, loglike, weak_supervision
from mnist import train as mnist_train
from tests.helpers import distributed_jobs
from tests.helpers.distributed_trainings import EPOCHS, MNIST, TRAININGS
from tests.helpers.scripts import ROOT, call

import psutil
import pytest
import torch


def started_by_torchrun(*args, n=2):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n, *args]
    return list(map(str, command))


def torchrun(*args, n=2):
    result = subprocess.run(started_by_torchrun(*args, n=n), cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes come to in tests/helpers/distributed_jobs.py."""
    folder = tmp_path_factory.mktemp("jobs")
    distributed_jobs.untrained(folder)
    said = torchrun("-m", "tests.helpers.distributed_jobs", folder)
    return torch.load(folder / "found.pt") | {"said": said, "folder": folder}


@pytest.mark.slow
def test_processes_share_rows(found):
    assert found["said"].count("process") == 1 and found["said"].endswith("process 0\n")
    assert found["world"] == 2 and found["any"] == (True, False) and found["first"] == [0, 0]
    assert found["rows"].flatten().tolist() == list(range(7))
    assert len(set(found["unlike"])) == 2, "each draws its own noise"


@pytest.mark.slow
def test_what_takes_no_draw_is_what_one_process_finds(found):
    expected = distributed_jobs.without_noise()
    assert expected["n"].tolist() == list(range(7)) and 0 < expected["episodes"].mean() < 1
    for process in found["without noise"]:
        assert process.keys() == expected.keys()
        for name, x in expected.items():
            exact = name not in ("described", "similarity")  # float32 products of other numbers of rows
            close = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(process[name], x, **close, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.slow
def test_coherence_is_of_all_examples(found):
    first, second = found["with noise"]
    assert first == second
    right = {"a -> a": 0.7, "a -> b": 0.7 * 0.8, "b -> a": 1.0, "b -> b": 0.8, "joint": 0.75}
    assert first == pytest.approx(right, abs=0.03)
    n = torch.tensor([5001 if name == "joint" else 4001 for name in first])
    count = n * torch.tensor([*first.values()], dtype=torch.float64)
    torch.testing.assert_close(count, count.round(), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_analyses_write_once_what_is_of_all_examples(found, tmp_path, monkeypatch):
    first, second = found["analyses"]
    pictures = ["cross_generation.png", "traversal_mnist.png", "traversal_svhn.png"]
    assert first["written"] == ["kl.png", "pairs.json", *pictures, "characters.json"] and second["written"] == []
    assert first["figures"] == second["figures"] and first["told"] == second["told"]
    assert first["seed"] != second["seed"], "draws would be those of the other process"
    of_pairs, of_characters = (
        json.loads((found["folder"] / name).read_text()) for name in ("pairs.json", "characters.json")
    )
    written = {name: x["mean"] for name, x in of_pairs["estimates"].items()}
    written |= {f"{name}, {n} given": x for n, scores in of_pairs["by_size"].items() for name, x in scores.items()}
    assert of_pairs["n_examples"] == 127 and written == first["figures"]
    assert of_characters["estimates"] == {"accuracy": first["told"]} and found["said"].count("coherence, joint") == 1
    for module, name in (
        (distributed_jobs.tables, "write_atomically"),
        (distributed_jobs.plots, "save"),
        (distributed_jobs.classifiers, "STEPS"),
    ):
        monkeypatch.setattr(module, name, None)  # so that what the job replaces is restored
    expected = distributed_jobs.analyses(found["folder"], tmp_path)
    shares = ("coherence", "latent", "clusters", "macro", "spread", "given targets", "linear")
    drawn = {name: {"abs": 0.15} for name in shares} | {"FD": {"rel": 0.05}}
    drawn |= {"SSIM, all": {"rel": 0.05}}  # decodes a component of the mixture that is drawn for each row
    for name, value in expected["figures"].items():
        tolerance = next((of for start, of in drawn.items() if name.startswith(start)), {"rel": 1e-4})
        assert first["figures"][name] == pytest.approx(value, **tolerance), name
    assert first["told"] == pytest.approx(expected["told"], abs=0.2)


def test_what_starts_processes_of_its_own_or_has_too_few_rows_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "world_size", lambda: 2)
    with pytest.raises(InputError, match="its own processes: run it without torchrun, with --jobs N"):
        weak_supervision.main(weak_supervision.Config(demo=True, limit=40, fractions=(1.0,), save_dir=tmp_path))
    with pytest.raises(InputError, match="this command starts its own processes"):
        compare.main(compare.Config("halves", demo=True, save_dir=tmp_path))
    assert not [*tmp_path.iterdir()]
    with pytest.raises(InputError, match="2 processes cannot share 1 examples: start at most 1"):
        processes.map_rows(1, 500, None)
    with pytest.raises(InputError, match="there are no examples: raise --limit, or give other data"):
        processes.map_rows(0, 500, None)


@pytest.mark.slow
def test_gradients_are_those_of_one_process_at_the_same_batch(found, monkeypatch):
    monkeypatch.setattr(distributed_jobs.DiagonalGaussian, "rsample", None)
    expected = distributed_jobs.summed_gradients()
    first, second = found["gradients"]
    for ours, theirs, others in zip(first, expected, second, strict=True):
        assert all(x is y is None or x.equal(y) for x, y in zip(ours, others, strict=True))
        assert [x is None for x in ours] == [x is None for x in theirs]
        assert all(
            torch.allclose(x, y, rtol=1e-5, atol=1e-6) for x, y in zip(ours, theirs, strict=True) if y is not None
        )
    assert any(x.abs().sum() > 0 for x in first[-1] if x is not None)


@pytest.mark.slow
def test_gradients_of_newer_models_are_those_of_one_process(found, monkeypatch):
    monkeypatch.setattr(distributed_jobs.DiagonalGaussian, "rsample", None)
    expected = distributed_jobs.of_newer_models()
    for process in found["newer"]:
        assert process.keys() == expected.keys() == set(distributed_jobs.NEWER)
        for name, gradients in expected.items():
            for x, y in zip(process[name], gradients, strict=True):
                assert x is y is None or (x - y).norm() <= 1e-4 * y.norm() + 1e-6, name
            assert any(y is not None and y.abs().sum() > 0 for y in gradients), name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The runs of tests/helpers/distributed_trainings.py, and what two processes print."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, torchrun("-m", "tests.helpers.distributed_trainings", folder)


@pytest.mark.slow
def test_trainings_of_several_folders(runs):
    runs, said = runs
    assert said.count("epoch 1/") == said.count("best epoch") == len(TRAININGS), "one process prints"
    for folder in TRAININGS:
        lines = [json.loads(line) for line in (runs / folder / "metrics.jsonl").read_text().splitlines()]
        assert all(math.isfinite(line["train"]["bound"]) for line in lines), folder
        assert (runs / folder / BEST).exists() and (runs / folder / "samples").exists()
        assert len(load(runs / folder / LAST)["rng"]) == 2
    bounds = [
        json.loads(line)["valid"]["bound"] for line in (runs / "mnist" / "metrics.jsonl").read_text().splitlines()
    ]
    assert bounds[-1] > bounds[0]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(runs, tmp_path):
    shutil.copytree(runs[0] / "mnist", tmp_path, dirs_exist_ok=True)
    call(mnist_train, *MNIST, "--epochs", EPOCHS + 1, "--resume", "--save-dir", tmp_path)
    torchrun("mnist/train.py", *MNIST, "--epochs", EPOCHS + 2, "--resume", "--save-dir", tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 3))
    assert lines[-1]["valid"]["bound"] > lines[0]["valid"]["bound"]


@pytest.mark.slow
def test_a_run_with_a_killed_process_starts_again_and_ends_as_if_never_stopped(runs, tmp_path, monkeypatch):
    args = ["mnist/train.py", *MNIST, "--epochs", EPOCHS, "--resume", "--save-dir", tmp_path]
    command = started_by_torchrun("--max-restarts", 1, *args)
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as agent:
        try:
            while agent.poll() is None and not (tmp_path / LAST).exists():
                time.sleep(0.05)
            workers = [x for x in psutil.Process(agent.pid).children() if "mnist/train.py" in x.cmdline()]
            workers[-1].kill()
            said = agent.communicate(timeout=300)[0]
        finally:
            agent.terminate()  # and its processes, if they wait for each other
    assert len(workers) == 2 and agent.returncode == 0 and "resuming after epoch" in said, said
    whole, killed = (load(folder / LAST)["state_dict"] for folder in (runs[0] / "mnist", tmp_path))
    assert all(killed[name].equal(x) for name, x in whole.items())


@pytest.mark.slow
def test_likelihoods_are_shared(trained, tmp_path):
    run, options = trained("mnist"), ["--demo", "--limit", "21", "--n-samples", "500"]
    out = torchrun("mnist/loglike.py", run, *options, "--json", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    expected = loglike.main(loglike.Config(run, demo=True, limit=21, n_samples=500))
    assert found["n_examples"] == 21 and out.count("log p(image)") == 1 + out.count("log p(image), z")
    accuracy = "label accuracy from the image"  # which takes no draws
    assert found["estimates"][accuracy] == pytest.approx(expected[accuracy])
    for name in ("log p(image)", "log p(text)", "log p(image,text)"):
        assert found["estimates"][name]["mean"] == pytest.approx(expected[name]["mean"], abs=0.5)
