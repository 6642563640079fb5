"""MVAE on FashionMNIST: images of garments and their classes (Wu & Goodman 2018, arXiv 1802.05335).

    python train.py --data-dir data                       the default settings
    python train.py --data-dir data --settings paper      the authors' settings
    python train.py --demo                                on drawn garments, in two minutes

mnist's experiment with convolutional networks for the image: ELBO(image), ELBO(text) and ELBO(image, text), all scored
with --lambda-image and --lambda-text. Other models by --model.
A batch: image (B, 1, 28, 28) float in [0, 1], text (B,) int64 class.
"""

from fashionmnist.data import FASHIONMNIST
from fashionmnist.model import build
from mnist import train
from mnist.sample import drawn_by
from training import Experiment, run, run_from_command_line

Config, PAPER = train.Config, train.PAPER
DEMO = Config(demo=True, batch_size=50, epochs=30, lr_schedule="constant")


def experiment() -> Experiment:
    """FashionMNIST's images and classes."""
    return train.experiment()._replace(
        name=FASHIONMNIST.name, load=FASHIONMNIST.load, build=build, draw=drawn_by(FASHIONMNIST)
    )


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
