"""Log-likelihoods of a model of MultiMNIST, by importance sampling on the test images (nats per example).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

What is estimated, and how: `python ../mnist/loglike.py --help`. The table also has the shares of characters
and of whole strings that are inferred rightly from the image (four characters each, fillers included).
"""

from dataclasses import dataclass

from mnist import loglike
from multimnist.data import MULTIMNIST
from multimnist.options import DatasetOptions, dataset_options
from reports import options
from training import run_from_command_line, runs


@dataclass
class Config(DatasetOptions, options.LoglikeConfig):
    pass


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates as `mnist.loglike.main` does; raise InputError for a model of another MultiMNIST."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    return loglike.main(config, MULTIMNIST)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
