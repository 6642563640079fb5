"""The option that all scripts on CelebA's faces share."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class FaceOptions:
    """Where the images at 64 x 64 are kept."""

    cache_dir: Path | None = None
    """folder of the cache of images at 64 x 64, and of classifiers. None: the data-dir"""
