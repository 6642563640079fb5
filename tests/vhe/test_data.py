"""Omniglot's files, what becomes of their pages, and the drawn characters of the demo."""

import shutil
import zipfile

from common.data.torchvision_import import datasets
from common.errors import InputError
from tests.helpers.data_config import data_config
from tests.helpers.omniglot_files import N_PAGES, page, png, write_omniglot
from vhe import data, demo
from vhe.data import Characters, decode, hold_out, load, shrink

import numpy as np
import pytest
import torch
from PIL import Image


def same(a, b):
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in zip(a, b, strict=True))


def test_a_split_is_numbered_by_alphabet_and_character(tmp_path):
    train = load("train", data_config(write_omniglot(tmp_path)))
    assert train.alphabets == ("Armenian", "Greek", "Latin"), "in order, as torchvision lists them"
    assert train.names == (
        *("Armenian/character01", "Greek/character01", "Greek/character02"),
        *("Latin/character01", "Latin/character02", "Latin/character03"),
    )
    assert train.character.tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 4, 5, 5]
    assert train.alphabet.tolist() == [0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2]
    assert train.ids[:4] == ("0002_01", "0002_02", "0000_01", "0000_02")
    assert (train.images.shape, train.images.dtype) == ((11, 1, 28, 28), torch.float32)
    expected = shrink(torch.from_numpy(np.stack([page(int(id[:4])) for id in train.ids])).float()).unsqueeze(1)
    assert torch.equal(train.images, expected)
    assert len(load("test", data_config(tmp_path)).ids) == N_PAGES["images_evaluation"]


@pytest.mark.parametrize("folder", ["", "omniglot-py"])
@pytest.mark.parametrize("zipped", [False, True])
def test_archives_and_folders_hold_the_same(tmp_path, folder, zipped):
    found = load("test", data_config(write_omniglot(tmp_path / "data" / folder, zipped) and tmp_path / "data"))
    assert same(found, load("test", data_config(write_omniglot(tmp_path / "other"))))


@pytest.mark.parametrize("zipped", [False, True])
def test_pages_as_people_have_them_are_read(tmp_path, zipped, capsys):
    expected = load("train", data_config(write_omniglot(tmp_path / "whole")))
    root = write_omniglot(tmp_path / "data", zipped=False)
    pages = root / "images_background"
    for path in pages.glob("Greek/character01/*"):
        path.rename(path.with_suffix(".PNG"))
    for name in ("Greek/character01/._0000_01.PNG", ".cache/character01/0000_01.png"):
        (pages / name).parent.mkdir(parents=True, exist_ok=True)
        (pages / name).write_bytes(b"no page")
    (pages / "Greek/character02/0001_09.bmp").write_bytes(b"no page")
    pages.rename(tmp_path / "images_background")
    pages.mkdir()
    (tmp_path / "images_background").rename(pages / "images_background")
    if zipped:
        shutil.make_archive(pages, "zip", root, "images_background")
        shutil.rmtree(pages)
    assert same(load("train", data_config(root)), expected)
    path = root / f"images_background{'.zip' if zipped else ''}"
    left_out = "'images_background/images_background/Greek/character02/0001_09.bmp' (1 in all)"
    warning = f"warning: left out of {path}, being no images ALPHABET/CHARACTER/IMAGE.png: {left_out}\n"
    assert capsys.readouterr().err == warning


def test_limit_counts_characters(tmp_path):
    train = load("train", data_config(write_omniglot(tmp_path)))
    assert same(load("train", data_config(tmp_path, limit=4)), train.take(train.character < 4))
    assert same(load("train", data_config(tmp_path, limit=100)), train)


def test_what_is_taken_is_renumbered(tmp_path):
    train = load("train", data_config(write_omniglot(tmp_path)))
    for rows in (torch.tensor([9, 2, 3]), torch.arange(11) % 11 == 2, slice(3, None, 2)):
        some = train.take(rows)
        numbers = torch.arange(11)[rows].tolist()
        assert some.ids == tuple(train.ids[i] for i in numbers)
        assert torch.equal(some.images, train.images[numbers])
        assert [some.names[i] for i in some.character] == [train.names[train.character[i]] for i in numbers]
        assert [some.alphabets[i] for i in some.alphabet] == [train.alphabets[train.alphabet[i]] for i in numbers]
        assert set(some.character.tolist()) == set(range(len(some.names)))
        assert set(some.alphabet.tolist()) == set(range(len(some.alphabets)))


