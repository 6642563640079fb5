import hashlib
import resource
import signal

from common.data import files
from common.data.files import download, find
from common.errors import InputError

import pytest

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


MISSING = [(["a"], "a is missing: fetch it"), (["a", "b", "c"], "a is missing, and so are b and c: fetch it")]


@pytest.mark.parametrize(("names", "message"), MISSING)
def test_a_missing_file_is_named(names, message, tmp_path):
    with pytest.raises(InputError, match=message):
        find(tmp_path, names, "fetch it")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=f"^there is no folder {tmp_path / 'new'}: get it$"):
        find(tmp_path / "new", ["x"], "get it")


def test_download_goes_on_where_it_broke_off(tmp_path, server, monkeypatch):
    bars, progress = [], files.progress_bar
    monkeypatch.setattr(files, "progress_bar", lambda **options: bars.append(progress(**options)) or bars[-1])
    server.content["/f"], server.cut = CONTENT, 100_000
    path = tmp_path / "data" / "f"
    with pytest.raises(InputError, match="could not be downloaded"):
        download([f"{server.url}/f"], path, MD5)
    assert not path.exists()
    server.cut = None
    download([f"{server.url}/f"], path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests[-1] == ("/f", "bytes=100000-")
    assert [bar.n for bar in bars] == [100_000, len(CONTENT) - 100_000] and bars[1].total == bars[1].n
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_a_full_disk_stops_a_download_that_goes_on_later(tmp_path, server):
    server.content["/f"] = CONTENT
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python's default: the write fails
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        with pytest.raises(
            InputError, match=r"f.part could not be written .*: free disk space .* continues the download"
        ):
            download([f"{server.url}/f"], tmp_path / "f", MD5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT and server.requests[-1][1].startswith("bytes=")


def test_download_takes_the_next_mirror(tmp_path, server):
    server.content |= {"/bad/f": b"<html>quota</html>", "/good/f": CONTENT}
    download([f"{server.url}/{mirror}/f" for mirror in ("absent", "bad", "good")], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("part", [CONTENT, b"something else"], ids=["complete", "damaged"])
def test_a_part_that_is_complete_or_damaged_is_no_hindrance(part, tmp_path, server):
    server.content["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(part)
    download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_wrong_content_never_gets_the_name(tmp_path, server):
    server.content["/f"] = CONTENT[:-1]
    with pytest.raises(InputError, match=rf"md5 .* instead of {MD5}.*by hand"):
        download([f"{server.url}/f"], tmp_path / "f", MD5)
    assert list(tmp_path.iterdir()) == []


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
