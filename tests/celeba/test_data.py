"""CelebA as it comes, and the cache of its images."""

import hashlib
import io
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import celeba.data
from celeba.attributes import ATTRIBUTES
from celeba.data import attribute_names, drawn, load, load_train, parse
from celeba19.data import apart
from common.data import image_caches
from common.data.files import md5_of
from common.data.image_caches import Kind
from common.data.torchvision_import import datasets, transforms
from common.errors import InputError
from tests.helpers.celeba_files import LAYOUTS, NAMES, values, write_celeba
from tests.helpers.data_config import data_config

import numpy as np
import pytest
import torch
from PIL import Image


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_layouts_are_read(tmp_path, layout):
    write_celeba(tmp_path, layout)
    as_torchvision = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(64), transforms.PILToTensor()])
    for split, rows in (("train", range(6)), ("valid", range(6, 9)), ("test", range(9, 12))):
        examples = load(split, data_config(tmp_path))
        folder = tmp_path / LAYOUTS[layout][0] / "img_align_celeba"
        expected = [as_torchvision(Image.open(folder / f"{i + 1:06d}.jpg")) for i in rows]
        assert examples.modalities["image"].equal(torch.stack(expected))
        has = values()[list(rows)][:, [NAMES.index(name) for name in ATTRIBUTES]] == 1
        assert examples.modalities["attrs"].equal(torch.from_numpy(has).float())
        batch = examples[:].modalities
        assert batch["image"].dtype == batch["attrs"].dtype == torch.float32 and batch["image"].max() <= 1


def test_images_may_lie_where_mvaes_readme_has_them(tmp_path):
    expected = load("test", data_config(write_celeba(tmp_path / "whole"))).modalities["image"]
    data_dir = write_celeba(tmp_path / "data")
    (data_dir / "img_align_celeba").rename(data_dir / "images")
    assert load("test", data_config(data_dir)).modalities["image"].equal(expected)
    others = write_celeba(tmp_path / "others")
    (others / "images").mkdir()  # of something else
    assert load("test", data_config(others)).modalities["image"].equal(expected), "img_align_celeba/ comes first"


def test_files_as_people_have_them_are_read(tmp_path):
    expected = load("train", data_config(write_celeba(tmp_path / "whole"))).modalities
    data_dir = write_celeba(tmp_path / "data")
    for name in ("list_attr_celeba.txt", "list_eval_partition.txt"):
        (data_dir / name).write_text((data_dir / name).read_text(), "utf-8-sig")
    images = data_dir / "img_align_celeba"
    images.rename(data_dir / "unpacked")
    images.mkdir()
    (data_dir / "unpacked").rename(images / "img_align_celeba")
    for i, path in enumerate(sorted((images / "img_align_celeba").glob("*.jpg"))):
        path.rename(path.with_suffix((".JPG", ".jpeg", ".JpEg", ".png", ".jpg")[i % 5]))
        path.with_suffix(".txt").touch()  # is no image
    found = load("train", data_config(data_dir)).modalities
    assert all(found[name].equal(x) for name, x in expected.items())


def test_files_are_recognised_and_what_nobody_knows_is_used_with_a_warning(tmp_path, monkeypatch, capsys):
    published = {name: (file_id, md5) for file_id, md5, name in datasets.CelebA.file_list}
    assert celeba.data.SOURCES.items() <= published.items()
    load("test", data_config(write_celeba(tmp_path)))
    assert (
        capsys.readouterr().err
        == f"warning: {tmp_path} does not hold CelebA as published: its files are used unchecked\n"
    )
    known = {("CelebA", name): md5_of(tmp_path / name) for name in celeba.data.PLACES}
    monkeypatch.setattr(celeba.data, "KNOWN", known)
    load("test", data_config(tmp_path))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(celeba.data, "KNOWN", dict(zip(known, reversed(known.values()), strict=True)))
    with pytest.raises(InputError, match=r"list_eval_partition.txt holds CelebA's list_attr_celeba.txt, not CelebA's"):
        load("test", data_config(tmp_path))


def test_splits_need_not_lie_side_by_side(tmp_path):
    write_celeba(tmp_path, parts=[0, 2, 1] * 4)
    whole = load("train", data_config(write_celeba(tmp_path / "whole", parts=[0] * 12))).modalities
    for split, start in (("train", 0), ("test", 1), ("valid", 2)):
        assert load(split, data_config(tmp_path)).modalities["image"].equal(whole["image"][start::3])
        assert load(split, data_config(tmp_path)).modalities["attrs"].equal(whole["attrs"][start::3])
    assert load("test", data_config(tmp_path, limit=2)).modalities["image"].equal(whole["image"][[1, 4]])


