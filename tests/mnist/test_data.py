import gzip
import hashlib

import fashionmnist.data
import mnist.data
from common.data.torchvision_import import datasets
from common.errors import InputError
from mnist import idx_files
from mnist.data import load
from mnist.idx_files import read_idx
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import IMAGES, LABELS, idx, write_mnist

import pytest
import torch


@pytest.mark.parametrize(("compress", "below"), [(True, ""), (False, "MNIST/raw")])
def test_mnist_is_read_wherever_it_usually_lies(tmp_path, compress, below):
    write_mnist(tmp_path / below, compress)
    for split in ("train", "test"):
        examples = load(split, data_config(tmp_path))
        assert examples.modalities["image"].equal(torch.from_numpy(IMAGES).unsqueeze(1))
        assert examples.modalities["text"].equal(torch.from_numpy(LABELS))
    assert len(load("test", data_config(tmp_path, limit=5))) == 5


def test_no_more_items_than_the_largest_set_are_promised(tmp_path, monkeypatch):
    monkeypatch.setattr(idx_files, "MAX_ITEMS", 3)
    (tmp_path / "file").write_bytes(idx(IMAGES[:3]))
    assert len(read_idx(tmp_path / "file", (28, 28))) == 3
    (tmp_path / "file").write_bytes(idx(IMAGES[:4]))
    with pytest.raises(InputError, match="file promises 4 items, not 1 to 3"):
        read_idx(tmp_path / "file", (28, 28))


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        (".gz", gzip.compress(idx(IMAGES))[:-100], "is damaged or not an idx file"),
        ("", idx(IMAGES)[:-1], "is damaged or not an idx file"),
        ("", idx(IMAGES) + b"x", "is damaged or not an idx file"),
        ("", idx(IMAGES, magic=b"\0\0\x0d\x03"), "is not an idx file: it starts with 00000d03"),
        ("", idx(IMAGES[:, :14]), r"holds items of shape \(14, 28\), not \(28, 28\)"),
    ],
    ids=["gz cut short", "cut short", "too long", "other magic", "other shape"],
)
def test_damaged_files_are_named(tmp_path, suffix, content, message):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_idx(path, (28, 28))
    assert str(path) in str(error.value) and "--download" in str(error.value)


def test_missing_and_mismatched_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz is missing.*--data-dir.*--download.*--demo"):
        load("train", data_config(tmp_path))
    write_mnist(tmp_path, labels=LABELS[:-1])
    with pytest.raises(InputError, match="12 images.*11 labels"):
        load("train", data_config(tmp_path))
    write_mnist(tmp_path, labels=LABELS + 3)
    with pytest.raises(InputError, match="does not hold the labels 0 to 9"):
        load("train", data_config(tmp_path))


@pytest.mark.parametrize("compress", [True, False])
def test_files_of_another_dataset_or_split_are_named(tmp_path, monkeypatch, capsys, compress):
    images, labels = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
    path = write_mnist(tmp_path, compress) / (f"{images}.gz" if compress else images)
    of_items, of_labels = (hashlib.md5(idx(array)).hexdigest() for array in (IMAGES, LABELS))
    for dataset, name in (("FashionMNIST", images), ("MNIST", "t10k-images-idx3-ubyte")):
        monkeypatch.setattr("mnist.data.KNOWN", {(dataset, name): of_items})
        with pytest.raises(InputError, match=f"^{path} holds {dataset}'s {name}, not MNIST's {images}: put the right"):
            load("train", data_config(tmp_path))
    monkeypatch.setattr("mnist.data.KNOWN", {("MNIST", images): of_items, ("MNIST", labels): of_labels})
    capsys.readouterr()
    assert len(load("train", data_config(tmp_path))) == 12 and capsys.readouterr().err == ""


def test_data_that_nobody_knows_are_used_with_a_warning(tmp_path, capsys):
    for name in "ab":
        for split in ("train", "test"):
            assert len(load(split, data_config(write_mnist(tmp_path / name)))) == 12
        said = f"warning: {tmp_path / name} does not hold MNIST as published: its files are used unchecked\n"
        assert capsys.readouterr().err == said, "once for its four files"


def test_demo_digits_look_like_mnist():
    train, test = load("train", data_config("nowhere", demo=True)), load("test", data_config("nowhere", demo=True))
    assert (len(train), len(test)) == (1500, 297)
    image, text = train.modalities["image"], train.modalities["text"]
    assert image.shape == (1500, 1, 28, 28) and image.dtype == torch.uint8
    assert image[:, :, :4].max() == 0 and image.max() == 255
    assert text.bincount().min() > 130, "all ten digits"
    both = torch.cat([image, test.modalities["image"]]).flatten(1)
    assert len(both.unique(dim=0)) == 1797, "no test image among the training images"


@pytest.mark.parametrize(("dataset", "load"), [("MNIST", load), ("FashionMNIST", fashionmnist.data.load)])
def test_downloads_come_from_torchvisions_mirrors(tmp_path, server, monkeypatch, dataset, load):
    known = getattr(datasets, dataset)
    packed = {(dataset, name.removesuffix(".gz")): md5 for name, md5 in known.resources}
    assert packed.items() <= mnist.data.PACKED.items() and list(mnist.data.MIRRORS[dataset]) == known.mirrors
    source = write_mnist(tmp_path / "source")
    server.content = {f"/{p.name}": p.read_bytes() for p in source.iterdir()}
    md5s = {(dataset, p.stem): hashlib.md5(p.read_bytes()).hexdigest() for p in source.iterdir()}
    monkeypatch.setattr(mnist.data, "MIRRORS", {dataset: (f"{server.url}/absent/", f"{server.url}/")})
    monkeypatch.setattr(mnist.data, "PACKED", md5s)
    examples = load("train", data_config(tmp_path / "data", download=True))
    assert examples.modalities["image"].equal(torch.from_numpy(IMAGES).unsqueeze(1))
    load("train", data_config(tmp_path / "data", download=True))
    assert len(server.requests) == 4, "two files, the first mirror tried in vain for each, nothing fetched twice"
