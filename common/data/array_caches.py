"""Data that are made once and kept: arrays, and what they were made with, in one checked file (npz)."""

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
    """Write arrays and what they were made with.

    Raises:
        InputError: the file could not be written.
    """
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(json.dumps(dict(about))), **{k: x.numpy() for k, x in arrays.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content.getbuffer())


def load(path: Path, about: Mapping[str, Any], names: Sequence[str], again: str) -> list[Tensor]:
    """The named arrays of a file.

    Args:
        about: what they must have been made with, by the options' names.
        again: how to make the file anew.

    Raises:
        InputError: damaged, or made with something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = json.loads(str(_array(archive, "about")))
            made = {name: found[name] for name in about}
            arrays = [torch.from_numpy(_array(archive, name)) for name in names]
    except (*DAMAGE, zlib.error) as error:
        raise InputError(f"{path} is damaged or cannot be read: {again}") from error
    others = [name for name in about if made[name] != about[name]]
    was, asked = (" ".join(flag(name, values[name]) for name in others) for values in (made, about))
    require(not others, f"{path} was made with {was}, not {asked}: give the same options or --data-dir, or {again}")
    return arrays


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """An array of an npz file. np.load would parse it before, and at times without, looking at its checksum."""
    return np.lib.format.read_array(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)
