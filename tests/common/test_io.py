import errno
import fcntl
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path

from common.data.files import download
from common.errors import InputError
from common.io import locked, open_regular, read_bounded, reading, remove_leftovers, write_atomically
from mnist import train
from tests.helpers.runs import config

import pytest

REMEDY = "give another"


def test_a_file_is_read_up_to_the_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, REMEDY, 5) == b"12345"
    with pytest.raises(InputError, match=f"file has more than .* too much for its kind: {REMEDY}$"):
        read_bounded(path, REMEDY, 4)


def test_files_are_synced_before_the_rename_and_their_folder_after(tmp_path, monkeypatch):
    """Without this order a power cut leaves an empty checkpoint under the name of a whole one."""
    events, replace = [], os.replace

    def synced(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append(("sync", path, path.read_bytes() if path.is_file() else b""))

    def renamed(source, target):
        events.append(("rename", Path(source), Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    train.main(config(tmp_path, epochs=2, limit=60))
    names = {target.name: i for i, (event, _, target) in enumerate(events) if event == "rename"}
    for name in ("checkpoint.pth.tar", "model_best.pth.tar", "config.json"):
        i = names[name]
        (before, temporary, content), (_, source, target), (after, folder, _) = events[i - 1 : i + 2]
        assert (before, after, temporary, folder) == ("sync", "sync", source, target.parent)
        assert content == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_read(make, tmp_path):
    make(tmp_path / "it")
    with pytest.raises(InputError, match=f"it (is not a regular file|cannot be read .Is a directory.): {REMEDY}$"):
        open_regular(tmp_path / "it", REMEDY)


@pytest.mark.parametrize(("name", "fault"), [("missing", "is missing"), ("a\0b", "null"), ("x" * 300, "too long")])
def test_a_file_that_cannot_be_opened_is_named(name, fault, tmp_path):
    with pytest.raises(InputError, match=f"{fault}.*{REMEDY}$"):
        open_regular(tmp_path / name, REMEDY)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("other", path)])
def test_only_regular_files_are_replaced(make, tmp_path):
    path = tmp_path / "it"
    (tmp_path / "other").write_bytes(b"kept")
    make(path)
    before = os.lstat(path)
    with pytest.raises(InputError, match="is not a regular file and stays as it is"):
        write_atomically(path, b"new")
    assert os.lstat(path) == before
    assert (tmp_path / "other").read_bytes() == b"kept"


def test_a_download_does_not_end_in_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "set.zip.part")
    with pytest.raises(InputError, match=r"set.zip.part is not a regular file"):
        download(["http://127.0.0.1:9/set.zip"], tmp_path / "set.zip", None)


def test_writers_of_one_file_do_not_mix_it(tmp_path):
    path, contents = tmp_path / "file", [bytes([65 + i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_atomically, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    for name in ("file.tmp", "file.1234abcd.tmp", "thesis.tmp"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "folder.tmp").mkdir()
    (tmp_path / "link.tmp").symlink_to("nowhere")
    remove_leftovers(tmp_path / name for name in ("file", "folder", "link", "missing"))
    assert sorted(os.listdir(tmp_path)) == ["folder.tmp", "link.tmp", "thesis.tmp"]


def test_what_a_library_raises_for_damage_takes_one_line(tmp_path):
    (tmp_path / "it").write_bytes(b"")
    for fault in (KeyError("x"), zlib.error("bad\nheader"), MemoryError()):
        refused = pytest.raises(InputError, match=f"it is damaged or not an array .*: {REMEDY}$")
        with refused as error, reading(tmp_path / "it", REMEDY, "an array"):
            raise fault
        assert "\n" not in str(error.value)


def test_a_locked_folder_refuses_a_second_process_until_the_first_is_dead(tmp_path):
    hold = "with locked(Path(sys.argv[1])):\n    print(flush=True)\n    time.sleep(60)"
    code = f"import sys, time\nfrom pathlib import Path\nfrom common.io import locked\n{hold}"
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE)
    other.stdout.readline()
    with pytest.raises(InputError, match="another process is at work in .*: wait"), locked(tmp_path):
        pass
    other.kill()
    other.communicate()
    with locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(No locks available\)"), locked(tmp_path):
        pass


def test_a_name_that_is_not_in_utf_8_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / os.fsdecode(b"run\xff")
    with pytest.raises(InputError, match=r"run\\udcff' is not in UTF-8.*: choose another folder"), locked(folder):
        pass
    assert not folder.exists()
