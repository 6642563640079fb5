"""Files of tensors and plain containers, as torch.save writes them: written atomically, checked before use."""

import io
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, TypeVar

import torch
from torch import Tensor, nn

from common.data.schemas import check, leaves
from common.errors import InputError, brief, install, require
from common.io import open_regular, write_atomically

T = TypeVar("T")
# what torch.load raises for damaged files, zip archives or pickles
DAMAGE = (
    *(zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError),
    *(AssertionError, EOFError, struct.error, OverflowError, MemoryError, OSError),
)


def save(path: Path, content: dict) -> None:
    """Save tensors and plain containers atomically.

    Raises:
        InputError: the file could not be written.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getbuffer())


def load(path: Path, kind: type[T], missing: str, damaged: str) -> T:
    """Load tensors and plain containers onto the CPU; nothing else is unpickled.

    Args:
        kind: the type of the content, such as a msgspec.Struct.
        missing, damaged: what to do about such a file, the end of error messages.

    Raises:
        InputError: the file is missing, truncated or damaged, holds code, or is not what the type says.
    """
    with open_regular(path, missing) as file:
        try:
            _check_archive(file, path, damaged)
            content = torch.load(file, map_location="cpu", weights_only=True)
        except DAMAGE as error:
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            if foreign:
                code = f"it holds {foreign[1][:100]}, and loading that could run code"
                raise InputError(f"{path} is refused: {code}: {damaged}") from error
            raise InputError(f"{path} is truncated, damaged or not a checkpoint: {damaged}") from error
    for x in leaves(content, str(path), damaged):
        require(not isinstance(x, Tensor) or _is_plain(x), f"{path} is damaged, it holds an odd tensor: {damaged}")
    return check(content, kind, str(path), damaged)


def load_safetensors(path: Path, missing: str, damaged: str) -> dict[str, Tensor]:
    """Load a file of safetensors onto the CPU.

    Args:
        missing, damaged: what to do about such a file, the end of error messages.

    Raises:
        InputError: the file is missing or damaged, or the package safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError, torch
    except ImportError as error:
        raise InputError(f"{path} needs safetensors: {install('safetensors')}") from error
    with open_regular(path, missing) as file:
        try:
            return torch.load(file.read())
        except SafetensorError as error:
            raise InputError(f"{path} is damaged ({brief(error)}): {damaged}") from error


def _check_archive(file: BinaryIO, path: Path, damaged: str) -> None:
    """Check the sizes and checksums of a zip archive, which torch does not.

    torch.save compresses nothing: an archive that promises more than its own size would only fill the memory.
    """
    if file.read(4) == b"PK\3\4":
        size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            plain = stored and sum(entry.file_size for entry in entries) <= size
            broken = archive.testzip() if plain else "its entries"
        require(broken is None, f"{path} is damaged (in {broken}): {damaged}")
    file.seek(0)


def _is_plain(x: Tensor) -> bool:
    """Whether a tensor holds its values itself: it is neither sparse nor repeated beyond what was stored."""
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.layout == torch.strided
        and x.device.type == "cpu"
        and not x.is_quantized
        and x.numel() * x.element_size() <= x.untyped_storage().nbytes()
    )
