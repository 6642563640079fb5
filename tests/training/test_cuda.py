"""What only a GPU shows; skipped without one. objectives/test_elbo.py tests captured arithmetic on the CPU."""

import json

import pytest
import torch

import cub.analyse
import cub.sample
import cub.train
import fashionmnist.train
import mnist.loglike
import mnist_svhn.train
import multimnist.train
import polymnist.options
import polymnist.train
from common.checkpoints import LAST, load
from common.data import Examples
from common.execution.cuda_graphs import WARM_UP
from common.models.choices import PAIR_MODELS
from mnist import train as mnist_train
from reports import classifiers
from reports.options import LoglikeConfig
from tests.helpers.runs import SMALL, assert_same_run, config, metrics
from training import streams
from training.steps import Step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture(autouse=True)
def _whole_float32(monkeypatch):
    """Captured and other steps may choose different convolutions, which TF32 rounds to ten bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def replays(monkeypatch):
    """Counts the replays of graphs."""
    count = []

    def replay(self, original=torch.cuda.CUDAGraph.replay):
        count.append(1)
        original(self)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", replay)
    return count


def trained(main, config):
    main(config)
    return metrics(config.save_dir)


def uncaptured(main, config):
    """The same, operation by operation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "capturable", lambda *_: False)
        return trained(main, config)


def both_ways(train, folder, options):
    """The metrics of a train.py with captured steps, and without."""
    configs = [train.Config(save_dir=folder / name, **options) for name in ("captured", "plain")]
    return trained(train.main, configs[0]), uncaptured(train.main, configs[1])


def assert_close(a, b):
    """Up to rounding, to which Adam's first steps lend weight."""
    for one, other in zip(a, b, strict=True):
        for split in ("train", "valid"):
            assert one[split] == pytest.approx(other[split], rel=2e-3, abs=2e-3)


@pytest.mark.parametrize(("model", "max_grad_norm"), [*((model, None) for model in PAIR_MODELS), ("mvae", 1.0)])
def test_captured_steps_are_the_steps(tmp_path, replays, model, max_grad_norm):
    """Same noise, same order: the same bounds, in whole batches and in a smaller last one."""
    options = {"cuda": True, "model": model, "batch_size": 40, "epochs": 5, "max_grad_norm": max_grad_norm}
    captured = trained(mnist_train.main, config(tmp_path / "a", **options))
    assert len(replays) == 5 * 7 - 2 * WARM_UP
    assert_close(captured, uncaptured(mnist_train.main, config(tmp_path / "b", **options)))
    assert len(replays) == 5 * 7 - 2 * WARM_UP


def test_streamed_batches_are_the_batches(tmp_path, replays, monkeypatch):
    """The split does not fit on the GPU: captured steps take its batches from one place."""
    options = {"cuda": True, "batch_size": 40, "epochs": 5, "paired_fraction": 0.5}
    resident = trained(mnist_train.main, config(tmp_path / "a", **options))
    monkeypatch.setattr(streams, "SHARE", 0.0)
    assert_close(resident, trained(mnist_train.main, config(tmp_path / "b", **options)))
    assert len(replays) == 2 * (5 * 7 - 2 * WARM_UP)


@pytest.mark.parametrize("optimizer", ["adam", "amsgrad"])
def test_captured_steps_see_the_rate_change(tmp_path, replays, optimizer):
    lr = {"optimizer": optimizer, "lr": 1e-5, "lr_schedule": "cosine"}
    options = {"cuda": True, "batch_size": 50, "epochs": 5} | lr
    captured = trained(mnist_train.main, config(tmp_path / "a", **options))
    assert replays
    assert_close(captured, uncaptured(mnist_train.main, config(tmp_path / "b", **options)))
    assert [line["lr"] for line in captured] == pytest.approx([1e-5, 1e-5, 1e-5, 1e-6, 1e-7])


def test_captured_convolutions_in_half_precision(tmp_path, replays):
    captured, plain = both_ways(fashionmnist.train, tmp_path, SMALL | {"cuda": True, "precision": "bf16"})
    assert replays
    for one, other in zip(captured, plain, strict=True):
        assert one["train"]["bound"] == pytest.approx(other["train"]["bound"], rel=1e-2)


def test_captured_recurrence_and_batch_norm(tmp_path, replays):
    """Dropout of cuDNN's recurrent networks has noise of its own: the first steps' bounds agree only nearly."""
    options = SMALL | {"cuda": True, "epochs": 3}
    captured, plain = both_ways(multimnist.train, tmp_path, options)
    assert replays
    for one, other in zip(captured, plain, strict=True):
        assert one["train"]["bound"] == pytest.approx(other["train"]["bound"], rel=0.05)


