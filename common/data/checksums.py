"""Files of published datasets, recognised by their checksums whatever their names say."""

from collections.abc import Mapping
from pathlib import Path

from common import distributed
from common.data import files
from common.errors import require
from common.io import MIB

LARGEST = 256 * MIB  # of the files that are known; SVHN's largest has 174


def md5_unless_large(path: Path) -> str:
    """The md5 of a file in hex; empty for a file that is larger than all that are known."""
    return files.md5_of(path) if path.stat().st_size <= LARGEST else ""


def check(path: Path, md5: str, dataset: str, name: str, known: Mapping[tuple[str, str], str]) -> None:
    """Refuse a file that is known as another one; warn about an unknown file, once for each folder.

    Args:
        path: the file.
        md5: its digest in hex, see `md5_unless_large`.
        dataset: the dataset that it should belong to, such as "MNIST".
        name: the file of that dataset that it should be.
        known: {(dataset, file): md5} of published files that could be mistaken for each other.

    Raises:
        InputError: it is another dataset's file, or another file of this dataset.
    """
    published = next((file for file, digest in known.items() if digest == md5), None)
    if published is None:
        distributed.print_once(
            f"warning: {path.parent} does not hold {dataset} as published: its files are used unchecked"
        )
        return
    is_it = f"{path} holds {published[0]}'s {published[1]}, not {dataset}'s {name}"
    require(published == (dataset, name), f"{is_it}: put the right file in its place, or give another folder")
