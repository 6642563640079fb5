"""Atomic writes, and what reading a damaged file may raise."""

import os
import pickle
import struct
import uuid
import zipfile
from pathlib import Path

from common.errors import InputError

# what loading may raise where bytes are missing or changed: the file is read as a zip archive, then unpickled
DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, RuntimeError, ValueError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at path, or leave it as it was: temporary file, fsync, rename.

    Raises:
        InputError: it could not be written (a full disk, no permission).
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # others may write the same file
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = ": the one before is kept" if path.exists() else ""
        raise InputError(f"{path} could not be written ({error.strerror}){kept}") from error
