"""The options of data that the scripts of translation do without."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(kw_only=True)
class NoFiles:
    """num2words writes the numbers: there is nothing to find or to download."""

    data_dir: tyro.conf.Suppress[Path] = Path("data")
    download: tyro.conf.Suppress[bool] = False
