"""The option that all scripts on CelebA's faces share."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar


@dataclass(kw_only=True)
class FaceOptions:
    """Where the images at 64 x 64 are kept."""

    GROUP: ClassVar = "data"

    cache_dir: Path | None = None
    """folder of the cache of images at 64 x 64, and of classifiers. Default: the data-dir"""
