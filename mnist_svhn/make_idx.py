"""Pair the training images of MNIST and SVHN, and save the pairs (authors' bin/make-mnist-svhn-idx.py).

    python make_idx.py --data-dir data                                  30 random matchings of each class
    python make_idx.py --data-dir data --matchings 20 --svhn synthetic

Writes mnist_svhn_idx.npz into the data-dir. train.py uses these pairs and refuses to run with other options of pairing.
With the real SVHN it also writes, for the authors' code, train-ms-mnist-idx.pt, train-ms-svhn-idx.pt,
test-ms-mnist-idx.pt and test-ms-svhn-idx.pt: the same training pairs, and the pairs of our tests. train.py reads the
first two if there is no mnist_svhn_idx.npz; without them it draws the same pairs at each start. The training pairs
leave out the images that --valid holds out.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import require
from common.io import locked
from mnist_svhn.data import save_pairs
from mnist_svhn.options import MATCHINGS, TrainingPairOptions
from training import run_from_command_line

import tyro


@dataclass
class Config(TrainingPairOptions):
    matchings: int = MATCHINGS
    """number of partners of each training image, all of its class, as in the authors' code; their README says 20"""
    data_dir: Path = Path("data")
    """folder of MNIST and SVHN in their original formats"""
    download: bool = False
    """download missing files; resumes, and verifies checksums"""
    valid: int | None = None
    """hold out the last N images of each modality for validation. None: a sixth of the rarer modality's"""
    demo: tyro.conf.Suppress[bool] = False
    limit: tyro.conf.Suppress[int | None] = None


def main(config: Config) -> None:
    """Save the pairs, and print the names of the files."""
    folder = config.data_dir
    require(folder.is_dir() or config.download, f"there is no folder {folder}: give --data-dir DIR, or --download")
    with locked(folder):
        print(*save_pairs(config), sep="\n")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
