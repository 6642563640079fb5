"""Sample a model of FashionMNIST: from the prior, given an image, given a class, given both.

    python sample.py trained_models                                        64 images and classes from the prior
    python sample.py trained_models --mixture 10 --data-dir data           from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-text "ankle boot"       given a class, by its name or number
    python sample.py trained_models --condition-on-image sandal            given a random test image of one (or a file)
    python sample.py trained_models --reconstruct                          test images and their reconstructions

Writes prior.png, mixture_10.png, given_text_Ankle_boot.png, ... or reconstructions.png, named by what was asked: the
decoded means with their predicted classes beneath; and a .txt of the same name, these classes.
"""

from functools import partial

from fashionmnist.data import FASHIONMNIST
from mnist import sample
from mnist.sample import Config
from training import run_from_command_line

main = partial(sample.main, dataset=FASHIONMNIST)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
