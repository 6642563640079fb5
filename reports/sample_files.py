"""Names of the files that sample.py writes: by what was asked, so that no sample replaces another."""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path

from common.io import write_atomically

LONGEST = 60  # bytes of a user's text in a file name; file systems allow 255 for the whole name


def name_of(n_gaussians: int = 0, cluster: int | None = None, /, **given: str) -> str:
    """A file name without suffix: what a sample was given, as in "given_image_4_text_5", or what it was drawn from.

    Args:
        n_gaussians: of the mixture in place of the prior, as in "mixture_10"; 0 for "prior".
        cluster: of the prior, as in "cluster_3".
    """
    if given:
        return "_".join(["given", *(f"{name}_{readable(text)}" for name, text in given.items())])
    if cluster is not None:
        return f"cluster_{cluster}"
    return f"mixture_{n_gaussians}" if n_gaussians else "prior"


def readable(text: str) -> str:
    """Return a user's text as a part of a file's name: its letters and digits, "_" for all else.

    A text that loses more than blanks and dots gets its checksum at the end, so that names differ.
    """
    kept = re.sub(r"[^\w-]+", "_", text).encode()[:LONGEST].decode(errors="ignore")
    lost = kept != re.sub(r"[ .]", "_", text)
    return f"{kept}_{zlib.crc32(text.encode()):08x}" if lost else kept or "none"


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write texts, a line each; creates the folder, and returns the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    return path
