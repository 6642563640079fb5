"""On the datasets themselves, where DATA_ROOT says they are."""

import hashlib
import os
from pathlib import Path

import celeba.data
import celeba.train
import cub.data
import cub.loglike
import cub.train
import fashionmnist.data
import mfeat.analyse
import mfeat.data
import mfeat.train
import mnist.data
import mnist.loglike
import mnist.train
import multimnist.data
import vhe.data
import vhe.train
import vision.data
from celeba.attributes import ATTRIBUTES
from common.data.image_caches import Kind, decode
from cub.options import BirdOptions
from multimnist.options import PAPER
from tests.helpers.data_config import data_config
from vhe import loglike as vhe_loglike
from vision import setup

import numpy as np
import pytest
import torch

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("DATA_ROOT" not in os.environ, reason="DATA_ROOT names no folder of datasets"),
]
DATA_ROOT = Path(os.environ.get("DATA_ROOT", ""))

OMNIGLOT_PIXELS = ["64b582e5a2b98be772e2db8bfa627d8a", "d866d27f809370daf2531112815bcdfe"]  # as we shrink them


PIXELS = {  # md5 of all pixels, taken from files whose own md5 is the published one
    mnist.data: ["6510e85a72c3e9475c492d559d3770d2", "240610fa99e73bfa49df8e7fc24d3206"],
    fashionmnist.data: ["f209073e486d5113ebe2cc431d4df862", "b7656a891b218fc13e45205c48a92cae"],
}
LABELS = {
    mnist.data: [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    fashionmnist.data: [6000] * 10,
}


@pytest.mark.parametrize("data", PIXELS)
def test_all_pictures_are_there(data):
    folder = DATA_ROOT / data.__name__.split(".")[0]
    sets = [data.load(split, data_config(folder)).modalities for split in ("train", "test")]
    assert [hashlib.md5(x["image"].numpy().tobytes()).hexdigest() for x in sets] == PIXELS[data]
    assert sets[0]["text"].bincount().tolist() == LABELS[data] and len(sets[1]["text"]) == 10_000


def test_mnist_trains_and_scores(tmp_path):
    data = DATA_ROOT / "mnist"
    settings = {"epochs": 2, "annealing_epochs": 1, "limit": 6000, "n_latents": 16, "lr": 2e-3}
    mnist.train.main(mnist.train.Config(data_dir=data, save_dir=tmp_path, **settings))
    torch.manual_seed(0)
    estimates = mnist.loglike.main(mnist.loglike.Config(tmp_path, data_dir=data, limit=100, n_samples=100))
    assert estimates["log p(image)"]["mean"] > -200, "independent pixels have about -206, an untrained model -545"


def test_multimnist_is_made_of_mnist(tmp_path):
    multimnist.data.make(DATA_ROOT / "mnist", tmp_path, PAPER)
    train, test = (multimnist.data.load(split, data_config(tmp_path, PAPER)) for split in ("train", "test"))
    assert (len(train), len(test)) == (60_000, 10_000)
    digits = (test.modalities["text"] != multimnist.data.FILL).sum(dim=1)
    assert ((digits.bincount() - 2000).abs() < 200).all(), "0 to 4 digits, equally often"
    ink = test.modalities["image"].double().sum(dim=(1, 2, 3))
    means = [ink[digits == n].mean().item() for n in range(5)]
    assert means[0] == 0
    assert means[4] == pytest.approx(4 * means[1], rel=0.03)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """The data-dir and a cache-dir of CelebA's images."""
    return DATA_ROOT / "celeba", tmp_path_factory.mktemp("cache")


def test_celeba_is_read_as_it_lies_there(faces):
    splits = {split: celeba.data.load(split, data_config(faces[0], cache_dir=faces[1])) for split in celeba.data.SPLITS}
    assert {split: len(examples) for split, examples in splits.items()} == {"train": 6400, "valid": 800, "test": 800}
    attrs = splits["train"].modalities["attrs"]
    shares = dict(zip(ATTRIBUTES, attrs.mean(dim=0).tolist(), strict=True))
    assert 0.38 < shares["Male"] < 0.45 and 0.44 < shares["Smiling"] < 0.52 and shares["Bald"] < 0.04
    for split, first in (("train", 1), ("valid", 6401), ("test", 7201)):
        image = decode(faces[0] / "img_align_celeba" / f"{first:06d}.jpg", Kind())
        assert splits[split].modalities["image"][0].equal(torch.from_numpy(image.copy()))


def test_views_are_made_of_full_size_photographs(tmp_path):
    source = DATA_ROOT / "celeba" / "original_178x218"
    setup.main(setup.Grayscale(source, tmp_path / "gray", jobs=1))
    setup.main(setup.Edge(source, tmp_path / "edge", jobs=1))
    edges = torch.stack(
        [torch.from_numpy(decode(p, Kind("L")).copy()) for p in sorted((tmp_path / "edge").glob("*.jpg"))]
    )
    assert len(edges) == 100 and 0.02 < (edges > 50).double().mean() < 0.3
    gray = torch.from_numpy(decode(tmp_path / "gray" / "000001.jpg", Kind("L")).copy())
    colour = torch.from_numpy(decode(source / "000001.jpg", Kind()).copy())
    assert (vision.data.gray_of(colour[None])[0].double() - gray.double()).abs().mean() < 3


def test_masks_are_drawn_of_the_faces_that_dlib_finds(tmp_path):
    source, dst = DATA_ROOT / "celeba" / "original_178x218", tmp_path / "mask"
    setup.main(setup.Mask(source, dst, jobs=1))
    masks = {path.name: 1 - decode(path, Kind("L")) / 255 for path in sorted(dst.glob("*.jpg"))}
    blank = [name for name, ink in masks.items() if ink.max() == 0]
    assert len(masks) == 100 and (dst / "no_face.txt").read_text().split() == blank and len(blank) == 5
    mean = np.mean([ink[0] for name, ink in masks.items() if name not in blank], axis=0)  # faces are aligned
    share = {"left eye": mean[32, 24], "right eye": mean[32, 39], "nose": mean[41, 31], "mouth": mean[48, 31]}
    assert min(share.values()) > 0.4 and share["mouth"] > 0.85
    assert mean[:24].max() == 0 and mean[40, 23:26].max() < 0.1, "forehead and cheek"


@pytest.mark.parametrize(
    ("images_dir", "sizes", "n_words"), [(None, (972, 286), 643), (Path("bbox_crops_227/images"), (819, 240), 518)]
)
def test_cubs_captions_are_with_their_images(tmp_path, images_dir, sizes, n_words):
    options = BirdOptions(images_dir=images_dir, cache_dir=tmp_path)
    train, test = (cub.data.load(split, data_config(DATA_ROOT / "cub", options)) for split in ("train", "test"))
    assert (len(train.classes), len(test.classes)) == sizes
    assert not set(train.classes.tolist()) & set(test.classes.tolist())
    assert len(train.vocabulary) == len(test.vocabulary) == n_words
    for birds in (train, test):
        i = 7
        text = DATA_ROOT / "cub" / "text_c10" / birds.files[i].parent.name / f"{birds.files[i].stem}.txt"
        assert birds.captions[10 * i : 10 * i + 10] == text.read_text().strip().split("\n")
        pair = birds.examples[torch.tensor([10 * i + 3])].modalities
        said = birds.vocabulary.sentences(pair["caption"])[0]
        known = [word for word in said.split() if "<exc>" not in word]
        assert len(known) > 3 and set(known[:3]) <= set(birds.captions[10 * i + 3].split())
        assert (pair["image"][0] * 255).byte().equal(torch.tensor(decode(birds.files[i], cub.data.IMAGES)))


def test_cubs_captions_are_learnt(tmp_path):
    options = {"data_dir": DATA_ROOT / "cub", "cache_dir": tmp_path, "limit": 200}
    settings = {"K": 1, "epochs": 2, "n_latents": 16, "batch_size": 16, "analytics": False}
    cub.train.main(cub.train.Config(model="caption", save_dir=tmp_path / "run", **options, **settings))
    torch.manual_seed(0)
    estimates = cub.loglike.main(cub.loglike.Config(tmp_path / "run", **options | {"limit": 10}, n_samples=20))
    assert estimates["log p(caption)"]["mean"] > -75, "words all as likely have about -110"


def test_the_tables_of_digits_are_all_there(capsys):
    splits = [mfeat.data.load(split, data_config(DATA_ROOT / "mfeat")).modalities for split in ("train", "test")]
    assert [x["digit"].bincount().tolist() for x in splits] == [[160] * 10, [40] * 10]
    assert [x["fac"].double().sum().item() for x in splits] == [
        109_997_606,
        27_495_202,
    ] and "warning" not in capsys.readouterr().err
    zeros = splits[0]["pix"][splits[0]["digit"] == 0].unflatten(1, mfeat.data.PICTURE).mean(dim=0)
    assert zeros[8, 7] < 1 < 5 < min(zeros[8, 2], zeros[8, 12], zeros[1, 7], zeros[14, 7]), "a ring around a hole"


def test_the_digit_is_learnt_from_its_tables(tmp_path):
    data = DATA_ROOT / "mfeat"
    mfeat.train.main(mfeat.train.Config(data_dir=data, save_dir=tmp_path, epochs=8))
    found = mfeat.analyse.main(mfeat.analyse.Config(tmp_path, data_dir=data, n_samples=10))
    assert found["accuracy"]["6 given"]["complete"] > 0.93 and found["r_squared"]["all others"]["mean"] > 0.55
    assert found["rmse"]["mean"]["model"] < 0.75 < found["rmse"]["mean"]["column mean"]


def test_omniglot_is_all_there():
    sets = [vhe.data.load(split, data_config(DATA_ROOT / "omniglot")) for split in ("train", "test")]
    digests = [hashlib.md5(s.images.numpy().astype("uint8").tobytes()).hexdigest() for s in sets]
    assert digests == OMNIGLOT_PIXELS
    assert [len(s.alphabets) for s in sets] == [30, 20]
    assert [s.character.bincount().tolist() for s in sets] == [[20] * 964, [20] * 659]


def test_omniglot_trains_and_scores(tmp_path):
    data = DATA_ROOT / "omniglot"
    several = {"limit": 100, "epochs": 3, "annealing_epochs": 0, "batch_size": 25, "lr": 2e-3}
    vhe.train.main(vhe.train.Config(data_dir=data, save_dir=tmp_path, **several))
    settings = {"limit": 10, "n_samples": 20, "k_shot": (5,)}
    estimates = vhe_loglike.main(vhe_loglike.Config(tmp_path, data_dir=data, **settings))
    train, test = (
        vhe.data.load(split, data_config(data, limit=n)).images for split, n in (("train", 100), ("test", 10))
    )
    independent = torch.distributions.Bernoulli(train.mean(dim=0).clamp(0.01, 0.99)).log_prob(test).sum() / len(test)
    given_others = estimates["log p(image|5 others)"]["mean"]
    assert given_others > independent + 50
    assert given_others > estimates["log p(image)"]["mean"] + 10
