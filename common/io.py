"""Files read and written as a whole: regular files only, read up to a limit, written atomically."""

import contextlib
import io
import os
import pickle
import secrets
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from PIL import Image

from common.errors import InputError, brief, require

# what to do about a damaged file, the end of error messages
AGAIN = "delete it, and it will be made again"
DOWNLOAD_AGAIN = "delete it and download it again (--download)"
MIB = 2**20
# what torch, numpy, Pillow, zipfile and scipy raise for changed bytes
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, pickle.UnpicklingError, struct.error, tokenize.TokenError, zlib.error),
    *(zipfile.BadZipFile, Image.DecompressionBombError, Warning),  # Warning: where `python -W error` asks for it
)


def open_regular(path: Path, remedy: str) -> BinaryIO:
    """Open a regular file to read bytes; nothing else, since a pipe or a device may never end.

    Args:
        remedy: how to get the file, the end of the error message.

    Raises:
        InputError: the file is missing, unreadable, or not a regular file.
    """
    try:
        file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 (returned)
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: {remedy}") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{path} cannot be read ({getattr(error, 'strerror', error)}): {remedy}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise InputError(f"{path} is not a regular file: {remedy}")
    return file


@contextlib.contextmanager
def reading(source: Path | bytes, remedy: str, what: str, name: str = "") -> Iterator[BinaryIO]:
    """Open a regular file, and make one line of whatever a library raises while it reads the file in the with block.

    Args:
        source: the file, or the content of one.
        remedy: what to do about a missing or damaged file, the end of error messages.
        what: what the file should be, such as "a zip archive".
        name: the beginning of error messages; by default the path.

    Raises:
        InputError: the file is missing, damaged, or not a regular file.
    """
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source, remedy) as file:
        try:
            yield file
        except InputError:
            raise
        except DAMAGE as error:
            raise InputError(f"{name or source} is damaged or not {what} ({brief(error)}): {remedy}") from error


def read_bounded(path: Path, remedy: str, at_most: int) -> bytes:
    """The content of a regular file; InputError if it has more than `at_most` bytes, or as `open_regular`."""
    with open_regular(path, remedy) as file:
        content = file.read(at_most + 1)
    require(len(content) <= at_most, f"{path} has more than {at_most / MIB:g} MiB, too much for its kind: {remedy}")
    return content


def check_total(archive: zipfile.ZipFile, at_most: int, names: Collection[str] | None = None) -> None:
    """Check what an archive, or its files of these names, unpacks to; zipfile stops where a file exceeds its promise.

    Raises:
        zipfile.BadZipFile: this is more than `at_most` bytes; `reading` makes an InputError of it.
    """
    promised = sum(entry.file_size for entry in archive.infolist() if names is None or entry.filename in names)
    if promised > at_most:
        raise zipfile.BadZipFile(f"it unpacks to {promised} bytes, more than {at_most}")


def folder_of(path: Path) -> Path:
    """A folder itself, or the folder of a file."""
    return path if path.is_dir() else path.parent


def check_writable(path: Path) -> None:
    """Raise InputError unless the path is free or a regular file: a link, pipe or device stays as it is."""
    regular = not os.path.lexists(path) or (path.is_file() and not path.is_symlink())
    require(regular, f"{path} is not a regular file and stays as it is: give another name")


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at path, or leave it unchanged: write NAME.*.tmp, fsync, rename, fsync the folder.

    A process that is killed leaves NAME.*.tmp (see `remove_leftovers`).

    Raises:
        InputError: the file could not be written (a full disk, no permission), or path is not a regular file.
    """
    check_writable(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # so that the new name survives a power cut
        os.close(folder)
    except OSError as error:
        require(path.parent.is_dir(), f"{path} could not be written: there is no folder {path.parent}, make it")
        kept = "; the previous file is kept" if path.exists() else ""
        remedy = f"free disk space or check permissions{kept}"
        raise InputError(f"{path} could not be written ({error.strerror}): {remedy}") from error


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove the temporary files that killed processes left of these files, in a folder that is `locked`."""
    for path in paths:
        for temporary in path.parent.glob(f"{path.name}.*tmp"):
            if temporary.is_file() and not temporary.is_symlink():
                temporary.unlink()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and lock its file .lock until the end of the with block or the death of this process.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written, or its file system has no locks,
            or its name is not in UTF-8.
    """
    is_utf8 = os.fsencode(folder).decode(errors="ignore") == str(folder)
    require(is_utf8, f"{str(folder)!a} is not in UTF-8, and no JSON could hold it: choose another folder")
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        busy = f"another process is at work in {folder}"
        raise InputError(f"{busy}: wait for its end, or choose another folder") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
    try:
        yield
    finally:
        lock.release()
