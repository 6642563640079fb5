"""Log-likelihoods of a model of PolyMNIST, by importance sampling on test examples (nats per example).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file
    python loglike.py trained_models --by-size                           also of all subsets, and of the rest given them
    python loglike.py trained_models --target m3 m4 --given m0           also log p(m3,m4|m0)

log p of all images and of each share samples of the posterior given all of them, all components of a mixture. Each is
estimated with samples of each encoder alone too. Weights and beta play no part; private latents count.
"""

from dataclasses import dataclass
from functools import partial

import torch

from common import metrics
from common.checkpoints import load_model
from common.errors import require
from common.estimators import joint_and_each
from common.evaluation import subset_likelihoods
from common.models import MultimodalVAE
from common.reporting import tables
from common.training import devices, options, run_from_command_line, runs
from polymnist.data import load
from polymnist.options import DatasetOptions, about, dataset_options

BATCH_SIZE = 50


@dataclass
class Config(DatasetOptions, options.LoglikeConfig):
    """The options of the dataset, and those of all loglike.py."""

    by_size: bool = False
    """also estimate log p(x_S) of every subset S of the images, and log p(x_T|x_S) of the other images T: means over
    the subsets of a size, each estimate with samples of its q(z|x_S). 2^M - 1 estimates"""
    target: tuple[str, ...] = ()
    """also estimate log p(TARGET|GIVEN) of these images, or without --given log p(TARGET). Default: with --given, all
    others"""
    given: tuple[str, ...] = ()
    """the images that --target is given"""

    def evaluations(self, model: MultimodalVAE) -> list[metrics.Evaluation]:
        """What to estimate.

        Raises:
            InputError: images that the model lacks, or that are both given and targets.
        """
        names, asked = model.modalities, (*self.target, *self.given)
        for name in asked:
            require(name in names, f"this model has no {name}: --target and --given take {', '.join(names)}")
            require(asked.count(name) == 1, f"--target and --given name {name} more than once: name each image once")
        target = self.target or tuple(name for name in names if name not in self.given)
        require(bool(target), "--given names all images: leave one to be the target")
        chosen = [joint_and_each]
        if self.by_size:
            chosen.append(subset_likelihoods.by_size)
        if asked:
            chosen.append(partial(subset_likelihoods.conditional, target=target, given=self.given))
        return [partial(estimate, **self.sampling) for estimate in chosen]


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    model = load_model(config.model, "polymnist").to(devices.select(config.cuda))
    examples = load("test", config).only(model.modalities)
    torch.manual_seed(config.seed)
    values = metrics.evaluate(model, examples, config.evaluations(model), BATCH_SIZE)
    return tables.report_estimates(values, config, "polymnist", len(examples), about(config))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