def test_images_are_decoded_once(tmp_path, monkeypatch):
    write_celeba(tmp_path)
    (tmp_path / "cache").mkdir()
    first = load("test", data_config(tmp_path, cache_dir=tmp_path / "cache")).modalities["image"]
    assert not list(tmp_path.glob("*.npy"))
    monkeypatch.setattr(image_caches, "decode", None)
    assert load("test", data_config(tmp_path, cache_dir=tmp_path / "cache")).modalities["image"].equal(first)
    stored = np.load(tmp_path / "cache" / "celeba_64.npy", mmap_mode="r")
    assert stored.shape == (12, 3, 64, 64) and np.array_equal(stored[9:], first.numpy())
    first[:] = 0
    assert np.load(tmp_path / "cache" / "celeba_64.npy")[9:].any(), "nothing that a caller does reaches the file"


def test_a_broken_build_begins_anew(tmp_path):
    write_celeba(tmp_path)
    seventh = tmp_path / "img_align_celeba" / "000007.jpg"
    content = seventh.read_bytes()
    seventh.write_bytes(content[:300])
    with pytest.raises(InputError, match=r"000007.jpg is damaged or not an image"):
        load("train", data_config(tmp_path))
    seventh.unlink()
    with pytest.raises(
        InputError, match=r"000007.jpg is missing or cannot be read: unpack img_align_celeba.zip again, or delete"
    ):
        load("train", data_config(tmp_path))
    assert not list(tmp_path.glob("celeba_64.*n*")), "neither the images nor the notes have their names"
    seventh.write_bytes(content)
    images = load("train", data_config(tmp_path)).modalities["image"]
    assert images.equal(load("train", data_config(write_celeba(tmp_path / "again"))).modalities["image"])
    assert {path.name for path in tmp_path.glob("celeba_64.*")} == {"celeba_64.npy", "celeba_64.json", "celeba_64.lock"}


def test_masks_can_be_kept_inverted(tmp_path):
    Image.new("L", (64, 64), 250).save(tmp_path / "a.png")
    for inverted, expected in ((False, 250), (True, 5)):
        kind = Kind("L", inverted=inverted)
        assert image_caches.load(tmp_path, ["a.png"], tmp_path / f"{inverted}.npy", kind).unique().tolist() == [
            expected
        ]


def change(name, *replacements):
    def harm(folder):
        text = (folder / name).read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new, 1)
        (folder / name).write_text(text)

    return harm


