"""PolyMNIST: generated images against their definition, and the archives' two layouts."""

import shutil
from pathlib import Path

from common.data import Examples
from common.errors import InputError
from polymnist import data
from polymnist.options import DatasetOptions
from tests.helpers.data_config import data_config

import numpy as np
import pytest
import torch
from PIL import Image

LABELS = torch.arange(400) % 10
DIGITS = torch.randint(256, (400, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
NAMES = data.modalities(5)


def config(data_dir="", limit=None, demo=False, download=False, **options):
    return data_config(data_dir, DatasetOptions(**options), limit=limit, demo=demo, download=download)


def test_missing_images_are_drawn_as_in_the_multivae_package():
    n = 4000
    examples = Examples({f"m{i}": torch.arange(n) for i in range(3)})
    some = data.with_missing(examples, 0.3, keep_incomplete=True)
    assert some.modalities is examples.modalities and some.mask[:, 0].all()
    for m in (1, 2):
        expected = torch.bernoulli(torch.ones(n) * 0.7, generator=torch.Generator().manual_seed(m)).bool()
        assert some.mask[:, m].equal(expected) and abs(expected.float().mean() - 0.7) < 0.03
    complete = data.with_missing(examples, 0.3, keep_incomplete=False)
    assert complete.mask is None and complete.modalities["m1"].equal(some.mask.all(dim=1).nonzero().flatten())
    assert data.with_missing(examples, 0.0, keep_incomplete=True) is examples


def test_every_digit_is_once_in_every_modality_beside_others_of_its_class():
    """On black, a digit is what is white."""
    black = torch.zeros(3, 40, 40, dtype=torch.uint8)
    examples = data.generate(DIGITS, LABELS, NAMES, "train", background=lambda i: black)
    masks = (DIGITS[:, 0] > 128).flatten(1)
    rows = {}
    for name in NAMES:
        x = examples.modalities[name]
        assert x.dtype == torch.uint8 and x.shape == (400, 3, 28, 28) and (x[:, :1] == x).all()
        same = (x[:, 0] == 255).flatten(1).int() @ masks.int().T + (x[:, 0] == 0).flatten(1).int() @ (~masks).int().T
        most, rows[name] = same.max(dim=1)
        assert (most == 28 * 28).all() and rows[name].sort().values.equal(torch.arange(400))
        assert LABELS[rows[name]].equal(examples.modalities["digit"])
    for a in NAMES:
        for b in NAMES:
            assert a == b or (rows[a] == rows[b]).float().mean() < 0.1
    assert examples.modalities["digit"].unique_consecutive().numel() > 300, "classes are mixed"


def test_a_modality_is_the_same_whatever_others_there_are():
    few, many = (data.generate(DIGITS, LABELS, data.modalities(n), "train").modalities for n in (2, 4))
    assert all(many[name].equal(x) for name, x in few.items())
    test = data.generate(DIGITS, LABELS, NAMES[:2], "test").modalities
    assert not test["m0"].equal(few["m0"]) and not few["m0"].equal(few["m1"])


def test_digits_are_inverted_out_of_crops_of_the_photograph():
    height, width, n = 31, 33, 2000
    photograph = torch.stack(
        [
            torch.arange(height).view(-1, 1).expand(height, width),
            torch.arange(width).expand(height, width),
            torch.full((height, width), 200),
        ]
    ).to(torch.uint8)
    masks = torch.rand(n, 28, 28) < 0.3
    digits = (200 * masks).to(torch.uint8).unsqueeze(1)
    made = data.generate(digits, torch.zeros(n).long(), ("m0",), "train", background=lambda i: photograph)
    images = made.modalities["m0"]
    inverted = images[:, 2] == 255 - 200
    assert inverted.flatten(1).sum(dim=1).sort().values.equal(masks.flatten(1).sum(dim=1).sort().values)
    crops = torch.where(inverted.unsqueeze(1), 255 - images, images)
    y, x = crops[:, 0, 0, 0], crops[:, 1, 0, 0]
    assert y.unique().tolist() == [0, 1, 2] and x.unique().tolist() == [0, 1, 2, 3, 4], "all places but the last ones"
    for i in range(0, n, 97):
        assert crops[i].equal(photograph[:, y[i] : y[i] + 28, x[i] : x[i] + 28])


def test_translated_digits_are_small_and_anywhere():
    square = torch.zeros(500, 28, 28, dtype=torch.uint8)
    square[:, 4:24, 8:20] = 255  # 20 x 12 pixels, 15 x 9 when shrunk
    found = data.moved(square, torch.Generator().manual_seed(0)) > data.THRESHOLD
    assert (found.sum(dim=(1, 2)) == 15 * 9).all()
    top, left = (found.any(dim=axis).int().argmax(dim=1) for axis in (2, 1))
    assert top.unique().tolist() == [3 + i for i in range(7)] and left.unique().tolist() == [6 + i for i in range(7)]
    whole = data.generate(DIGITS, LABELS, NAMES[:2], "train", translated=True)
    still = data.generate(DIGITS, LABELS, NAMES[:2], "train")
    assert len(whole) == 400 and not whole.modalities["m0"].equal(still.modalities["m0"])


@pytest.mark.parametrize("options", [{}, {"translated": True}, {"quadrant": True}])
def test_a_limit_makes_the_same_first_examples(options):
    whole, few = (data.generate(DIGITS, LABELS, NAMES[:2], "train", limit=n, **options) for n in (None, 7))
    assert all(few.modalities[name].equal(x[:7]) for name, x in whole.modalities.items())
    assert len(few) == 7 and few.modalities.keys() == whole.modalities.keys()


def write_pictures(folder, classes=(3, 0, 0, 7)):
    """Files of the archives that hold PNGs; image i of a class is grey, 10 times the class and i."""
    counts, expected = {}, []
    for digit in classes:
        i = counts[digit] = counts.get(digit, -1) + 1
        expected.append((digit, i))
        for m, name in enumerate(NAMES):
            path = folder / "train" / name / f"{i}.{digit}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((28, 28, 3), 10 * digit + i + 100 * (m % 2), np.uint8)).save(path)
    return sorted(expected)


@pytest.mark.parametrize("root", ["", "MMNIST", "PolyMNIST"])
def test_pictures_are_paired_by_their_names(tmp_path, root):
    expected = write_pictures(tmp_path / root)
    examples = data.read(tmp_path, "train", NAMES)
    assert examples.modalities["digit"].tolist() == [digit for digit, _ in expected]
    for m, name in enumerate(NAMES):
        grey = torch.tensor([10 * digit + i + 100 * (m % 2) for digit, i in expected])
        assert (examples.modalities[name] == grey.view(-1, 1, 1, 1)).all()
    mixed = data.load("train", config(tmp_path, images="original", n_modalities=2, limit=3))
    assert len(mixed) == 3 and set(mixed.modalities) == {"m0", "m1", "digit"}
    assert (mixed.modalities["m0"][:, 0, 0, 0] // 10 == mixed.modalities["digit"]).all()


def test_pictures_as_people_have_them_are_read(tmp_path):
    write_pictures(tmp_path / "whole")
    write_pictures(tmp_path / "data/MMNIST/MMNIST")
    for path in (tmp_path / "data/MMNIST/MMNIST/train/m1").iterdir():
        path.rename(path.with_suffix(".PNG"))
    (tmp_path / "data/MMNIST/MMNIST/train/m2/._1.0.png").write_bytes(b"no picture")
    found, expected = (data.read(tmp_path / name, "train", NAMES) for name in ("data", "whole"))
    assert all(found.modalities[name].equal(x) for name, x in expected.modalities.items())


def test_decoded_pictures_lie_in_the_cache_dir(tmp_path):
    write_pictures(tmp_path / "data")
    before = sorted((tmp_path / "data").rglob("*"))
    given = config(tmp_path / "data", images="original", cache_dir=tmp_path / "cache")
    examples = data.load("train", given)
    assert sorted((tmp_path / "data").rglob("*")) == before
    assert len(list((tmp_path / "cache").glob("*.npy"))) == len(NAMES)
    plain = data.load("train", config(tmp_path / "data", images="original"))
    assert all(x.equal(plain.modalities[name]) for name, x in examples.modalities.items())


def test_translated_pictures_have_a_folder_of_their_own(tmp_path):
    write_pictures(tmp_path / "MMNIST", classes=(1, 2))
    write_pictures(tmp_path / data.TRANSLATED_ROOT, classes=(3, 4, 5))
    cache = {"images": "original", "cache_dir": tmp_path / "cache"}
    plain, translated = (data.load("train", config(tmp_path, translated=t, **cache)) for t in (False, True))
    assert sorted(plain.modalities["digit"].tolist()) == [1, 2]
    assert sorted(translated.modalities["digit"].tolist()) == [3, 4, 5]


def write_tensors(folder, **changes):
    files = {name: torch.randint(256, (6, 3, 28, 28)) / 255 for name in NAMES} | {"labels": torch.arange(6)}
    (folder / "train").mkdir()
    for name, x in (files | changes).items():
        torch.save(x, folder / "train" / f"{name}.pt")
    return files


def test_tensors_are_read_as_bytes(tmp_path):
    files = write_tensors(tmp_path)
    examples = data.read(tmp_path, "train", NAMES)
    assert examples.modalities["digit"].equal(torch.arange(6))
    for name in NAMES:
        x = examples.modalities[name]
        assert x.dtype == torch.uint8 and (x / 255).equal(files[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"m1": torch.rand(5, 3, 28, 28)}, r"m1.pt does not hold 6 images of 3 x 28 x 28 numbers in \[0, 1\]"),
        ({"m1": 2 * torch.rand(6, 3, 28, 28)}, "m1.pt does not hold 6 images"),
        ({"labels": torch.arange(6) + 5}, "labels.pt does not hold the classes 0 to 9"),
        ({"m0": {"x": 1}}, "m0.pt"),
    ],
)
def test_tensors_that_are_no_images_are_refused(tmp_path, changes, message):
    write_tensors(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        data.read(tmp_path, "train", NAMES)


def test_pictures_that_do_not_fit_together_are_named(tmp_path):
    write_pictures(tmp_path)

    def refused(message, n=5):
        with pytest.raises(InputError, match=message):
            data.read(tmp_path, "train", data.modalities(n))

    refused("train/m5 is missing: give --n-modalities 5 at most", 6)
    Image.new("RGB", (32, 28)).save(tmp_path / "train/m3/0.3.png")  # not the first one
    refused(r"m3/0\.3\.png has 32 x 28 pixels, not 28 x 28: unpack")
    for name in NAMES:
        (tmp_path / "train" / name / ".hidden").touch()
        Image.new("RGB", (28, 28)).save(tmp_path / "train" / name / "0.1C.png")
    refused(r"train/m0/0.1C.png is not named I.CLASS.png: move it away, or unpack")
    for name in NAMES:
        (tmp_path / "train" / name / "0.1C.png").unlink()
    (tmp_path / "train/m0/1.0.png").unlink()
    refused(r"m0/1\.0\.png is missing, others have it: unpack the archive again")
    for path in tmp_path.glob("train/*/*.png"):
        path.unlink()
    refused(r"train/m0 holds no files I.CLASS.png: unpack the archive again")


def test_the_archive_is_fetched_and_unpacked(tmp_path, monkeypatch, server):
    """Once, and not beside other images."""
    (tmp_path / "source" / "MMNIST").mkdir(parents=True)
    images = write_tensors(tmp_path / "source" / "MMNIST")
    archive = shutil.make_archive(tmp_path / "PolyMNIST", "zip", tmp_path / "source")
    server.content["/PolyMNIST.zip"] = Path(archive).read_bytes()
    monkeypatch.setattr(data, "URL", f"{server.url}/PolyMNIST.zip")
    for _ in range(2):
        examples = data.load("train", config(tmp_path / "new", images="original", download=True)).modalities
        assert (examples["m3"] / 255).equal(images["m3"][examples["digit"]])
    write_pictures(tmp_path)
    data.load("train", config(tmp_path, images="original", download=True))
    assert len(server.requests) == 1
