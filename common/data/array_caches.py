"""Caches of generated arrays: one npz file holds the arrays and the options that they were made with."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data import npy_files, zip_files
from common.data.npy_files import Expected
from common.data.schemas import decode
from common.errors import brief, flags, require
from common.io import write_atomically

Scalar = bool | int | float | str | None
MAX_ABOUT = 2**16  # bytes


def save(path: Path, about: Mapping[str, Scalar], arrays: Mapping[str, Tensor]) -> None:
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


def load(path: Path, about: Mapping[str, Scalar], expected: Mapping[str, Expected], remedy: str) -> list[Tensor]:
    """Read arrays of a file that `save` wrote.

    Args:
        about: {option: value} that they must have been made with.
        expected: what the arrays must be, by name; their sizes are checked before they are unpacked.
        remedy: how to make the file again, the end of error messages.

    Returns:
        the arrays, in the order of the names.

    Raises:
        InputError: the file is missing or damaged, was made with other options, or an array is not as expected.
    """
    with zip_files.opened(path, remedy) as archive:
        name, content = f"{path}: about", zip_files.content(archive, "about.npy", MAX_ABOUT)
        saved = decode(npy_files.parse_text(content, name, remedy), dict[str, Scalar], name, remedy)
        lacking = [name for name in about if name not in saved]
        require(not lacking, f"{path} is damaged, it does not say {', '.join(lacking)}: {remedy}")
        changed = [name for name in about if saved[name] != about[name]]
        was, asked = (flags({name: values[name] for name in changed}) for values in (saved, about))
        again = f"give the same options, another --data-dir, or {remedy}"
        require(not changed, f"{path} was made with {brief(was)}, not {asked}: {again}")
        return [torch.from_numpy(_array(archive, name, kind, path, remedy)) for name, kind in expected.items()]


def _array(archive: zipfile.ZipFile, name: str, kind: Expected, path: Path, remedy: str) -> np.ndarray:
    content = zip_files.content(archive, f"{name}.npy", npy_files.MAX_HEADER + kind.at_most)
    return npy_files.parse(content, kind, f"{path}: {name}", remedy)
