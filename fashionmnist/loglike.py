"""Log-likelihoods of a model of FashionMNIST, by importance sampling on the test images (nats per example).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

What is estimated, and how: `python ../mnist/loglike.py --help`.
"""

from functools import partial

from fashionmnist.data import FASHIONMNIST
from mnist import loglike
from reports.options import LoglikeConfig as Config
from training import run_from_command_line

main = partial(loglike.main, dataset=FASHIONMNIST)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
