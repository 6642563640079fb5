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

from common.estimators import joint_and_each
from polymnist.data import load
from polymnist.options import DatasetOptions, about, dataset_options
from reports import metrics, options, tables
from reports.likelihoods import of_subsets
from training import run_from_command_line, runs

import torch

BATCH_SIZE = 50


@dataclass
class Config(DatasetOptions, options.SubsetLikelihoodsConfig):
    """The options of the dataset, and those of loglike.py."""


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    model = config.trained_model("polymnist")
    evaluations = [partial(joint_and_each, **config.sampling), *of_subsets(config, model)]
    examples = load("test", config).only(model.modalities)
    torch.manual_seed(config.seed)
    values = metrics.evaluate_examples(model, examples, evaluations, BATCH_SIZE)
    return tables.report_estimates(values, config, "polymnist", len(examples), about(config))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
