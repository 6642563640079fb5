"""What only a GPU shows; skipped without one. test_captured_steps.py watches captured steps on the CPU."""

import json

import celeba19.train
import cub.train
import fashionmnist.train
import mnist.loglike
import mnist.train
import mnist_svhn.train
import multimnist.train
import polymnist.options
import polymnist.train
from common.checkpoints import LAST, load
from common.data import Examples
from common.execution.cuda_graphs import WARM_UP
from common.models.choices import PAIR_MODELS
from reports import classifiers
from reports.options import LoglikeConfig
from tests.helpers.runs import SMALL, assert_same_run, config, metrics
from training import streams
from training.steps import Step

import pytest
import torch

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


SHORT = SMALL | {"cuda": True, "batch_size": 40}
FEW = {"demo": True, "limit": 200, "epochs": 5, "batch_size": 40, "matchings": 1, "cuda": True}
BIRDS = {"demo": True, "limit": 40, "cuda": True, "K": 3, "epochs": 2, "batch_size": 40}
OF_POLYMNIST = SMALL | {"cuda": True, "n_modalities": 3, "n_latents": 4}
CASES = [  # a train.py, its options, and the relative difference that rounding makes in the bound of training
    *((mnist.train, SHORT | {"model": model}, 2e-3) for model in PAIR_MODELS),
    (mnist.train, SHORT | {"max_grad_norm": 1.0}, 2e-3),
    *((mnist.train, SHORT | {"lr": 1e-5, "lr_schedule": "cosine", "optimizer": x}, 2e-3) for x in ("adam", "amsgrad")),
    # the graph computes what is absent too, and leaves it out
    *((mnist.train, SHORT | {"paired_fraction": 0.3, "model": x}, 2e-3) for x in ("mvae", "mvae-q", "bivcca", "mopoe")),
    *((fashionmnist.train, SMALL | {"cuda": True, "precision": x}, 1e-2) for x in ("fp32", "bf16")),
    # dropout of cuDNN's recurrent networks has noise of its own
    (multimnist.train, SMALL | {"cuda": True, "epochs": 3}, 0.05),
    (celeba19.train, SMALL | {"cuda": True, "epochs": 3}, 2e-3),
    (mnist_svhn.train, FEW | {"obj": "dreg", "K": 3}, 2e-3),
    (mnist_svhn.train, FEW | {"obj": "iwae", "K": 3, "looser": False}, 2e-3),
    (mnist_svhn.train, FEW | {"obj": "elbo"}, 2e-3),
    *((cub.train, BIRDS | {"model": model}, 0.05) for model in ("images", "features")),
    *(
        (polymnist.train, OF_POLYMNIST | {"model": name, "missing": x, "n_private": 3 if model.private else None}, 2e-3)
        for name, model in polymnist.options.MODELS.items()
        for x in (0.0, 0.3)
        if model.unpaired or not x
    ),
]


@pytest.mark.parametrize(("train", "options", "error"), CASES)
def test_captured_steps_are_the_steps(tmp_path, replays, train, options, error):
    """Same noise, same order: the same bounds, in whole batches and in a smaller last one."""
    runs = [train.Config(save_dir=tmp_path / name, **options) for name in ("captured", "plain")]
    captured = trained(train.main, runs[0])
    assert replays
    before = len(replays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "capturable", lambda *_: False)
        plain = trained(train.main, runs[1])
    assert len(replays) == before
    for one, other in zip(captured, plain, strict=True):
        assert one["train"]["bound"] == pytest.approx(other["train"]["bound"], rel=error, abs=error)
        assert one.get("lr") == pytest.approx(other.get("lr"))


def test_streamed_batches_are_the_batches(tmp_path, replays, monkeypatch):
    """The split does not fit on the GPU: captured steps take its batches from one place."""
    options = {"cuda": True, "batch_size": 40, "epochs": 5, "paired_fraction": 0.5}
    resident = trained(mnist.train.main, config(tmp_path / "a", **options))
    monkeypatch.setattr(streams, "SHARE", 0.0)
    streamed = trained(mnist.train.main, config(tmp_path / "b", **options))
    for one, other in zip(resident, streamed, strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=2e-3, abs=2e-3)
    assert len(replays) == 2 * (5 * 7 - 2 * WARM_UP)


def test_batch_norm_with_absent_modalities_is_not_captured(tmp_path, replays):
    options = SMALL | {"cuda": True, "paired_fraction": 0.5, "epochs": 1}
    multimnist.train.main(multimnist.train.Config(save_dir=tmp_path, **options))
    assert not replays


def test_resumed_on_the_gpu_is_as_if_never_stopped(tmp_path):
    mnist.train.main(config(tmp_path / "a", cuda=True))
    mnist.train.main(config(tmp_path / "b", cuda=True, epochs=2))
    mnist.train.main(config(tmp_path / "b", cuda=True, resume=True))
    assert_same_run(tmp_path / "a", tmp_path / "b")
    a, b = (load(tmp_path / name / LAST)["rng"][0]["cuda"] for name in "ab")
    assert a.equal(b)


def test_the_other_device_resumes(tmp_path):
    mnist.train.main(config(tmp_path, cuda=True, epochs=2))
    assert not load(tmp_path / LAST)["optimizer"]["param_groups"][0]["capturable"]
    mnist.train.main(config(tmp_path, epochs=3, resume=True))
    mnist.train.main(config(tmp_path, cuda=True, epochs=4, resume=True))
    assert load(tmp_path / LAST)["epoch"] == len(metrics(tmp_path)) == 4


def test_log_likelihoods_are_those_of_the_cpu(tmp_path):
    mnist.train.main(config(tmp_path, cuda=True))
    figures = {}
    for cuda in (False, True):
        path = tmp_path / f"{cuda}.json"
        mnist.loglike.main(LoglikeConfig(tmp_path, demo=True, limit=50, n_samples=2000, cuda=cuda, json=path))
        estimates = json.loads(path.read_text())["estimates"]
        figures[cuda] = [estimates[name]["mean"] for name in ("log p(image)", "log p(image,text)", "log p(text)")]
    assert figures[True] == pytest.approx(figures[False], abs=0.3)


def test_a_classifier_of_images_on_the_gpu():
    """Its labels may lie on the CPU, where analyses keep them."""
    x = torch.eye(4).repeat(300, 1)
    examples, labels = Examples({"x": x}).to(torch.device("cuda")), x.argmax(dim=1, keepdim=True)
    layers = torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(64, 4)
    judge = classifiers.judge(
        lambda: torch.nn.Sequential(*layers, torch.nn.Unflatten(1, (1, 4))), examples, "x", labels, 200, cache=None
    )
    assert judge.read({"x": x.cuda()}).cpu().equal(labels)