ATTRS, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / PARTITION).unlink(), "Eval/list_eval_partition.txt is missing"),
        (lambda folder: (folder / ATTRS).unlink(), "Anno/list_attr_celeba.txt is missing"),
        (
            change(PARTITION, ("000003.jpg 0", "000003.jpg 7")),
            "list_eval_partition.txt does not give a split, 0, 1 or 2, in line 3",
        ),
        (
            change(PARTITION, ("000003.jpg", "000099.jpg")),
            r"disagree \('000003.jpg' in place of 000099.jpg",
        ),
        (change(PARTITION, ("000003.jpg", "../../x.jpg")), "names '../../x.jpg', which is not a file in .*img_align"),
        (change(PARTITION, ("000003.jpg", "/etc/x.jpg")), "names '/etc/x.jpg', which is not a file in .*img_align"),
        (
            change(PARTITION, ("000012.jpg 2\n", "")),
            r"disagree \('12' images by its first line, 12 listed, 11 in the other\)",
        ),
        (change(ATTRS, ("12\n", "13\n")), r"disagree \('13' images by its first line, 12 listed, 12 in the other\)"),
        (change(ATTRS, ("Smiling ", "")), "lacks the attributes Smiling in its second line"),
        (change(ATTRS, ("000003.jpg ", "000003.jpg 7")), "has lines of other values than -1 and 1"),
        (change(ATTRS, ("000003.jpg ", "000003.jpg x")), "has lines of other values than -1 and 1"),
        (
            lambda folder: (folder / ATTRS).write_text((folder / ATTRS).read_text(), "utf-16"),
            "list_attr_celeba.txt holds NUL characters, as texts in UTF-16 do: save it in UTF-8",
        ),
        (
            lambda folder: (folder / "img_align_celeba").rename(folder / "x"),
            "img_align_celeba is missing, and so is images: --data-dir DIR ",
        ),
    ],
)
def test_files_that_disagree_or_are_damaged_are_named(tmp_path, harm, message):
    write_celeba(tmp_path)
    harm(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        load("train", data_config(tmp_path))
    assert "\n" not in str(error.value)


def test_validation_is_the_datasets_own_unless_said_otherwise(tmp_path):
    write_celeba(tmp_path)
    sizes = {n: [x and len(x) for x in load_train(data_config(tmp_path, valid=n))] for n in (None, 2, 0)}
    assert sizes == {None: [6, 3], 2: [4, 2], 0: [6, None]}
    assert [len(x) for x in load_train(data_config(tmp_path, limit=2))] == [2, 2]


def test_attributes_apart_are_the_same():
    examples = load("test", data_config("", demo=True, limit=20))
    own = apart(examples)
    assert tuple(own.modalities) == ("image", *ATTRIBUTES)
    for i, name in enumerate(ATTRIBUTES):
        x = own.modalities[name]
        assert x.dtype == torch.int64 and x.tolist() == examples.modalities["attrs"][:, i].tolist()


def test_fewer_drawn_faces_are_the_first_of_more():
    some, more = drawn("test", 10), drawn("test", 501)
    assert {name: tuple(x.shape) for name, x in some.items()} == {
        "image": (10, 3, 64, 64),
        "mask": (10, 1, 64, 64),
        "attrs": (10, 18),
    }
    for name, x in some.items():
        assert x.equal(more[name][:10])
    assert not drawn("train", 10)["image"].equal(some["image"])


def test_attributes_are_asked_for_by_name():
    assert parse(["Male", "~smiling"]) == {"Male": 1, "Smiling": 0}
    assert parse([]) == {}
    row = torch.zeros(2, 18)
    row[0, ATTRIBUTES.index("Male")] = row[0, ATTRIBUTES.index("Bald")] = 0.9
    assert attribute_names(row) == ["Bald Male", ""]


@pytest.fixture
def host(server, tmp_path, monkeypatch):
    """A host of small files under CelebA's names and their checksums; `server.content` by id."""
    source = write_celeba(tmp_path / "source")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as images:
        for path in sorted((source / "img_align_celeba").iterdir()):
            images.write(path, f"img_align_celeba/{path.name}")
        images.writestr("../escaped.txt", "kept inside")
    contents = {name: (source / name).read_bytes() for name in (ATTRS, PARTITION)}
    contents["img_align_celeba.zip"] = archive.getvalue()
    known = {}
    for i, (name, content) in enumerate(contents.items()):
        server.content[f"/?id={i}"] = content
        known[name] = str(i), hashlib.md5(content).hexdigest()
    monkeypatch.setattr(celeba.data, "SOURCES", known)
    monkeypatch.setattr(celeba.data, "HOST", f"{server.url}/?id=")
    return server


def test_what_is_missing_is_fetched_and_unpacked(host, tmp_path):
    examples = load("train", data_config(tmp_path / "new" / "data", download=True))
    assert examples.modalities["image"].equal(load("train", data_config(tmp_path / "source")).modalities["image"])
    assert len(host.requests) == 3
    assert not (tmp_path / "new" / "escaped.txt").exists(), "the archive keeps to its folder"
    load("train", data_config(tmp_path / "new" / "data", download=True))
    assert len(host.requests) == 3, "nothing is fetched twice"


@pytest.mark.parametrize("place", ["", "Img/", "celeba/"])
@pytest.mark.parametrize("root", ["", "celeba/img_align_celeba/"])
def test_an_archive_that_lies_there_is_unpacked(host, tmp_path, place, root):
    (tmp_path / "data" / place).mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "data" / place / "img_align_celeba.zip", "w") as archive:
        for path in (tmp_path / "source" / "img_align_celeba").iterdir():
            archive.write(path, f"{root}{path.name}")
    images = load("train", data_config(tmp_path / "data", download=True)).modalities["image"]
    assert images.equal(load("train", data_config(tmp_path / "source")).modalities["image"]) and len(host.requests) == 2


def test_who_comes_while_another_builds_waits_for_it(tmp_path, monkeypatch):
    """Two that start together: one decodes, the other takes what it made."""
    write_celeba(tmp_path)
    monkeypatch.setattr(image_caches, "cpu_count", lambda: 1)
    seen, decode = [], image_caches.decode

    def slowly(*args):
        time.sleep(0.02)
        seen.append(args[0])
        return decode(*args)

    monkeypatch.setattr(image_caches, "decode", slowly)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load("train", data_config(tmp_path)).modalities["image"], range(2))
    assert len(seen) == 12 and first.equal(second)


def test_a_cache_dir_that_cannot_be_is_named(tmp_path):
    write_celeba(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file cannot be written \(File exists\): give another --cache-dir"):
        load("train", data_config(tmp_path, cache_dir=tmp_path / "file"))


def test_a_finished_cache_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    first = load("train", data_config(write_celeba(tmp_path))).modalities["image"]
    (tmp_path / "celeba_64.lock").unlink()
    monkeypatch.setattr(image_caches, "FileLock", None)  # root may write anywhere
    assert load("train", data_config(tmp_path)).modalities["image"].equal(first)
    assert not (tmp_path / "celeba_64.lock").exists()
