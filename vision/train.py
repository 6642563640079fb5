"""MVAE on six views of CelebA's faces: image, gray, edge, mask, obscured, watermark (Wu & Goodman 2018, section 5.4).

    python setup.py grayscale data/img_align_celeba data/grayscale      once, and so edge and mask
    python train.py --data-dir data                                     the results of README.md
    python train.py --data-dir data --settings paper                    the authors' settings
    python train.py --demo                                              on drawn faces, in half an hour

ELBO terms: all six views, each alone, and with --approx-m random subsets of 2 to 5. A face for which no mask was found
counts with its other views. Options and data are celeba's.
A batch: image, obscured, watermark (B, 3, 64, 64), gray, edge, mask (B, 1, 64, 64), float in [0, 1].
"""

from dataclasses import dataclass

from celeba import train
from training import Experiment, run, run_from_command_line
from training.options import LatentsOption
from vision.data import load, load_train
from vision.model import build
from vision.sample import draw


@dataclass
class Config(train.FusionConfig):
    n_latents: LatentsOption = 250
    batch_size: int = 50
    epochs: int = 14
    lambda_image: float = 1.0
    """weight of image's log-likelihood"""
    lambda_gray: float = 1.0
    """weight of gray's log-likelihood"""
    lambda_edge: float = 1.0
    """weight of edge's log-likelihood"""
    lambda_mask: float = 1.0
    """weight of mask's log-likelihood"""
    lambda_obscured: float = 1.0
    """weight of obscured's log-likelihood"""
    lambda_watermark: float = 1.0
    """weight of watermark's log-likelihood"""


PAPER = Config(settings="paper", epochs=100, annealing_epochs=20, lr=1e-4)
DEMO = Config(demo=True, epochs=12, batch_size=10, limit=1000)


def experiment() -> Experiment:
    """Six views of CelebA's faces."""
    return train.experiment()._replace(name="vision", load=load, build=build, draw=draw, load_train=load_train)


def main(config: Config) -> None:
    """Train a model."""
    run(config, experiment())


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
