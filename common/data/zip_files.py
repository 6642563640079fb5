"""Zip archives: what they promise to unpack to is compared with what is allowed before anything is unpacked."""

import shutil
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from common.errors import InputError, brief, require
from common.io import DOWNLOAD_AGAIN, open_regular, reading

MOST_TIMES = 50  # an archive of photographs unpacks to its own size, one of texts to ten times that


@contextmanager
def opened(path: Path, remedy: str) -> Iterator[zipfile.ZipFile]:
    """An archive that unpacks to at most MOST_TIMES its size.

    Args:
        remedy: what to do about a missing or damaged archive, the end of error messages.

    Raises:
        InputError: the archive is missing or damaged, also if that shows only inside the with statement.
    """
    with reading(path, remedy, "a zip archive") as file, zipfile.ZipFile(file) as archive:
        check_total(archive, MOST_TIMES * path.stat().st_size)
        yield archive


def check_total(archive: zipfile.ZipFile, at_most: int, names: Collection[str] | None = None) -> int:
    """The bytes that an archive, or those of its files, unpack to; zipfile stops where one has more than it promises.

    Raises:
        zipfile.BadZipFile: these are more than `at_most`; `reading` makes an InputError of it.
    """
    promised = sum(entry.file_size for entry in archive.infolist() if names is None or entry.filename in names)
    if promised > at_most:
        raise zipfile.BadZipFile(f"it unpacks to {promised} bytes, more than {at_most}")
    return promised


def verify(path: Path, remedy: str) -> None:
    """Raise InputError if an archive is damaged, in any of its files."""
    with opened(path, remedy) as archive:
        damaged = archive.testzip()
        require(damaged is None, f"{path} is damaged in {brief(repr(damaged))}: {remedy}")


def unpack(path: Path, name: str) -> None:
    """Unpack the folder `name` of an archive beside the archive, completely or not at all.

    A call while another process unpacks waits for it, and does not unpack again.

    Raises:
        InputError: the archive is missing or damaged, lacks the folder, or would unpack to more than allowed or free.
    """
    with open_regular(path, DOWNLOAD_AGAIN) as file:
        lock_descriptor(file.fileno())
        if not path.with_name(name).exists():
            _unpack(path, name)


def _unpack(path: Path, name: str) -> None:
    """See `unpack`."""
    part = path.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with opened(path, DOWNLOAD_AGAIN) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.startswith(f"{name}/")]
            require(bool(entries), f"{path} holds no folder {name}: {DOWNLOAD_AGAIN}")
            promised, free = sum(entry.file_size for entry in entries), shutil.disk_usage(path.parent).free
            require(promised <= free, f"{path} unpacks to {promised} bytes, but the disk has {free} free: make room")
            try:
                archive.extractall(part, entries)  # no name in the archive can escape this folder
                (part / name).rename(path.with_name(name))
            except OSError as error:
                remedy = f"free disk space, or {DOWNLOAD_AGAIN}"
                raise InputError(f"{path} could not be unpacked ({brief(error)}): {remedy}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
