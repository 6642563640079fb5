"""Files read and written as a whole: regular files only, read up to a limit, checked before use, written atomically.

A `remedy` is what to do about a missing or damaged file, the end of the error message.
"""

import contextlib
import io
import os
import pickle
import pickletools
import re
import secrets
import stat
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from common.errors import InputError, brief, require

import msgspec
import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch import Tensor

T = TypeVar("T")
AGAIN = "delete it, and it will be made again"
DOWNLOAD_AGAIN = "delete it and download it again (--download)"
MIB = 2**20
KNOWN = re.compile(  # of a checkpoint's pickle
    r"collections\.OrderedDict|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.(cuda\.)?\w+Storage"
)
MAX_VALUES = 10**6  # values that a file of ours never reaches
# what torch, numpy, Pillow, zipfile and scipy raise for changed bytes
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, pickle.UnpicklingError, struct.error, tokenize.TokenError, zlib.error),
    *(zipfile.BadZipFile, Image.DecompressionBombError, Warning),  # Warning: where `python -W error` asks for it
)


def open_regular(path: Path, remedy: str) -> BinaryIO:
    """Open a regular file to read bytes; nothing else, since a pipe or a device may never end.

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


def read_json(path: Path, kind: type[T], remedy: str) -> T:
    """Read a JSON file of at most a MiB as a type, such as a msgspec.Struct.

    Raises:
        InputError: the file is missing, too large, or not what the type says; the message names the field.
    """
    return decode(read_bounded(path, remedy, MIB), kind, str(path), remedy)


def read_json_lines(path: Path, kind: type[T], remedy: str) -> list[T]:
    """Read a file with one JSON value a line, of at most a MiB. A last line without its end is left out.

    Raises: as `read_json`.
    """
    values = []
    with open_regular(path, remedy) as file:
        while (line := file.readline(MIB + 1)).endswith(b"\n"):
            values.append(decode(line, kind, f"{path}, line {len(values) + 1}", remedy))
    require(len(line) <= MIB, f"{path}, line {len(values) + 1} has more than a MiB, too much for its kind: {remedy}")
    return values


def decode(content: bytes | str, kind: type[T], name: str, remedy: str) -> T:
    """JSON as a type; InputError, which begins with `name`, if it is not what the type says."""
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def as_type(value: Any, kind: type[T], name: str, remedy: str) -> T:  # noqa: ANN401 (anything that a file can hold)
    """Convert plain values and tensors to a type; errors as those of `decode`."""

    def unchanged(expected: type, given: object) -> object:  # of a type that msgspec does not know, such as a tensor
        if not isinstance(given, expected):
            raise TypeError(f"expected {expected.__name__}, got {type(given).__name__}")
        return given

    try:
        return msgspec.convert(value, kind, dec_hook=unchanged)
    # AttributeError: a tensor for a dict; UnicodeEncodeError: half of a character
    except (msgspec.ValidationError, TypeError, AttributeError, UnicodeEncodeError) as error:
        raise InputError(f"{name} is damaged, {brief(error)}: {remedy}") from error


def load_tensors(path: Path, kind: type[T], missing: str, damaged: str) -> T:
    """Load tensors and plain containers, as torch.save writes them, onto the CPU; nothing else is unpickled.

    Args:
        kind: the type of the content, such as a msgspec.Struct.
        missing, damaged: remedies.

    Raises:
        InputError: the file is missing, truncated or damaged, holds code, or is not what the type says.
    """
    open_regular(path, missing).close()
    with reading(path, damaged, "a checkpoint") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:  # torch.save compresses nothing
                check_total(archive, path.stat().st_size)
        foreign = next((name for name in _globals_of(file) if not _is_known(name)), None)
        harm = "and loading that could run code or fill the memory"
        require(foreign is None, f"{path} is refused: it holds {foreign and foreign[:100]}, {harm}: {damaged}")
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # whose message advises to load it all the same
            raise InputError(f"{path} is damaged or not a checkpoint: {damaged}") from error
    require(not _is_larger_in_memory(content), f"{path} is damaged, it holds odd tensors or lists: {damaged}")
    return as_type(content, kind, str(path), damaged)


def _globals_of(file: BinaryIO) -> Iterator[str]:
    """The names of the functions and classes that a file of torch.save refers to, before anything is unpickled."""
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.lower().endswith("data.pkl")]
            pickles = [io.BytesIO(archive.read(entry)) for entry in entries]
    else:  # five pickles: a magic number, the protocol, sizes of numbers, the content, the keys of its tensors
        pickles = [file] * 5
        file.seek(0)
    for content in pickles:
        for opcode, value, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "INST"):
                yield value.replace(" ", ".", 1)


def _is_known(name: str) -> bool:
    """Whether a function or class of a pickle makes tensors and plain containers, or is a caller's of safe_globals.

    torch allows others, such as bytearray and torch.FloatTensor, which take as much memory as they are asked for.
    """
    safe = (f"{x.__module__}.{x.__qualname__}" for x in torch.serialization.get_safe_globals())
    return KNOWN.fullmatch(name) is not None or name in safe


def _is_larger_in_memory(content: object) -> bool:
    """Whether tensors repeat values that their file has once, or lists hold another one many times, or themselves."""
    waiting, n = [content], 0
    while waiting and n <= MAX_VALUES:
        value = waiting.pop()
        if isinstance(value, list | tuple | dict):
            n += len(value)
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            if not plain or value.nbytes > value.untyped_storage().nbytes():
                return True
    return n > MAX_VALUES


def save_tensors(path: Path, content: dict) -> None:
    """Save tensors and plain containers atomically; InputError if the file cannot be written."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


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
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # so that the new name survives a power cut
        os.close(folder)
    except OSError as error:
        require(path.parent.is_dir(), f"{path} could not be written: there is no folder {path.parent}, make it")
        kept = "; the previous file is kept" if path.exists() else ""
        remedy = f"free disk space or check permissions{kept}"
        raise InputError(f"{path} could not be written ({error.strerror}): {remedy}") from error
    finally:
        with contextlib.suppress(OSError):  # it is gone where all went well
            temporary.unlink()


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
