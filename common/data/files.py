"""A dataset's files: where they are, downloading and unpacking them, and whether they are the published ones."""

import hashlib
import http.client
import shutil
import ssl
import urllib.error
import urllib.request
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from common.errors import InputError, brief, require
from common.io import DOWNLOAD_AGAIN, MIB, check_total, check_writable, open_regular, read_bounded, reading
from common.progress import print_once, progress_bar

import torch.distributed as dist
from filelock import lock_descriptor

MAX_TEXT = 64 * MIB  # CelebA's attributes have 26
MOST_TIMES = 50  # an archive of photographs unpacks to its own size, one of texts to ten times that
UNREACHABLE = urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError


class DataConfig(Protocol):
    """What every dataset's `load(split, config)` reads.

    data_dir: the folder with the dataset in its original format.
    demo: take the folder's built-in data instead, and no files.
    download: fetch missing files.
    limit: use only the first N examples of each split; None for all.
    """

    data_dir: Path
    demo: bool
    download: bool
    limit: int | None


def find(data_dir: Path, names: Sequence[str], how: str) -> Path:
    """The first of the named files that exists in data_dir.

    Args:
        names: paths relative to data_dir.
        how: how to get the file, the end of the error message.

    Raises:
        InputError: none of them exists, or data_dir does not.
    """
    for name in names:
        if (data_dir / name).is_file():
            return data_dir / name
    require(data_dir.is_dir(), f"there is no folder {data_dir}: {how}")
    others = f", and so {'are' if len(names) > 2 else 'is'} {' and '.join(names[1:])}" if len(names) > 1 else ""
    raise InputError(f"{data_dir / names[0]} is missing{others}: {how}")


def inner(folder: Path) -> Path:
    """The folder of the same name in a folder, which some programs make when they unpack; without one, the folder."""
    nested = [folder / name for name in (folder.name, folder.resolve().name)]
    return next((path for path in nested if path.is_dir()), folder)


def warn_of_left_out(place: Path, files: Collection[str], what: str) -> None:
    """Name files of a dataset's archive or folder that are not read, on stderr.

    Args:
        what: what is read, such as "images".
    """
    if files:
        names = brief(", ".join(map(repr, sorted(files))))
        print_once(f"warning: left out of {place}, being no {what}: {names} ({len(files)} in all)")


def of_package(package: str, name: str) -> Path:
    """The path of a file in an installed package, without an import of the package."""
    return Path(find_spec(package).origin).parent / name


def read_text(path: Path, remedy: str, errors: str = "strict") -> str:
    """The content of a text file in UTF-8, without a byte order mark and with "\\n" between its lines.

    Args:
        remedy: what to do about a missing or damaged file, the end of error messages.
        errors: "replace" for replacement characters in place of bytes that are not UTF-8.

    Raises:
        InputError: the file is missing, unreadable, too large, or not in UTF-8, or holds NUL characters.
    """
    with reading(path, remedy, "a text in UTF-8"):
        content = read_bounded(path, remedy, MAX_TEXT)
        require(b"\0" not in content, f"{path} holds NUL characters, as texts in UTF-16 do: save it in UTF-8")
        return content.decode("utf-8-sig", errors).replace("\r\n", "\n")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def check_published(path: Path, md5: str, dataset: str, name: str, known: Mapping[tuple[str, str], str]) -> None:
    """Refuse a file that is known as another one; warn about an unknown file, once for each folder.

    Args:
        md5: the file's digest in hex.
        dataset, name: what it should be, such as "MNIST" and "train-images-idx3-ubyte".
        known: {(dataset, name): md5} of published files that could be mistaken for each other.

    Raises:
        InputError: it is another dataset's file, or another file of this dataset.
    """
    published = next((file for file, digest in known.items() if digest == md5), None)
    if published is None:
        warning = f"{path.parent} does not hold {dataset} as published: its files are used unchecked"
        print_once(f"warning: {warning}")
        return
    is_it = f"{path} holds {published[0]}'s {published[1]}, not {dataset}'s {name}"
    require(published == (dataset, name), f"{is_it}: put the right file in its place, or give another folder")


