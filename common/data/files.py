"""Dataset files: finding, reading, downloading and unpacking them."""

import gzip
import hashlib
import http.client
import shutil
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common import distributed
from common.errors import InputError, require

ZIP_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)


def find(data_dir: Path, names: Sequence[str], how: str) -> Path:
    """The first of the named files that exists in data_dir.

    Args:
        names: paths relative to data_dir.
        how: how to get the file, the end of the error message.

    Raises:
        InputError: none of them exists.
    """
    for name in names:
        if (data_dir / name).is_file():
            return data_dir / name
    alternatives = f" (and so is {' and '.join(names[1:])})" if len(names) > 1 else ""
    raise InputError(f"{data_dir / names[0]} is missing{alternatives}: {how}")


def read_idx(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Read a file of unsigned bytes in the idx format of MNIST, plain or gzipped.

    Args:
        shape: the expected shape of one item: (28, 28) for images, () for labels.

    Returns:
        a uint8 tensor (N, *shape).

    Raises:
        InputError: the file is unreadable, truncated, corrupted, of another format, or its items have another shape.
    """
    remedy = "delete it and download it again (--download)"
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}): {remedy}") from error
    magic = bytes([0, 0, 8, len(shape) + 1])
    if content[:4] != magic:
        raise InputError(f"{path} starts with {content[:4].hex()}, an idx file with {magic.hex()}: {remedy}")
    header = 4 + 4 * (len(shape) + 1)
    n, *item = np.frombuffer(content[4:header], dtype=">u4").tolist() if len(content) >= header else (0,)
    if tuple(item) != shape:
        raise InputError(f"{path} holds items of shape {tuple(item)}, not {shape}: {remedy}")
    expected = header + n * int(np.prod(shape))
    if len(content) != expected:
        raise InputError(f"{path} holds {len(content)} bytes, its header says {expected}: {remedy}")
    require(n > 0, f"{path} holds no items: {remedy}")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).reshape(n, *shape)


def download(urls: Sequence[str], path: Path, md5: str | None, how: str = "") -> None:
    """Download a file from the first url that delivers it; a partial download is continued.

    The file appears at path only after its md5 was verified, or without a known md5 its checksums as a zip archive.

    Args:
        urls: where it can be had, tried in this order.
        md5: the expected digest in hex, None if unknown.
        how: what to do if no url delivers it; by default: put it there by hand.

    Raises:
        InputError: no url delivered the right file; the message has a reason for each url.
    """
    require(
        distributed.world_size() == 1, f"{path.name} is missing: run --download with one process first (no torchrun)"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        try:
            _fetch(url, part)
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            failures.append(f"{url}: {error}")
            continue
        fault = _fault(part, md5)
        if not fault:
            part.rename(path)
            return
        part.unlink()
        failures.append(f"{url}: {fault}")
    how = how or f"put it into {path.parent} by hand"
    raise InputError(f"{path.name} could not be downloaded ({'; '.join(failures)}): {how}")


def _fault(path: Path, md5: str | None) -> str:
    """What is wrong with a downloaded file; empty if nothing is."""
    if md5 is not None:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        return "" if digest == md5 else f"md5 {digest} instead of {md5}"
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except ZIP_DAMAGE as error:
        return f"not a zip archive, or a damaged one ({error})"
    return f"damaged in {damaged}" if damaged else ""


def unpack(archive: Path, name: str) -> None:
    """Unpack the folder `name` of a zip archive beside the archive, completely or not at all.

    Raises:
        InputError: the archive is damaged or lacks the folder, or the disk is full.
    """
    part = archive.with_name(f"{name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        with zipfile.ZipFile(archive) as content:
            content.extractall(part)  # no name in the archive can escape this folder
        (part / name).rename(archive.with_name(name))
    except ZIP_DAMAGE as error:
        raise InputError(f"{archive} is damaged ({error}): delete it and download it again (--download)") from error
    except OSError as error:
        raise InputError(f"{archive} could not be unpacked ({error}): free disk space, or download it again") from error
    shutil.rmtree(part)


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
