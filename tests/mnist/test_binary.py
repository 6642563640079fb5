"""BinaryMNIST: pixels are drawn with their grey values as probabilities."""

import mnist.train
from common.checkpoints import load_model
from mnist import analyse, loglike, sample
from mnist.analyse import by_class
from mnist.data import CLASSES, MNIST, binarised, load
from mnist.model import build
from reports import plots
from tests.helpers.data_config import data_config
from tests.helpers.scripts import call

import pytest
import torch


@pytest.mark.parametrize("name", ["mvae", "vae"])
def test_training_draws_the_pixels_anew_in_each_batch(name):
    config = mnist.train.Config(binary=True, model=name, n_latents=4)
    data = load("train", data_config("", demo=True))
    examples = mnist.train.experiment().examples(config, data, build(config))
    grey = data[:20].modalities["image"]
    draws = torch.stack([examples[:20].modalities["image"] for _ in range(400)])
    assert set(draws.unique().tolist()) == {0, 1}
    assert (draws[0] != draws[1]).any()
    error = (draws.mean(dim=0) - grey).abs() / (grey * (1 - grey) / 400).sqrt().clamp(min=1e-9)
    assert error.max() < 5.5, "standard errors"


def test_scripts_show_the_model_images_drawn_once(tmp_path, monkeypatch):
    call(mnist.train, "--demo", "--binary", "--epochs", 1, "--n-latents", 4, "--limit", 100, "--save-dir", tmp_path)
    for out, options in (("test", ["--condition-on-image", "5"]), ("rows", ["--reconstruct", "--n-samples", 8])):
        shown = []
        monkeypatch.setattr(plots, "image_grid", lambda path, images, *_, shown=shown, **__: shown.append(images))
        call(sample, tmp_path, "--demo", *options, "--out-dir", tmp_path / out)
        given = shown[0][0, 0][:1]  # beside samples, or above its reconstruction
        test = binarised(MNIST.load("test", data_config("", demo=True)))[:].modalities["image"]
        assert (test[:, 0] == given).flatten(1).all(dim=1).any(), "a test image with the pixels drawn once"
    known = []
    monkeypatch.setattr(analyse, "judge", lambda build, train, name, labels, steps, cache: known.append((train, cache)))
    data = by_class(MNIST, CLASSES)
    config = analyse.Config(model=tmp_path, demo=True, data_dir=tmp_path)
    train = data.load("train", config)
    data.judges(config, train, data.labels(config, "train", train), load_model(tmp_path))
    assert set(known[0][0][:].modalities["image"].unique().tolist()) == {0, 1}
    assert known[0][1].name == "demo_mnist_binary_classifier.pt"
    seen = []
    monkeypatch.setattr(loglike, "evaluate", lambda model, examples, **_: seen.append(examples) or {"x": torch.ones(5)})
    for _ in range(2):
        call(loglike, tmp_path, "--demo", "--limit", 5)
    first, again = (x[:].modalities["image"] for x in seen)
    assert set(first.unique().tolist()) == {0, 1}
    torch.testing.assert_close(first, again)
    grey = load("test", data_config("", demo=True))[:5].modalities["image"]
    assert not first[grey == 0].any() and first[grey == 1].all()
    assert 0 < first[(grey > 0.2) & (grey < 0.8)].mean() < 1
