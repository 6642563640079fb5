"""Zip archives: what is unpacked, what is refused, and what a failure leaves."""

import multiprocessing
import shutil
import zipfile
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest

from common.data import zip_files
from common.errors import InputError

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
    zip_files.unpack(write(folder / "birds.zip", names), "birds")
    assert files(tmp_path) == [f"data/{name}" for name in ("birds.zip", "birds/a.txt", "birds/b/c.txt", "birds/g.txt")]
    assert (folder / "birds/b/c.txt").read_bytes() == TEXT


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("names", "method", "message"),
    [
        (("birds/a.txt", "birds/a.txt"), zipfile.ZIP_STORED, "holds 'birds/a.txt' twice"),
        (("birds/a.txt",), zipfile.ZIP_LZMA, "holds 'birds/a.txt' encrypted or compressed in an odd way"),
        (("birds/a.txt",), zipfile.ZIP_BZIP2, "holds 'birds/a.txt' encrypted or compressed in an odd way"),
        (("other/a.txt",), zipfile.ZIP_STORED, "holds no folder birds"),
    ],
)
def test_odd_archives_are_refused(tmp_path, names, method, message):
    with pytest.raises(InputError, match=rf"birds.zip {message}: delete it and download it again"):
        zip_files.unpack(write(tmp_path / "birds.zip", names, method), "birds")
    assert files(tmp_path) == ["birds.zip"]


def test_encrypted_archives_are_refused(tmp_path):
    path = write(tmp_path / "birds.zip")
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(signature)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(signature, at + 1)
    path.write_bytes(content)
    with pytest.raises(InputError, match="encrypted or compressed in an odd way"):
        zip_files.unpack(path, "birds")


def test_a_failed_unpacking_leaves_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "birds.zip", method=zipfile.ZIP_STORED)
    whole = path.read_bytes()
    last = whole.rindex(TEXT)
    path.write_bytes(whole[:last] + b"A" + whole[last + 1 :])
    with pytest.raises(InputError, match=r"birds.zip is damaged or not a zip archive \(Bad CRC-32.*: delete it"):
        zip_files.unpack(path, "birds")
    assert [x.name for x in tmp_path.iterdir()] == ["birds.zip"]
    path.write_bytes(whole)
    monkeypatch.setattr(shutil, "copyfileobj", full_disk)
    with pytest.raises(InputError, match="could not be unpacked .*No space left.*: free disk space"):
        zip_files.unpack(path, "birds")
    assert [x.name for x in tmp_path.iterdir()] == ["birds.zip"]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match="unpacks to 1400 bytes, but the disk has 1000 free: make room"):
        zip_files.unpack(path, "birds")
    assert [x.name for x in tmp_path.iterdir()] == ["birds.zip"]


def test_what_an_earlier_unpacking_left_does_not_come_along(tmp_path):
    path = write(tmp_path / "birds.zip")
    (tmp_path / "birds.part" / "birds").mkdir(parents=True)
    (tmp_path / "birds.part" / "birds" / "left.txt").write_text("half")
    zip_files.unpack(path, "birds")
    assert "birds/left.txt" not in files(tmp_path) and "birds/a.txt" in files(tmp_path)


def test_processes_that_unpack_at_once_wait_for_each_other(tmp_path):
    path = write(tmp_path / "birds.zip", [f"birds/{i}.txt" for i in range(300)])
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        for future in [pool.submit(zip_files.unpack, path, "birds") for _ in range(4)]:
            future.result()
    assert len(files(tmp_path)) == 301 and not (tmp_path / "birds.part").exists()


def test_the_content_of_a_file_has_a_limit(tmp_path):
    path = write(tmp_path / "birds.zip")
    with zip_files.opened(path, "fetch it") as archive:
        assert zip_files.content(archive, "birds/a.txt", len(TEXT)) == TEXT
    for name, at_most, message in (
        ("birds/a.txt", len(TEXT) - 1, f"birds/a.txt unpacks to {len(TEXT)} bytes, more than {len(TEXT) - 1}"),
        ("birds/x.txt", 10, "it lacks birds/x.txt"),
    ):
        refused = pytest.raises(InputError, match=rf"birds.zip is damaged .*{message}.*: fetch it")
        with refused, zip_files.opened(path, "fetch it") as archive:
            zip_files.content(archive, name, at_most)


def full_disk(*_):
    raise OSError(28, "No space left on device")