def download(urls: Sequence[str], path: Path, md5: str | None) -> None:
    """Download a file from the first url that delivers it; a partial download, NAME.part, is continued.

    Args:
        urls: where it can be had, tried in this order.
        md5: the expected digest in hex; None if unknown, as of an archive that is checked when it is unpacked.

    Raises:
        InputError: no url delivered the right file, and the message has a reason for each url; or the file could not be
            written.
    """
    alone = not dist.is_initialized() or dist.get_world_size() == 1
    require(alone, f"{path.name} is missing: run --download with one process first (no torchrun)")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    check_writable(part)
    failures = []
    for url in urls:
        resumed = part.exists()
        try:
            _fetch(url, part)
            if resumed and md5 not in (None, md5_of(part)):  # perhaps what was there before is damaged
                part.unlink()
                _fetch(url, part)
        except UNREACHABLE as error:
            failures.append(f"{url}: {error}")
            continue
        except OSError as error:
            remedy = "free disk space or check permissions, then the same command continues the download"
            raise InputError(f"{part} could not be written ({error.strerror}): {remedy}") from error
        digest = md5_of(part)
        if md5 in (None, digest):
            part.rename(path)
            return
        part.unlink()
        failures.append(f"{url}: md5 {digest} instead of {md5}")
    by_hand = f"put it into {path.parent} by hand"
    raise InputError(f"{path.name} could not be downloaded ({'; '.join(failures)}): {by_hand}")


def _fetch(url: str, part: Path) -> None:
    """Download a url into the file `part`, continuing after the bytes that it holds already.

    Raises:
        any of UNREACHABLE: the url does not deliver the whole file.
    """
    done = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the file is complete already: its md5 decides
            return
        raise
    if response.headers.get_content_type() == "text/html":
        raise ConnectionError("a web page came in place of the file, perhaps because its download quota is used up")
    received, total = 0, int(response.headers.get("Content-Length", 0)) or None
    with (
        response,
        open(part, "ab" if response.status == 206 else "wb") as file,
        progress_bar(total=total, unit="B", unit_scale=True, desc=part.stem) as bar,
    ):
        while block := response.read(1 << 16):
            file.write(block)
            received += len(block)
            bar.update(len(block))
    if total is not None and received < total:
        raise ConnectionError(f"broke off after {received} of {total} bytes")


@contextmanager
def opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive that unpacks to at most MOST_TIMES its size.

    Raises:
        InputError: the archive is missing or damaged, also if that shows only inside the with statement.
    """
    with reading(path, DOWNLOAD_AGAIN, "a zip archive") as file, zipfile.ZipFile(file) as archive:
        check_total(archive, MOST_TIMES * path.stat().st_size)
        yield archive


def unpack(path: Path, name: str) -> None:
    """Unpack the folder `name` of an archive beside the archive, completely or not at all.

    It may lie in another folder of the archive, or be missing around files that the archive holds without a folder.
    A call while another process unpacks waits for it, and does not unpack again.

    Raises:
        InputError: the archive is missing or damaged, lacks the folder, or would unpack to more than allowed.
    """
    folder, part = path.with_name(name), path.with_name(f"{name}.part")
    with open_regular(path, DOWNLOAD_AGAIN) as lock, opened_zip(path) as archive:
        lock_descriptor(lock.fileno())
        if folder.exists():
            return
        inside = [entry for entry in archive.infolist() if f"/{name}/" in f"/{entry.filename}"]
        others = [entry for entry in archive.infolist() if not entry.filename.startswith("__MACOSX/")]  # of macOS
        entries = inside or ([] if any("/" in entry.filename for entry in others) else others)
        require(bool(entries), f"{path} holds no folder {name}: {DOWNLOAD_AGAIN}")
        shutil.rmtree(part, ignore_errors=True)
        try:
            # no name in the archive can escape the folder that it is unpacked into
            archive.extractall(part if inside else part / name, entries)
            min(part.rglob(name), key=lambda found: len(found.parts)).rename(folder)
        except OSError as error:
            remedy = f"free disk space, or {DOWNLOAD_AGAIN}"
            raise InputError(f"{path} could not be unpacked ({brief(error)}): {remedy}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
