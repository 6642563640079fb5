"""Sample a model of CelebA whose attributes are separate modalities: from the prior, given attributes, given an image.

    python sample.py trained_models                                       64 faces and their attributes from the prior
    python sample.py trained_models --mixture 10 --data-dir data          from ten Gaussians fitted to latents
    python sample.py trained_models --condition-on-attrs Male ~Smiling    given some attributes, the others left open
    python sample.py trained_models --condition-on-image FILE             given a photograph (or an attribute's name)
    python sample.py trained_models --reconstruct                         test images and their reconstructions

Writes prior.png, mixture_10.png, given_attrs_Male_not_Smiling.png, ..., the decoded means, and a .txt of the same name
with their attributes, as celeba's sample.py does.
"""

from functools import partial

from celeba import sample
from celeba.sample import Config
from celeba19.data import apart
from training import run_from_command_line

main = partial(sample.main, experiment="celeba19", arranged=apart)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
