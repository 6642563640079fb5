"""Zip archives: the sizes in their headers are checked first, and unpacking never exceeds them."""

import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor

from common.errors import InputError, brief, require
from common.io import DOWNLOAD_AGAIN, open_regular

# what zipfile raises for changed bytes
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, OSError)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile unpacks others without a limit
ENCRYPTED = 0x1
MOST_TIMES = 50  # an archive of photographs unpacks to its own size, one of texts to ten times that


@contextmanager
def opened(path: Path, remedy: str) -> Iterator[zipfile.ZipFile]:
    """An archive whose names are unique, and whose files can be read.

    Args:
        remedy: what to do about a missing or damaged archive, the end of error messages.

    Raises:
        InputError: the archive is missing or damaged, also if that shows only inside the with statement.
    """
    with open_regular(path, remedy) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                _check(archive, path, remedy)
                yield archive
        except DAMAGE as error:
            raise InputError(f"{path} is damaged or not a zip archive ({brief(error)}): {remedy}") from error


def content(archive: zipfile.ZipFile, name: str, at_most: int) -> bytes:
    """The content of a file in an archive from `opened`.

    Args:
        at_most: bytes.

    Raises:
        zipfile.BadZipFile: the file is missing, damaged or too large; `opened` makes an InputError of it.
    """
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise zipfile.BadZipFile(f"it lacks {name}") from error
    if entry.file_size > at_most:
        raise zipfile.BadZipFile(f"{name} unpacks to {entry.file_size} bytes, more than {at_most}")
    with archive.open(entry) as file:
        return file.read(entry.file_size)


def verify(path: Path, remedy: str) -> None:
    """Raise InputError if an archive is damaged, in any of its files."""
    with opened(path, remedy) as archive:
        _check_total(archive.infolist(), path, remedy)
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
            _unpack(path, name, DOWNLOAD_AGAIN)


def _unpack(path: Path, name: str, remedy: str) -> None:
    """See `unpack`."""
    part = path.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with opened(path, remedy) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.startswith(f"{name}/")]
            require(bool(entries), f"{path} holds no folder {name}: {remedy}")
            promised, free = _check_total(entries, path, remedy), shutil.disk_usage(path.parent).free
            require(promised <= free, f"{path} unpacks to {promised} bytes, but the disk has {free} free: make room")
            try:
                archive.extractall(part, entries)  # no name in the archive can escape this folder
                (part / name).rename(path.with_name(name))
            except OSError as error:
                reason = brief(error)
                raise InputError(f"{path} could not be unpacked ({reason}): free disk space, or {remedy}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_total(entries: Sequence[zipfile.ZipInfo], path: Path, remedy: str) -> int:
    """The bytes that files of an archive unpack to; InputError if these are too many for the archive's size."""
    promised, size = sum(entry.file_size for entry in entries), path.stat().st_size
    require(promised <= MOST_TIMES * size, f"{path} has {size} bytes and unpacks to {promised}, too many: {remedy}")
    return promised


def _check(archive: zipfile.ZipFile, path: Path, remedy: str) -> None:
    """Raise InputError for names that occur twice, and for files that are encrypted or compressed in an odd way."""
    twice = [name for name, times in Counter(archive.namelist()).items() if times > 1]
    odd = [entry for entry in archive.infolist() if entry.compress_type not in METHODS or entry.flag_bits & ENCRYPTED]
    for name in twice[:1]:
        raise InputError(f"{path} holds {brief(repr(name))} twice: {remedy}")
    for entry in odd[:1]:
        raise InputError(f"{path} holds {brief(repr(entry.filename))} encrypted or compressed in an odd way: {remedy}")