def test_the_last_alphabets_validate():
    files = [f"{a}/{c}/{a}{c}{i}.png" for a in "abcdefg" for c in "xy" for i in range(2)]
    characters = Characters.of(torch.zeros(28, 1, 28, 28), files)
    train, valid = hold_out(characters)
    assert (train.alphabets, valid.alphabets) == (tuple("abcdef"), ("g",)), "a sixth"
    train, valid = hold_out(characters, 3)
    assert (train.ids[-1], valid.ids[0], len(valid.ids)) == ("dy1", "ex0", 12)
    train, valid = hold_out(characters, 0)
    assert same(train, characters) and valid is None
    for wrong in (7, -1):
        with pytest.raises(InputError, match=f"between 0 and 6, since there are 7 alphabets: it is {wrong}"):
            hold_out(characters, wrong)


def test_pages_shrink_by_area():
    ink = torch.zeros(4, 105, 105)
    ink[:3, 60:] = 1  # bold strokes, below row 16 of the result
    # pixel (1, 1) covers the page's rows and columns 3.75 to 7.5: half of it is 7.03 of them
    ink[0, 3:7, 3:5] = 1  # 3.25 x 1.25
    ink[1, 4:8, 4:6] = 1  # 3.5 x 2 = 7
    ink[2, 3:8, 3:6] = 1  # 3.75 x 2.25 = 8.4
    image = shrink(ink)
    assert image[:, 1, 1].tolist() == [0, 0, 1, 0]
    assert image[:3, 16:].all()
    assert image[:, :16].sum().item() == 1
    assert not image[3].any(), "blank"
    generator = torch.Generator().manual_seed(0)
    small = (torch.rand(5, 28, 28, generator=generator) < 0.3).float()
    assert torch.equal(shrink(small), small)
    assert torch.equal(shrink(small.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)), small)


@pytest.mark.parametrize("width", [1, 4])
def test_strokes_of_any_width_are_kept_whole(width):
    lines = torch.zeros(90, 105, 105)
    for i in range(90):
        lines[i, :, i : i + width] = 1
        lines[i, i : i + width, :50] = 1
    for image in shrink(lines):
        assert image.any(dim=1).all() and image[:, :13].any(dim=0).all(), "without a gap"
        assert image.sum() <= 2 * 28 + 2 * 14, "two pixels wide at most"


def test_what_is_not_square_gets_more_paper(tmp_path):
    ink = page(3)
    for name, there in (("wide", slice(20, 84)), ("whole", slice(0, 105))):  # the ink is in rows 20 to 79
        png(ink[there], tmp_path / f"{name}.png")
    assert torch.equal(decode(tmp_path / "wide.png"), decode(tmp_path / "whole.png"))


def test_thin_strokes_of_large_images_last(tmp_path):
    ink = np.zeros((900, 900), dtype=bool)
    ink[100:800, 440] = True
    png(ink, tmp_path / "a.png")
    # a pixel of the result is 32.1 wide
    assert decode(tmp_path / "a.png")[0].nonzero().tolist() == [[row, 13] for row in range(3, 25)]


@pytest.fixture(scope="module")
def drawn():
    return {split: demo.draw_characters(split) for split in ("train", "test")}


def test_stated_alphabets_of_both_sets_are_the_test(tmp_path):
    write_omniglot(tmp_path)
    stated = ("Tengwar", "Greek")
    train, test = (load(split, data_config(tmp_path), test_alphabets=stated) for split in ("train", "test"))
    assert (train.alphabets, test.alphabets) == (("Armenian", "Latin", "Atlantean"), ("Greek", "Tengwar"))
    assert test.ids == ("0000_01", "0000_02", "0001_01", "0001_02", "0001_03", "0006_01", "0006_02", "0006_03")
    assert len(train.ids) + len(test.ids) == sum(N_PAGES.values())
    with pytest.raises(InputError, match="no 'Gree'; it has Armenian, Greek, Latin, Atlantean, Tengwar$"):
        load("test", data_config(tmp_path), test_alphabets=("Gree",))
    with pytest.raises(InputError, match="no alphabet to train on"):
        load("train", data_config(tmp_path), test_alphabets=("Armenian", "Greek", "Latin", "Atlantean", "Tengwar"))


