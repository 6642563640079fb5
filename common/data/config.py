"""The options that every dataset's `load(split, config)` reads."""

from pathlib import Path
from typing import Protocol


class DataConfig(Protocol):
    """Where a dataset is.

    data_dir: the folder with the dataset in its original format.
    demo: take the folder's built-in data instead, and no files.
    download: fetch missing files.
    limit: use only the first N examples of each split; None for all.
    """

    data_dir: Path
    demo: bool
    download: bool
    limit: int | None
