"""Dataset files: finding and downloading them, and reading texts."""

import hashlib
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from common import distributed
from common.data import zip_files
from common.errors import InputError, require
from common.io import MIB, check_writable, reading

MAX_TEXT = 64 * MIB  # CelebA's attributes have 26


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


def of_package(package: str, name: str) -> Path:
    """The path of a file in an installed package, without an import of the package."""
    return Path(find_spec(package).origin).parent / name


def read_text(path: Path, remedy: str, errors: str = "strict") -> str:
    """The content of a text file in UTF-8.

    Args:
        remedy: what to do about a missing or damaged file, the end of error messages.
        errors: "replace" for replacement characters in place of bytes that are not UTF-8.

    Raises:
        InputError: the file is missing, unreadable, too large, or not in UTF-8.
    """
    with reading(path, remedy, "a text in UTF-8") as file:
        content = file.read(MAX_TEXT + 1)
        require(len(content) <= MAX_TEXT, f"{path} has more than {MAX_TEXT / MIB:g} MiB, too much for a text: {remedy}")
        return content.decode(errors=errors).replace("\r\n", "\n")


def download(urls: Sequence[str], path: Path, md5: str | None, how: str = "") -> None:
    """Download a file from the first url that delivers it; a partial download is continued.

    The file appears at path only after its md5 was verified or, if that is unknown, the checksums inside the archive.

    Args:
        urls: where it can be had, tried in this order.
        md5: the expected digest in hex, None if unknown.
        how: what to do if no url delivers it; by default: put it there by hand.

    Raises:
        InputError: no url delivered the right file, and the message has a reason for each url; or the file could not be
            written.
    """
    require(
        distributed.world_size() == 1, f"{path.name} is missing: run --download with one process first (no torchrun)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    check_writable(part)
    failures = []
    for url in urls:
        resumed = part.exists()
        try:
            _fetch(url, part)
            fault = _fault(part, md5)
            if fault and resumed:  # perhaps what was there before is damaged: start again
                part.unlink()
                _fetch(url, part)
                fault = _fault(part, md5)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
            failures.append(f"{url}: {error}")
            continue
        except OSError as error:
            remedy = "free disk space or check permissions, then the same command continues the download"
            raise InputError(f"{part} could not be written ({error.strerror}): {remedy}") from error
        if not fault:
            part.rename(path)
            return
        part.unlink()
        failures.append(f"{url}: {fault}")
    how = how or f"put it into {path.parent} by hand"
    raise InputError(f"{path.name} could not be downloaded ({'; '.join(failures)}): {how}")


def md5_of(path: Path) -> str:
    """The md5 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _fault(path: Path, md5: str | None) -> str:
    """What is wrong with a downloaded file; empty if nothing is."""
    if md5 is not None:
        digest = md5_of(path)
        return "" if digest == md5 else f"md5 {digest} instead of {md5}"
    try:
        zip_files.verify(path, "it is not kept")
    except InputError as error:
        return str(error)
    return ""


def _fetch(url: str, part: Path) -> None:
    """Download a url into the file `part`, continuing after the bytes that it holds already.

    Raises:
        URLError, HTTPException, ConnectionError, TimeoutError: the url does not deliver the whole file.
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
        distributed.progress(total=total, unit="B", unit_scale=True, desc=part.stem) as bar,
    ):
        while block := response.read(1 << 16):
            file.write(block)
            received += len(block)
            bar.update(len(block))
    if total is not None and received < total:
        raise ConnectionError(f"broke off after {received} of {total} bytes")
