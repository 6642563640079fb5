"""Files of tensors and plain containers, as torch.save writes them: written atomically, checked before use."""

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from common.data.schemas import as_type
from common.errors import InputError, require
from common.io import check_total, open_regular, reading, write_atomically

T = TypeVar("T")
MAX_VALUES = 10**6  # values that a file of ours never reaches


def save(path: Path, content: dict) -> None:
    """Save tensors and plain containers atomically; InputError if the file cannot be written."""
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
    open_regular(path, missing).close()
    with reading(path, damaged, "a checkpoint") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:  # torch.save compresses nothing
                check_total(archive, path.stat().st_size)
        file.seek(0)
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # whose message advises to load it all the same
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            code = f"{path} is refused: it holds {foreign and foreign[1][:100]}, and loading that could run code"
            require(foreign is None, f"{code}: {damaged}")
            raise InputError(f"{path} is damaged or not a checkpoint: {damaged}") from error
        _check_values(content, path, damaged)
    return as_type(content, kind, str(path), damaged)


def _check_values(content: object, path: Path, remedy: str) -> None:
    """Raise InputError for tensors or lists that would be larger in memory than in their file.

    A tensor can repeat its values, and a list can hold another one many times, or itself.
    """
    waiting, n = [content], 0
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | tuple | dict):
            n += len(value)
            require(n <= MAX_VALUES, f"{path} is damaged, it holds more than {MAX_VALUES} values: {remedy}")
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, Tensor):
            plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
            plain = plain and value.nbytes <= value.untyped_storage().nbytes()
            require(plain, f"{path} is damaged, it holds an odd tensor: {remedy}")