@pytest.mark.parametrize("model", ["mvae", "mvae-q", "bivcca", "mopoe"])
def test_captured_steps_with_absent_modalities(tmp_path, replays, model):
    """The graph computes what is absent too, and leaves it out."""
    options = {"cuda": True, "paired_fraction": 0.3, "model": model}
    captured = trained(mnist_train.main, config(tmp_path / "a", **options))
    assert replays
    assert_close(captured, uncaptured(mnist_train.main, config(tmp_path / "b", **options)))


@pytest.mark.parametrize(
    "options",
    [
        {"obj": "dreg", "K": 3},
        {"obj": "iwae", "K": 3, "looser": False},
        {"obj": "elbo"},
        {"model": "mvae", "obj": "mvae"},
    ],
)
def test_captured_importance_weights(tmp_path, replays, options):
    options = {"demo": True, "limit": 200, "epochs": 5, "batch_size": 40, "matchings": 1, "cuda": True} | options
    captured, plain = both_ways(mnist_svhn.train, tmp_path, options)
    assert replays
    for one, other in zip(captured, plain, strict=True):  # the bound alone: rounding moves its terms by percents
        assert one["train"]["bound"] == pytest.approx(other["train"]["bound"], rel=2e-3)


@pytest.mark.parametrize(
    ("model", "missing"),
    [(name, x) for name, model in polymnist.options.MODELS.items() for x in (0.0, 0.3) if model.unpaired or not x],
)
def test_captured_steps_of_the_newer_models(tmp_path, replays, model, missing):
    private = {"n_private": 3} if polymnist.options.MODELS[model].private else {}
    options = SMALL | {"cuda": True, "epochs": 5, "n_modalities": 3, "n_latents": 4, "missing": missing} | private
    captured, plain = both_ways(polymnist.train, tmp_path, options | {"model": model})
    assert replays
    assert_close(captured, plain)


def test_batch_norm_with_absent_modalities_is_not_captured(tmp_path, replays):
    options = SMALL | {"cuda": True, "paired_fraction": 0.5, "epochs": 1}
    multimnist.train.main(multimnist.train.Config(save_dir=tmp_path, **options))
    assert not replays


def test_resumed_on_the_gpu_is_as_if_never_stopped(tmp_path):
    mnist_train.main(config(tmp_path / "a", cuda=True))
    mnist_train.main(config(tmp_path / "b", cuda=True, epochs=2))
    mnist_train.main(config(tmp_path / "b", cuda=True, resume=True))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    a, b = (load(tmp_path / name / LAST)["rng"][0]["cuda"] for name in "ab")
    assert a.equal(b)


def test_the_other_device_resumes(tmp_path):
    mnist_train.main(config(tmp_path, cuda=True, epochs=2))
    assert not load(tmp_path / LAST)["optimizer"]["param_groups"][0]["capturable"]
    mnist_train.main(config(tmp_path, epochs=3, resume=True))
    mnist_train.main(config(tmp_path, cuda=True, epochs=4, resume=True))
    assert load(tmp_path / LAST)["epoch"] == len(metrics(tmp_path)) == 4


def test_log_likelihoods_are_those_of_the_cpu(tmp_path):
    mnist_train.main(config(tmp_path, cuda=True))
    figures = {}
    for cuda in (False, True):
        path = tmp_path / f"{cuda}.json"
        mnist.loglike.main(LoglikeConfig(tmp_path, demo=True, limit=50, n_samples=2000, cuda=cuda, json=path))
        estimates = json.loads(path.read_text())["estimates"]
        figures[cuda] = [estimates[name]["mean"] for name in ("log p(image)", "log p(image,text)", "log p(text)")]
    assert figures[True] == pytest.approx(figures[False], abs=0.3)


@pytest.mark.parametrize("model", ["images", "features"])
def test_birds_of_two_families_and_batch_norm(tmp_path, replays, model):
    options = {"demo": True, "limit": 40, "cuda": True, "model": model, "K": 3, "epochs": 2, "batch_size": 40}
    captured, plain = both_ways(cub.train, tmp_path, options)
    assert replays
    for one, other in zip(captured, plain, strict=True):
        assert one["train"]["bound"] == pytest.approx(other["train"]["bound"], rel=0.05)


def test_a_classifier_of_images_on_the_gpu():
    """Its labels may lie on the CPU, where analyses keep them."""
    x = torch.eye(4).repeat(300, 1)
    examples, labels = Examples({"x": x}).to(torch.device("cuda")), x.argmax(dim=1, keepdim=True)
    layers = torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(64, 4)
    judge = classifiers.judge(
        lambda: torch.nn.Sequential(*layers, torch.nn.Unflatten(1, (1, 4))), examples, "x", labels, 200, cache=None
    )
    assert judge.read({"x": x.cuda()}).cpu().equal(labels)
