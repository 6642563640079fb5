"""Atomic writes, and the exceptions that a damaged file can raise when it is read."""

import os
import pickle
import struct
import uuid
import zipfile
from pathlib import Path

from common.errors import InputError

# a checkpoint is read as a zip archive, then unpickled: missing or changed bytes can raise any of these
DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, RuntimeError, ValueError),
    *(LookupError, TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the file at path, or leave it unchanged: write a temporary file, fsync, rename.

    Raises:
        InputError: the file could not be written (a full disk, no permission).
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # another process may write the same file
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        kept = "; the previous file is kept" if path.exists() else ""
        raise InputError(
            f"{path} could not be written ({error.strerror}): free disk space or check permissions{kept}"
        ) from error
