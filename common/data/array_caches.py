"""Caches of generated arrays: one npz file holds the arrays and the options that they were made with."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import InputError, flag, require
from common.io import DAMAGE, write_atomically


def save(path: Path, about: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
    """Write arrays and the options that they were made with.

    Args:
        about: {option: value}, plain JSON values.
        arrays: {name: array of any shape}.

    Raises:
        InputError: the file could not be written.
    """
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(dict(about))), **{k: x.numpy() for k, x in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getbuffer())


def load(path: Path, about: Mapping[str, Any], names: Sequence[str], remedy: str) -> list[Tensor]:
    """Read the named arrays of a file that `save` wrote.

    Args:
        about: {option: value} that they must have been made with.
        remedy: how to make the file again, the end of error messages.

    Returns:
        the arrays, in the order of the names.

    Raises:
        InputError: the file is damaged, or was made with other options.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(str(_array(archive, "about")))
            made = {name: saved[name] for name in about}
            arrays = [torch.from_numpy(_array(archive, name)) for name in names]
    except (*DAMAGE, zlib.error) as error:
        raise InputError(f"{path} is damaged or cannot be read: {remedy}") from error
    changed = [name for name in about if made[name] != about[name]]
    was, asked = (" ".join(flag(name, values[name]) for name in changed) for values in (made, about))
    require(
        not changed, f"{path} was made with {was}, not {asked}: give the same options, another --data-dir, or {remedy}"
    )
    return arrays


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read one array of an npz file. np.load may parse the array before, or without, verifying its checksum."""
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
