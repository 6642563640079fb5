import gzip
import hashlib
import struct
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fashionmnist.data
from common.data import Examples, columns_of, draw_paired, hold_out, observe, unpair
from common.errors import InputError
from common.files import download, read_idx
from common.objectives import MvaeElbo, StandardElbo
from mnist.data import FILES, load
from mnist.model import build


def idx(array, magic=None):
    array = np.asarray(array, dtype=np.uint8)
    magic = struct.pack(">HBB", 0, 8, array.ndim) if magic is None else magic
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
LABELS = np.arange(12) % 10


def write_mnist(folder, compress=True, images=IMAGES, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    for names in FILES.values():
        for name, array in zip(names, (images, labels), strict=True):
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
            else:
                (folder / name).write_bytes(idx(array))
    return folder


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("below", ["", "MNIST/raw"])
def test_mnist_is_read_wherever_it_usually_lies(tmp_path, compress, below):
    write_mnist(tmp_path / below, compress)
    for split in ("train", "test"):
        examples = load(split, tmp_path)
        assert examples.modalities["image"].equal(torch.from_numpy(IMAGES).unsqueeze(1))
        assert examples.modalities["text"].equal(torch.from_numpy(LABELS))
    assert len(load("test", tmp_path, limit=5)) == 5


def test_fashionmnist_is_read_where_torchvision_leaves_it(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    examples = fashionmnist.data.load("test", tmp_path, limit=5)
    assert examples.modalities["image"].equal(torch.from_numpy(IMAGES[:5]).unsqueeze(1))
    assert fashionmnist.data.FASHIONMNIST.names(examples.modalities["text"])[:2] == ["T-shirt/top", "Trouser"]


def test_drawn_garments_are_a_dataset_of_their_own():
    train, test = (fashionmnist.data.load(split, "", demo=True) for split in ("train", "test"))
    assert (len(train), len(test)) == (2000, 500)
    assert (train.modalities["text"].bincount() > 100).all() and (test.modalities["text"].bincount() > 25).all()
    same = (train.modalities["image"].flatten(1)[:, None] == test.modalities["image"].flatten(1)[:20]).all(dim=2)
    assert not same.any(), "test garments are no training garments"


def damaged_files(name):
    content = gzip.compress(idx(IMAGES))
    flipped = bytearray(content)
    flipped[len(flipped) // 2] ^= 0xFF
    cases = {
        "truncated gz": (".gz", content[: len(content) // 2], "cannot be read"),
        "corrupted gz": (".gz", bytes(flipped), "cannot be read"),
        "not gz": (".gz", b"<html>quota exceeded</html>", "cannot be read"),
        "empty": ("", b"", "starts with"),
        "header only": ("", idx(IMAGES)[:6], "holds items of shape"),
        "truncated": ("", idx(IMAGES)[:-1], "bytes where its header promises"),
        "too long": ("", idx(IMAGES) + b"x", "bytes where its header promises"),
        "wrong magic": ("", idx(IMAGES, magic=b"\0\0\x0d\x03"), "starts with 00000d03 where an idx file has 00000803"),
        "wrong shape": ("", idx(IMAGES[:, :14]), r"holds items of shape \(14, 28\) where \(28, 28\) was expected"),
    }
    return cases[name]


@pytest.mark.parametrize(
    "case",
    [
        "truncated gz",
        "corrupted gz",
        "not gz",
        "empty",
        "header only",
        "truncated",
        "too long",
        "wrong magic",
        "wrong shape",
    ],
)
def test_damaged_files_are_named(tmp_path, case):
    suffix, content, message = damaged_files(case)
    path = tmp_path / f"images{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_idx(path, (28, 28))
    assert str(path) in str(error.value) and "--download" in str(error.value) and "\n" not in str(error.value)


def test_missing_and_mismatched_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.gz is missing.*--data-dir.*--download.*--demo"):
        load("train", tmp_path)
    write_mnist(tmp_path, labels=LABELS[:-1])
    with pytest.raises(InputError, match="12 images.*11 labels"):
        load("train", tmp_path)
    write_mnist(tmp_path, labels=LABELS + 3)
    with pytest.raises(InputError, match="does not hold the labels 0 to 9"):
        load("train", tmp_path)


def test_demo_digits_look_like_mnist():
    train, test = load("train", "nowhere", demo=True), load("test", "nowhere", demo=True)
    assert (len(train), len(test)) == (1500, 297)
    image, text = train.modalities["image"], train.modalities["text"]
    assert image.shape == (1500, 1, 28, 28) and image.dtype == torch.uint8
    assert image[:, :, :4].max() == 0 and image.max() == 255
    assert text.bincount().min() > 130, "all ten digits"
    both = torch.cat([image, test.modalities["image"]]).flatten(1)
    assert len(both.unique(dim=0)) == 1797, "no test image among the training images"


def test_batches_cover_the_examples_in_order_and_scale_images():
    examples = Examples({"image": torch.arange(10, dtype=torch.uint8)[:, None], "text": torch.arange(10)})
    order = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    batches = list(examples.batches(4, order))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert torch.cat([b.modalities["text"] for b in batches]).equal(order)
    torch.testing.assert_close(torch.cat([b.modalities["image"] for b in batches]).squeeze(1), order / 255)


def test_the_last_examples_are_held_out():
    examples = Examples({"text": torch.arange(60)})
    for n, expected in ((None, 10), (5, 5)):
        train, valid = hold_out(examples, n)
        assert len(valid) == expected
        assert torch.cat([train.modalities["text"], valid.modalities["text"]]).equal(torch.arange(60))
    assert hold_out(examples, 0)[1] is None
    with pytest.raises(InputError, match="--valid 60 leaves no training example"):
        hold_out(examples, 60)


def test_unpaired_examples_become_rows_of_one_modality():
    n = 1000
    examples = Examples({"a": torch.arange(n).float(), "b": torch.arange(n)})
    unpaired = unpair(examples, 0.1, seed=0)
    assert len(unpaired) == n
    rows = unpaired[torch.randperm(n)]
    assert len(rows) == 3 * n
    a, b = rows.mask.unbind(dim=1)
    both = a & b
    assert both.equal(rows.together), "what a pair says of each modality alone, other rows say"
    paired = draw_paired(examples, 0.1, seed=0)
    assert len(paired.unique()) == 100
    assert rows.modalities["b"][both].sort().values.equal(paired.repeat(10).sort().values)
    assert rows.modalities["a"][both].equal(rows.modalities["b"][both].float()), "pairs stay pairs"
    for name, present in (("a", a), ("b", b)):
        alone = rows.modalities[name][present & ~both].long()
        assert alone.sort().values.equal(torch.arange(n)), "nothing lost, nothing twice"
    assert unpaired.modalities["a"] is examples.modalities["a"], "nothing is copied"
    assert unpaired.take(slice(5))[1:].mask.tolist() == 4 * [[True, True], [True, False], [False, True]]
    assert unpair(examples, 1.0, seed=0).mask is None
    assert unpair(examples, 0.9999, seed=0).mask is None, "no example is left unpaired"


def test_what_is_paired_counts_alone_only_where_the_objective_says_so():
    examples = Examples({"a": torch.arange(10.0), "b": torch.arange(10)})
    paired = draw_paired(examples, 0.5, seed=0)
    mask = unpair(examples, 0.5, seed=0, unimodal=False).mask  # (10, 3, 2)
    assert mask[:, 0].all()
    for i in range(10):
        assert mask[i, 1:].tolist() == (2 * [[False, False]] if i in paired else [[True, False], [False, True]])


def test_unpaired_rows_of_a_part_of_the_data():
    rows = {"a": torch.tensor([7, 8, 9]), "b": torch.tensor([0, 1, 2])}
    part = Examples({"a": torch.arange(10.0), "b": torch.arange(3)}, rows)
    assert len(part) == 3 and part[1:].modalities["a"].tolist() == [8, 9]
    batch = unpair(part, 0.4, seed=0)[torch.arange(3)]
    assert set(batch.modalities["b"].tolist()) == {0, 1, 2}
    assert batch.modalities["a"].equal(7.0 + batch.modalities["b"])
    taken = part.take(slice(2)).only(("b",))
    assert len(taken) == 2 and taken[:].modalities["b"].tolist() == [0, 1]


def test_a_weakly_supervised_objective_is_the_one_that_was_named():
    """The weights of its terms, told by KLs of examples that are all the same."""
    torch.manual_seed(0)
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")).double()
    image, text = torch.rand(1, 1, 28, 28, dtype=torch.float64), torch.tensor([3])
    examples = Examples({"image": image.expand(10, -1, -1, -1), "text": text.expand(10)})
    for objective in (StandardElbo(model), MvaeElbo(model)):
        batch = unpair(examples, 0.5, seed=0, unimodal=objective.unimodal)[torch.arange(10)]
        weak, whole = objective.bound(batch).terms, objective.bound(examples[:]).terms
        share = {name: (weak[name].sum() / whole[name].sum()).item() for name in whole if name.endswith("/kl")}
        if objective.unimodal:
            expected = {"joint/kl": 1, "image/kl": 1, "text/kl": 1}
        else:  # the unpaired half contributes its unimodal ELBOs as the joint ones of what it has
            alone = MvaeElbo(model).bound(examples[:]).terms
            unpaired = (alone["image/kl"].sum() + alone["text/kl"].sum()) / 2
            expected = {"joint/kl": 1 + (unpaired / whole["joint/kl"].sum()).item()}
        assert share == pytest.approx(expected)


def test_without_pairs_all_are_alone():
    examples = Examples({"a": torch.arange(10.0), "b": torch.arange(10)})
    assert (unpair(examples, 0.0, seed=0).mask.sum(dim=1) == 1).all()


def test_absence_becomes_a_mask_and_callers_tensors_stay():
    a, b = torch.tensor([[1.0, torch.nan], [2.0, 3.0]]), torch.tensor([4, -1])
    batch = observe({"a": a, "b": b}, columns_of(dict.fromkeys("abc")))
    assert batch.mask.tolist() == [[False, True, False], [True, False, False]]
    assert batch.modalities["a"].isfinite().all()
    assert a.isnan().sum() == 1 and b.tolist() == [4, -1]
    assert observe({"a": a[1:], "b": b[:1]}, columns_of(dict.fromkeys("ab"))).mask is None


CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


def test_download_goes_on_where_it_broke_off(tmp_path, server):
    server.content["/f"], server.cut = CONTENT, 100_000
    path = tmp_path / "data" / "f"
    with pytest.raises(InputError, match="could not be downloaded"):
        download([f"{server.url}/f"], path, MD5)
    assert not path.exists()
    server.cut = None
    download([f"{server.url}/f"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/f", "bytes=100000-")
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_download_takes_the_next_mirror(tmp_path, server):
    server.content |= {"/bad/f": b"<html>quota</html>", "/good/f": CONTENT}
    download([f"{server.url}/{mirror}/f" for mirror in ("absent", "bad", "good")], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_a_complete_part_needs_its_checksum_only(tmp_path, server):
    server.content["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(CONTENT)
    download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_wrong_content_never_gets_the_name(tmp_path, server):
    server.content["/f"] = CONTENT[:-1]
    with pytest.raises(InputError, match=rf"md5 .* instead of {MD5}.*by hand"):
        download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dataset", "load"), [("MNIST", load), ("FashionMNIST", fashionmnist.data.load)])
def test_downloads_come_from_torchvisions_mirrors(tmp_path, server, monkeypatch, dataset, load):
    from common.torchvision_import import datasets

    known = getattr(datasets, dataset)

    source = write_mnist(tmp_path / "source")
    server.content = {f"/{p.name}": p.read_bytes() for p in source.iterdir()}
    md5s = [(p.name, hashlib.md5(p.read_bytes()).hexdigest()) for p in source.iterdir()]
    assert {name for name, _ in known.resources} == {name for name, _ in md5s}
    monkeypatch.setattr(known, "mirrors", [f"{server.url}/absent/", f"{server.url}/"])
    monkeypatch.setattr(known, "resources", md5s)
    examples = load("train", tmp_path / "data", fetch=True)
    assert examples.modalities["image"].equal(torch.from_numpy(IMAGES).unsqueeze(1))
    load("train", tmp_path / "data", fetch=True)
    assert len(server.requests) == 4, "two files, the first mirror tried in vain for each, nothing fetched twice"


def test_modalities_are_derived_as_they_are_needed():
    x = torch.arange(12, dtype=torch.uint8).view(6, 2)
    examples = Examples({"a": x, "b": x}, mask=torch.ones(6, 3).bool(), derived={"c": ("a", lambda a: 2 * a)})
    for some in (examples, examples.take(torch.tensor([3, 1])), examples.to(torch.device("cpu"))):
        batch = some[:].modalities
        assert list(batch) == ["a", "b", "c"] and batch["c"].equal(2 * batch["a"])
    assert unpair(examples, 0.5, seed=0)[:].modalities["c"].shape == (24, 2), "three rows alone and one together"


def test_unpaired_examples_still_lack_what_they_lack():
    mask = torch.tensor([[True, True], [True, False], [False, True], [True, True]])
    examples = Examples({"a": torch.arange(4.0), "b": torch.arange(4.0)}, mask=mask)
    batch = unpair(examples, 0.5, seed=1)[:]
    for a, there, together in zip(batch.modalities["a"].long(), batch.mask, batch.together, strict=True):
        assert not (there & ~mask[a]).any()
        assert there.equal(mask[a]) if together else there.sum() <= 1
    assert batch.together.sum() == 4, "pairs are rows of their own, though a modality of them is absent"


def test_a_web_page_in_place_of_a_file_keeps_what_came_before(tmp_path, server):
    server.content["/f"], server.cut = CONTENT, 100_000
    with pytest.raises(InputError, match="broke off"):
        download([f"{server.url}/f"], tmp_path / "f", MD5)
    server.cut, server.types["/f"], server.content["/f"] = None, "text/html", b"<html>" * 50_000
    with pytest.raises(InputError, match="a web page came in place of the file"):
        download([f"{server.url}/f"], tmp_path / "f", MD5)
    server.types["/f"], server.content["/f"] = "application/zip", CONTENT
    download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert server.requests[-1] == ("/f", "bytes=100000-")
