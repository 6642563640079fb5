"""Pairs of MNIST and SVHN: the matchings, SVHN's files, and the synthetic street digits."""

import hashlib
import zipfile
from dataclasses import replace

import mnist_svhn.data
from common.data.torchvision_import import datasets
from common.errors import InputError
from mnist_svhn import make_idx
from mnist_svhn.data import FILES, load, load_train, pair, read_svhn, save_pairs
from mnist_svhn.options import PairOptions, TrainingPairOptions
from mnist_svhn.street import street_digits
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import write_mnist
from tests.helpers.scripts import run_script

import numpy as np
import pytest
import torch
from scipy.io import savemat

RANDOM = np.random.default_rng(0)
X = RANDOM.integers(0, 256, (32, 32, 3, 24), dtype=np.uint8)
Y = (np.arange(24, dtype=np.uint8) % 10 + 1)[:, None]  # 1 .. 10, and 10 is the digit 0


def generator():
    return torch.Generator().manual_seed(0)


def write_svhn(folder, x=X, y=Y, **others):
    for name in FILES.values():
        savemat(folder / name, {"X": x, "y": y, **others})
    return folder


def test_every_matching_pairs_each_image_once_with_one_of_its_class():
    a, b = torch.randint(10, (400,), generator=generator()), torch.randint(10, (300,), generator=generator())
    i, j = pair(a, b, 5, 28, generator())
    assert a[i].equal(b[j])
    for c in range(10):
        n = min((a == c).sum(), (b == c).sum(), 28)
        for labels, rows in ((a, i), (b, j)):
            used, times = rows[labels[rows] == c].unique(return_counts=True)
            assert used.equal((labels == c).nonzero().squeeze(1)[:n]), "the first of the class"
            assert (times == 5).all()
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) > 4 * len(i) / 5, "other partners in other matchings"
    assert not (a[i].diff() >= 0).all(), "classes are mixed"
    again = pair(a, b, 5, 28, generator())
    assert i.equal(again[0]) and j.equal(again[1])


def test_svhn_is_read_in_its_own_format(tmp_path):
    images, labels = read_svhn("test", write_svhn(tmp_path))
    assert images.shape == (24, 3, 32, 32) and images.dtype == torch.uint8
    assert images[5, 2, 7, 11] == X[7, 11, 2, 5]
    assert labels.tolist() == [(i % 10 + 1) % 10 for i in range(24)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X[:31]}, r"X holds uint8 of shape \(31, 32, 3, 24\), not uint8 of \(32, 32, 3, 1 to 100000\)"),
        ({"x": X.astype(float)}, "X holds another type"),
        ({"y": Y[:-1]}, "does not hold a label from 1 to 10 for each image"),
        ({"y": Y - 1}, "does not hold a label from 1 to 10 for each image"),
    ],
)
def test_files_that_are_not_svhns_are_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=rf"train_32x32.mat.* {message}.*: delete it"):
        read_svhn("train", write_svhn(tmp_path, **change))


def test_a_file_of_the_other_split_is_named(tmp_path, monkeypatch, capsys):
    for url, name, md5 in (datasets.SVHN.split_list[split] for split in FILES):
        assert md5 == mnist_svhn.data.KNOWN["SVHN", name] and url == mnist_svhn.data.URL + name
    path = write_svhn(tmp_path) / FILES["train"]
    read_svhn("train", tmp_path)
    assert (
        capsys.readouterr().err
        == f"warning: {tmp_path} does not hold SVHN as published: its files are used unchecked\n"
    )
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(mnist_svhn.data, "KNOWN", {("SVHN", FILES["test"]): md5})
    with pytest.raises(InputError, match=f"^{path} holds SVHN's test_32x32.mat, not SVHN's train_32x32.mat: put the"):
        read_svhn("train", tmp_path)