def test_a_file_is_decoded_as_the_data_are(tmp_path):
    expected = shrink(torch.from_numpy(page(3)[None]).float())
    assert expected.sum() > 28
    large = np.kron(page(3), np.ones((6, 6))).astype(np.uint8)
    images = {
        "page.png": Image.fromarray(~page(3)),
        "small.png": Image.fromarray((255 * (1 - expected[0])).byte().numpy()),
        "white_on_black.png": Image.fromarray(page(3)),
        "grey.png": Image.fromarray(np.where(page(3), 90, 200).astype(np.uint8)),
        "colour.png": Image.fromarray(np.where(page(3)[..., None], (200, 20, 20), (20, 20, 20)).astype(np.uint8)),
        "deep.png": Image.fromarray(np.where(page(3), 300, 60_000).astype(np.uint16)),
        "transparent.png": Image.merge("LA", [Image.fromarray(0 * large), Image.fromarray(255 * large)]),
        "large.jpg": Image.fromarray(255 - 255 * large),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        wrong = (decode(tmp_path / name) != expected).sum().item()
        assert wrong == 0, f"{name}: {wrong} pixels"
    dot = np.zeros((105, 105), dtype=bool)
    dot[74:76, 74:76] = True  # where four pixels of 28 x 28 meet
    png(dot, tmp_path / "dot.png")
    with pytest.raises(InputError, match="dot.png shows too little ink"):
        decode(tmp_path / "dot.png")


def test_archives_of_something_else_are_named(tmp_path):
    archive = write_omniglot(tmp_path) / "images_background.zip"
    png(np.eye(28, dtype=bool), tmp_path / "small.png")
    for content, message in (
        (None, "images_background.zip is damaged"),
        (
            {"images_background/a/b/c.png": b"no image"},
            "images_background/a/b/c.png is damaged or not an image .* download it again",
        ),
        (
            {"images_background/a/b/c.png": (tmp_path / "small.png").read_bytes()},
            "a/b/c.png is 28 x 28 pixels, not 105 x 105",
        ),
    ):
        if content is None:
            archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
        else:
            with zipfile.ZipFile(archive, "w") as file:
                for name, x in content.items():
                    file.writestr(name, x)
        with pytest.raises(InputError, match=message):
            load("train", data_config(tmp_path))


def test_the_published_archives_are_those_of_torchvision():
    assert (datasets.Omniglot.download_url_prefix, datasets.Omniglot.zips_md5) == (data.URL, data.ARCHIVES)


def test_the_demo_has_alphabets_of_characters(drawn, monkeypatch):
    assert torch.equal(demo.draw_characters("test"), drawn["test"]), "always the same"
    monkeypatch.setattr("vhe.data.draw_characters", drawn.__getitem__)
    train, test = (load(split, data_config("", demo=True)) for split in ("train", "test"))
    for split, n_alphabets, n_each in ((train, 24, 12), (test, 6, 10)):
        assert (len(split.alphabets), len(split.names)) == (n_alphabets, n_alphabets * n_each)
        assert split.images.shape == (20 * len(split.names), 1, 28, 28) and split.images.unique().tolist() == [0, 1]
        assert 0.05 < split.images.mean() < 0.15, "as Omniglot's 0.08"
        assert split.images.sum(dim=(1, 2, 3)).min() > 15 and split.character.bincount().unique().tolist() == [20]
    assert not set(train.ids) & set(test.ids) and test.names[13] == "test02/character04"
    assert same(load("test", data_config("", demo=True, limit=13)), test.take(test.character < 13))
    assert torch.equal(drawn["test"].reshape(test.images.shape), test.images)


def test_demo_characters_are_told_apart_but_not_by_their_mean_alone(drawn):
    x = drawn["test"].flatten(3)  # (A, C, 20, 784)
    n_alphabets, n = x.shape[:2]
    means, held_out = x[:, :, :10].mean(dim=2).flatten(0, 1), x[:, :, 10:].flatten(0, 2)
    label = torch.arange(n_alphabets * n).repeat_interleave(10)
    assert 0.65 < (torch.cdist(held_out, means).argmin(dim=1) == label).double().mean() < 0.95, "by chance below 0.02"
