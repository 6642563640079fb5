"""Zip archives: what is unpacked, what is refused, and what a failure leaves."""

import multiprocessing
import shutil
import zipfile
from concurrent.futures import ProcessPoolExecutor

from common.data.files import unpack
from common.errors import InputError

import pytest

TEXT = b"a bird " * 100


def write(path, names=("birds/a.txt", "birds/b/c.txt"), method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return path


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_one_folder_is_unpacked_and_nothing_beside_it(tmp_path):
    names = ("birds/a.txt", "birds/b/c.txt", "other/d.txt", "../e.txt", "/f.txt", "birds/../../g.txt")
    folder = tmp_path / "data"
    folder.mkdir()
    unpack(write(folder / "birds.zip", names), "birds")
    assert files(tmp_path) == [f"data/{name}" for name in ("birds.zip", "birds/a.txt", "birds/b/c.txt", "birds/g.txt")]
    assert (folder / "birds/b/c.txt").read_bytes() == TEXT


@pytest.mark.parametrize("names", [("x/birds/a.txt", "y/z/birds/b.txt", "x/c.txt"), ("a.txt", "__MACOSX/a.txt")])
def test_the_folder_is_found_inside_others_and_around_files_that_have_none(tmp_path, names):
    unpack(write(tmp_path / "birds.zip", names), "birds")
    assert files(tmp_path) == ["birds.zip", "birds/a.txt"]


def test_an_archive_without_the_folder_is_refused(tmp_path):
    for names in (("other/a.txt",), ("README.txt", "other/a.txt")):
        with pytest.raises(InputError, match=r"birds.zip holds no folder birds: delete it and download it again"):
            unpack(write(tmp_path / "birds.zip", names), "birds")
    assert files(tmp_path) == ["birds.zip"]


def test_a_failed_unpacking_leaves_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "birds.zip", method=zipfile.ZIP_STORED)
    whole = path.read_bytes()
    last = whole.rindex(TEXT)
    path.write_bytes(whole[:last] + b"A" + whole[last + 1 :])
    with pytest.raises(InputError, match=r"birds.zip is damaged or not a zip archive \(Bad CRC-32.*: delete it"):
        unpack(path, "birds")
    assert [x.name for x in tmp_path.iterdir()] == ["birds.zip"]
    path.write_bytes(whole)
    monkeypatch.setattr(shutil, "copyfileobj", full_disk)
    with pytest.raises(InputError, match="could not be unpacked .*No space left.*: free disk space"):
        unpack(path, "birds")
    assert [x.name for x in tmp_path.iterdir()] == ["birds.zip"]


def test_what_an_earlier_unpacking_left_does_not_come_along(tmp_path):
    path = write(tmp_path / "birds.zip")
    (tmp_path / "birds.part" / "birds").mkdir(parents=True)
    (tmp_path / "birds.part" / "birds" / "left.txt").write_text("half")
    unpack(path, "birds")
    assert "birds/left.txt" not in files(tmp_path) and "birds/a.txt" in files(tmp_path)


def test_processes_that_unpack_at_once_wait_for_each_other(tmp_path):
    path = write(tmp_path / "birds.zip", [f"birds/{i}.txt" for i in range(300)])
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(unpack, path, "birds") for _ in range(4)]:
            future.result()
    assert len(files(tmp_path)) == 301 and not (tmp_path / "birds.part").exists()


def full_disk(*_):
    raise OSError(28, "No space left on device")
