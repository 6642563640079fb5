"""The tables of UCI Multiple Features: files, splits, missing cells, standardisation."""

import hashlib

import mfeat.data
from common.data import Examples
from common.errors import InputError
from mfeat.data import TABLES, load, with_missing
from tests.helpers.data_config import data_config
from tests.helpers.mfeat_files import CLASSES, csv, tables, write_mfeat

import pytest
import torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mfeat(tmp_path_factory.mktemp("mfeat"))


def of_tables(**tables):
    """Examples of the six tables, of which the others have a column of random numbers."""
    torch.manual_seed(0)
    n = len(next(iter(tables.values())))
    return Examples({name: tables.get(name, torch.randn(n, 1)) for name in TABLES} | {"digit": torch.zeros(n).long()})


def test_the_files_rows_are_split_by_class(folder):
    train, test = (load(split, data_config(folder)).modalities for split in ("train", "test"))
    assert train["digit"].bincount().tolist() == [8] * 10 and test["digit"].bincount().tolist() == [2] * 10
    assert (train["digit"].diff() != 0).sum() > 60, "the files are sorted by class"
    known = {name: torch.from_numpy(x).float() for name, x in tables().items()}
    rows = {}
    for split, x in (("train", train), ("test", test)):
        same = (x["mor"][:, None] == known["mor"]).all(dim=2)  # (n, 100)
        assert same.sum(dim=1).eq(1).all()
        rows[split] = same.int().argmax(dim=1)
        assert all(x[name].equal(known[name][rows[split]]) for name in TABLES), "one row of all files is one digit"
        assert x["digit"].equal(torch.from_numpy(CLASSES)[rows[split]])
    assert sorted(torch.cat([*rows.values()]).tolist()) == list(range(100))
    assert load("train", data_config(folder, limit=7)).modalities["fac"].equal(train["fac"][:7])


BROKEN = {
    "0,1\r\n1,x\r\n": "damaged or not a table of numbers .*could not convert string 'x'",
    "0,1\n1,2,3\n1,2\n": "damaged or not a table of numbers .*columns",
    "0,1\n1,2,3\n": "has 3 columns, not 6 and the class: delete it and download it again",
    "0,1\n": "has no rows: delete it",
    "": "has no rows: delete it",
    csv(tables()["mor"], CLASSES + 1): "does not have the classes 0 to 9 in its last column",
    csv(tables()["mor"], CLASSES - 0.5): "does not have the classes 0 to 9 in its last column",
    csv(
        tables()["mor"], CLASSES[::-1]
    ): "and mfeat-fou.csv have other classes or lengths: give tables of the same digits",
    csv(tables()["mor"][:-1], CLASSES[:-1]): "and mfeat-fou.csv have other classes or lengths",
    "0\x000": "holds NUL characters",
}


@pytest.mark.parametrize("content", BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_no_table_of_these_digits_is_refused(content, tmp_path):
    folder = write_mfeat(tmp_path)
    (folder / "mfeat-mor.csv").write_text(content, newline="")
    with pytest.raises(InputError, match=BROKEN[content]) as refused:
        load("train", data_config(folder))
    assert "\n" not in str(refused.value)


def test_missing_files_are_downloaded_and_checked(folder, tmp_path, server, monkeypatch, capsys):
    server.content = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    md5s = {("mfeat", path.name): hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    monkeypatch.setattr(mfeat.data, "URL", server.url)
    monkeypatch.setattr(mfeat.data, "KNOWN", md5s)
    for _ in range(2):
        examples = load("test", data_config(tmp_path / "data", download=True))
    assert examples.modalities["zer"].equal(load("test", data_config(folder)).modalities["zer"])
    assert len(server.requests) == 6, "nothing is fetched twice"
    assert "warning" not in capsys.readouterr().err
    server.content["/mfeat-zer.csv"] += b"\n"
    (tmp_path / "data" / "mfeat-zer.csv").unlink()
    with pytest.raises(InputError, match=r"mfeat-zer.csv could not be downloaded .*md5 \w+ instead of"):
        load("test", data_config(tmp_path / "data", download=True))
    (tmp_path / "data" / "mfeat-zer.csv").write_bytes(server.content["/mfeat-zer.csv"])
    load("test", data_config(tmp_path / "data"))
    assert "does not hold mfeat as published: its files are used unchecked" in capsys.readouterr().err


def test_the_demos_tables_are_of_the_same_digits():
    train, test = (load(split, data_config(demo=True)).modalities for split in ("train", "test"))
    assert (len(train["digit"]), len(test["digit"])) == (1437, 360)
    assert all(x.isfinite().all() and x.dtype == torch.float32 for x in train.values() if x.dim() == 2)
    assert set(train["pix"].unique().tolist()) == {float(i) for i in range(7)}
    for name in TABLES:  # the nearest training row has the digit
        x, y = (of[name] / train[name].std(dim=0).clamp(min=1e-3) for of in (test, train))
        right = train["digit"][torch.cdist(x, y).argmin(dim=1)] == test["digit"]
        assert right.float().mean() > (0.2 if name == "mor" else 0.75), name


def test_a_share_of_the_cells_is_left_out():
    x = of_tables(fac=torch.randn(500, 20))
    lacking = with_missing(x, 0.3, 0)
    assert lacking.modalities["fac"].isnan().float().mean().item() == pytest.approx(0.3, abs=0.02)
    there = ~lacking.modalities["fac"].isnan()
    assert lacking.modalities["fac"][there].equal(x.modalities["fac"][there])
    assert lacking.modalities["digit"].equal(x.modalities["digit"]) and not x.modalities["fac"].isnan().any()
    same, other = (with_missing(x, 0.3, seed).modalities["fac"].isnan() for seed in (0, 1))
    assert same.equal(~there) and not other.equal(~there)
