"""Sample a model of MultiMNIST: from the prior, given an image, given a string, given both.

    python sample.py trained_models                              64 images and strings from the prior
    python sample.py trained_models --condition-on-text 1773     given a string of up to four digits ("" for none)
    python sample.py trained_models --condition-on-image 42      given a random test image of 42 (or an image file)
    python sample.py trained_models --reconstruct                test images and their reconstructions

Writes sample_image.png, the decoded means with their predicted strings beneath, and sample_text.txt, these strings:
character by character the most likely one, or with --teacher-forcing at training the most likely string (beam search).
"""

from dataclasses import dataclass

from common.training import run_from_command_line, runs
from mnist import sample
from multimnist.data import MULTIMNIST
from multimnist.options import DatasetOptions, values


@dataclass
class Config(DatasetOptions, sample.Config):
    condition_on_text: str | None = None
    """a string of at most four digits; it may be empty"""


def main(config: Config) -> None:
    runs.check_same(values(config), config.model)
    sample.main(config, MULTIMNIST)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