def test_a_missing_svhn_says_what_to_do(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(InputError, match=r"train_32x32.mat is missing.*--svhn synthetic"):
        load("train", data_config(tmp_path, PairOptions()))


def test_real_pairs_show_the_same_digit(tmp_path):
    write_mnist(tmp_path)
    batch = load("train", data_config(write_svhn(tmp_path), PairOptions()))[:].modalities
    assert batch["mnist"].shape == (12, 1, 28, 28) and batch["svhn"].shape == (12, 3, 32, 32)
    svhn, labels = read_svhn("train", tmp_path)
    for digit, image in zip(batch["digit"], (255 * batch["svhn"]).round(), strict=True):
        assert any(image.equal(other.float()) for other in svhn[labels == digit])


def test_no_digit_is_in_both_modalities_of_the_demo(monkeypatch):
    seen = []

    def street(digits, *how):
        seen.append(digits)
        return street_digits(digits, *how)

    monkeypatch.setattr(mnist_svhn.data, "street_digits", street)
    examples = load("test", data_config("", PairOptions(), demo=True))
    first = {image.numpy().tobytes() for image in examples.modalities["mnist"][:, 0]}
    assert len(first) > 140 and not first & {image.numpy().tobytes() for image in seen[0]}
    assert len(load("train", data_config("", PairOptions(), demo=True, limit=7))[:]) == 7
    other = load("test", data_config("", PairOptions(pair_seed=1), demo=True))
    assert not other.rows["svhn"].equal(examples.rows["svhn"]), "--pair-seed decides the partners"


@pytest.fixture
def mnist_dir(tmp_path):
    digits = RANDOM.integers(0, 256, (60, 28, 28), dtype=np.uint8)
    write_mnist(tmp_path, images=digits, labels=np.arange(60) % 10)
    return tmp_path


OPTIONS = TrainingPairOptions(svhn="synthetic", matchings=3)


def test_saved_pairs_are_those_drawn_anew_and_are_taken(mnist_dir):
    drawn, valid = load_train(data_config(mnist_dir, OPTIONS))
    (path,) = save_pairs(data_config(mnist_dir, OPTIONS))
    kept, same = load_train(data_config(mnist_dir, OPTIONS))
    for name in ("mnist", "svhn"):
        assert kept.rows[name].equal(drawn.rows[name]) and same.rows[name].equal(valid.rows[name])
    with np.load(path) as file:
        content = dict(file)
    np.savez(path, **(content | {"train": content["train"][:, ::-1]}))
    assert load_train(data_config(mnist_dir, OPTIONS))[0].rows["svhn"].equal(drawn.rows["svhn"].flip(0)), (
        "the file's own"
    )
    i, j = content["train"]
    for wrong in (np.stack([i, np.roll(j, 1)]), content["train"] + 1000):
        np.savez(path, **(content | {"train": wrong}))
        with pytest.raises(InputError, match="are of images of other files: make them again with make_idx.py"):
            load_train(data_config(mnist_dir, OPTIONS))


def test_pairs_of_the_real_svhn_are_also_saved_as_the_authors_code_reads_them(mnist_dir, capsys):
    write_svhn(mnist_dir)
    args = ["--data-dir", str(mnist_dir), "--matchings", "3", "--valid", "0"]
    run_script(make_idx, args)
    names = [f"{split}-ms-{name}-idx.pt" for split in ("train", "test") for name in ("mnist", "svhn")]
    paths = [mnist_dir / name for name in ("mnist_svhn_idx.npz", *names)]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in paths]
    assert not any(zipfile.is_zipfile(path) for path in paths[1:]), "the authors' torch 1.3 reads no zip archives"
    rows = [torch.load(path, weights_only=True) for path in paths[1:]]
    assert all(x.dtype == torch.int64 and x.ndim == 1 for x in rows)
    assert all(x.untyped_storage().nbytes() == x.nbytes for x in rows), "nothing else in the file"
    options = replace(OPTIONS, svhn="real")
    train, test = load_train(data_config(mnist_dir, options, valid=0))[0], load("test", data_config(mnist_dir, options))
    expected = [part.rows[name] for part in (train, test) for name in ("mnist", "svhn")]
    assert all(x.equal(y) for x, y in zip(rows, expected, strict=True)) and len(rows[0]) > 2 * len(rows[2]) > 0


