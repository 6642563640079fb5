"""Sample a model of MultiMNIST: from the prior, given an image, given a string, given both.

    python sample.py trained_models                                64 images and strings from the prior
    python sample.py trained_models --mixture 10 --data-dir data   from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-text 1773       given a string of up to four digits ("" for none)
    python sample.py trained_models --condition-on-image 42        given a random test image of 42 (or an image file)
    python sample.py trained_models --reconstruct                  test images and their reconstructions

Writes prior.png, mixture_10.png, given_text_1773.png, ... or reconstructions.png, named by what was asked: the decoded
means with their predicted strings beneath, (none) for the empty one; and a .txt of the same name, these strings. A
string's characters are the most likely ones, one by one; a model trained with --teacher-forcing gives the most likely
string that a beam search finds.
"""

from dataclasses import dataclass

from mnist import sample
from multimnist.data import MULTIMNIST
from multimnist.options import DatasetOptions, dataset_options
from training import run_from_command_line, runs


@dataclass
class Config(DatasetOptions, sample.Config):
    condition_on_text: str | None = None
    """a string of at most four digits; it may be empty"""


def main(config: Config) -> None:
    """Sample as `mnist.sample.main` does; raise InputError if the model was trained on another MultiMNIST."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    sample.main(config, MULTIMNIST)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
