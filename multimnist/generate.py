"""Make MultiMNIST from MNIST: 60,000 + 10,000 images of up to four digits, and the string of these digits.

    python generate.py --mnist-dir ../mnist/data                  as in the paper: on the corners of a 2x2 grid
    python generate.py --download                                 the same, MNIST fetched first
    python generate.py --no-fixed --data-dir free                 digits of several sizes, anywhere
    python generate.py --min-digits 2 --max-digits 2 --reverse --data-dir pairs

Writes multimnist.npz into the data-dir, which train.py and the other scripts read if they get the same options, and
multimnist.png, a picture of 64 of its training examples. Takes seconds, with --no-fixed up to a minute.
"""

from dataclasses import dataclass
from pathlib import Path

from common.errors import require_seed
from common.io import locked
from multimnist.data import SEED, load, make, names
from multimnist.options import DatasetOptions, dataset_options
from reports import plots
from training import run_from_command_line

import tyro

COLUMNS = 8


@dataclass
class Config(DatasetOptions):
    mnist_dir: Path = Path("data")
    """folder of MNIST in its original format"""
    data_dir: Path = Path("data")
    """folder to write to"""
    seed: int = SEED
    """seed of all random draws, as in the authors' code"""
    download: bool = False
    """download missing files of MNIST from its mirrors; resumes, and verifies checksums"""
    demo: tyro.conf.Suppress[bool] = False
    limit: tyro.conf.Suppress[int] = COLUMNS**2  # images in the picture


def main(config: Config) -> None:
    """Write the cache and the picture, and print their paths."""
    require_seed(config)
    with locked(config.data_dir):
        options = DatasetOptions(**dataset_options(config))
        path = make(config.mnist_dir, config.data_dir, options, config.seed, config.download)
    shown = load("train", config)[:].modalities
    picture = path.with_name("multimnist.png")
    images, captions = plots.in_rows(shown["image"], plots.visible(names(shown["text"])), COLUMNS)
    plots.image_grid(picture, images, captions=captions, title="MultiMNIST")
    print(f"{path}\n{picture}")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
