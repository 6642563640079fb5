"""Files of published datasets, recognised by their checksums whatever their names say."""

from collections.abc import Mapping
from pathlib import Path

from common import distributed
from common.errors import require


def check(path: Path, md5: str, dataset: str, name: str, known: Mapping[tuple[str, str], str]) -> None:
    """Refuse a file that is known as another one; warn about an unknown file, once for each folder.

    Args:
        path: the file.
        md5: its digest in hex, see `files.md5_of`.
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
