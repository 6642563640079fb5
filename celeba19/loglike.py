"""Log-likelihoods of a model of CelebA with each attribute as a modality (nats per example).

    python loglike.py trained_models --data-dir data                     two tables
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

What is estimated, and how: `python ../celeba/loglike.py --help`. "attrs" are all 18 together.
"""

from functools import partial

from celeba import loglike
from celeba.loglike import Config
from celeba19.data import apart
from training import run_from_command_line

main = partial(loglike.main, experiment="celeba19", arranged=apart)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
