"""On the datasets themselves, where DATA_ROOT says they are."""

import hashlib
import os
from pathlib import Path

import pytest
import torch

import fashionmnist.data
import multimnist.data
from mnist import loglike
from mnist import train as mnist_train
from mnist.data import load

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of datasets"),
]
DATA_ROOT = Path(os.environ.get("DATA_ROOT", ""))

# md5 of all pixels, taken from files whose own md5 is the published one
MNIST_PIXELS = ["6510e85a72c3e9475c492d559d3770d2", "240610fa99e73bfa49df8e7fc24d3206"]
FASHIONMNIST_PIXELS = ["f209073e486d5113ebe2cc431d4df862", "b7656a891b218fc13e45205c48a92cae"]


def test_mnist_is_all_there():
    train, test = (load(split, DATA_ROOT / "mnist") for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    digests = [hashlib.md5(s.modalities["image"].numpy().tobytes()).hexdigest() for s in (train, test)]
    assert digests == MNIST_PIXELS
    assert train.modalities["text"].bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert test.modalities["text"].bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_mnist_trains_and_scores(tmp_path):
    data = DATA_ROOT / "mnist"
    settings = {"epochs": 2, "annealing_epochs": 1, "limit": 6000, "n_latents": 16, "lr": 2e-3}
    mnist_train.main(mnist_train.Config(data_dir=data, save_dir=tmp_path, **settings))
    torch.manual_seed(0)
    estimates = loglike.main(loglike.Config(tmp_path, data_dir=data, limit=100, n_samples=100))
    assert estimates["log p(image)"]["mean"] > -200, "independent pixels have about -206, an untrained model -545"


def test_fashionmnist_is_all_there():
    train, test = (fashionmnist.data.load(split, DATA_ROOT / "fashionmnist") for split in ("train", "test"))
    digests = [hashlib.md5(s.modalities["image"].numpy().tobytes()).hexdigest() for s in (train, test)]
    assert digests == FASHIONMNIST_PIXELS
    assert train.modalities["text"].bincount().tolist() == [6000] * 10
    assert test.modalities["text"].bincount().tolist() == [1000] * 10


def test_multimnist_is_made_of_mnist(tmp_path):
    multimnist.data.make(DATA_ROOT / "mnist", tmp_path, multimnist.data.PAPER)
    train, test = (multimnist.data.load(split, tmp_path) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    digits = (test.modalities["text"] != multimnist.data.FILL).sum(dim=1)
    assert ((digits.bincount() - 2000).abs() < 200).all(), "0 to 4 digits, equally often"
    ink = test.modalities["image"].double().sum(dim=(1, 2, 3))
    means = [ink[digits == n].mean().item() for n in range(5)]
    assert means[0] == 0
    assert means[4] == pytest.approx(4 * means[1], rel=0.03)