def test_the_authors_pairs_are_taken_but_for_those_of_held_out_images(mnist_dir):
    """With the files of make_idx.py, and with other pairs, some of them repeated, as the authors' script has them."""
    real = data_config(write_svhn(mnist_dir), replace(OPTIONS, svhn="real"), valid=0)
    for path in save_pairs(real)[:1]:
        path.unlink()
    paths = [mnist_dir / f"train-ms-{name}-idx.pt" for name in ("mnist", "svhn")]
    i, j = (torch.load(path, weights_only=True) for path in paths)
    train, valid = load_train(real)
    assert valid is None and train.rows["mnist"].equal(i) and train.rows["svhn"].equal(j)
    order = torch.tensor([*range(len(i))[::-1], 0, 0])
    for path, rows in zip(paths, (i, j), strict=True):
        torch.save(rows[order], path, _use_new_zipfile_serialization=False)
    train, valid = load_train(data_config(mnist_dir, replace(OPTIONS, svhn="real", matchings=1), valid=12))
    n_mnist, n_svhn = (len(train.modalities[name]) for name in ("mnist", "svhn"))
    known = [k for k in order.tolist() if i[k] < n_mnist and j[k] < n_svhn]
    assert 0 < len(known) < len(i) and len(valid) > 0
    assert train.rows["mnist"].equal(i[known]) and train.rows["svhn"].equal(j[known])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "idx.pt is missing: make"),
        (torch.tensor([-1]), "hold no pairs: make"),
        (torch.tensor([10**6]), "pair no training images: make them again with make_idx.py, or give a smaller --valid"),
        ([1], "is damaged, .*Tensor"),
    ],
)
def test_authors_pairs_that_are_none_are_refused(mnist_dir, content, message):
    torch.save(torch.tensor([0]), write_svhn(mnist_dir) / "train-ms-mnist-idx.pt")
    if content is not None:
        torch.save(content, mnist_dir / "train-ms-svhn-idx.pt")
    with pytest.raises(InputError, match=message):
        load_train(data_config(mnist_dir, replace(OPTIONS, svhn="real"), valid=0))


def test_saved_matchings_are_taken_unless_others_are_asked_for(mnist_dir):
    as_default = data_config(mnist_dir, replace(OPTIONS, matchings=None))
    once = len(load_train(data_config(mnist_dir, replace(OPTIONS, matchings=1)))[0])
    assert len(load_train(as_default)[0]) == 30 * once
    run_script(make_idx, ["--data-dir", mnist_dir, "--svhn", "synthetic", "--matchings", 20])
    assert len(load_train(as_default)[0]) == 20 * once


@pytest.mark.parametrize(
    ("options", "valid", "message"),
    [
        ({"matchings": 4}, None, "with --matchings 3, not --matchings 4"),
        ({"svhn": "real"}, None, "--svhn synthetic --valid 5, not --svhn real"),
        ({}, 2, "with --valid 5, not --valid 2"),
    ],
)
def test_saved_pairs_of_other_options_are_refused(mnist_dir, options, valid, message):
    save_pairs(data_config(write_svhn(mnist_dir), OPTIONS))
    (mnist_dir / "synthetic_svhn_train.npz").unlink()
    with pytest.raises(InputError, match=f"{message}.*: give the same options, .*make_idx.py"):
        load_train(data_config(mnist_dir, replace(OPTIONS, **options), valid=valid))


def test_synthetic_svhn_is_made_once(mnist_dir, monkeypatch):
    first = load("train", data_config(mnist_dir, OPTIONS))
    monkeypatch.setattr(mnist_svhn.data, "street_digits", None)
    assert load("train", data_config(mnist_dir, OPTIONS)).modalities["svhn"].equal(first.modalities["svhn"])
    path = mnist_dir / "synthetic_svhn_train.npz"
    with pytest.raises(InputError, match="made with --pair-seed 0, not --pair-seed 1: .*delete it"):
        load("train", data_config(mnist_dir, replace(OPTIONS, pair_seed=1)))
    write_mnist(mnist_dir, images=RANDOM.integers(0, 256, (60, 28, 28), dtype=np.uint8), labels=np.arange(60) // 6)
    with pytest.raises(InputError, match="made from other digits: delete it"):
        load("train", data_config(mnist_dir, OPTIONS))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="npz is damaged or not an archive of arrays .*: delete it"):
        load("train", data_config(mnist_dir, OPTIONS))
