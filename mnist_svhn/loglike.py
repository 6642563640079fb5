"""Log-likelihoods of a model of MNIST-SVHN, by importance sampling on pairs of test images (nats per pair).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --data-dir data --svhn synthetic    a model of synthetic SVHN
    python loglike.py trained_models --paper --json out.json             with the paper's number, and a file

log p(mnist,svhn), log p(mnist) and log p(svhn) share samples of q(z|mnist,svhn), all components of a mixture. The
last two are estimated with samples of each encoder alone too: log p(svhn) with z from q(z|mnist) shows how much
mnist tells about svhn. Only --paper uses the weights of the likelihoods.
"""

from dataclasses import dataclass

from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, about, dataset_options
from reports import tables
from reports.likelihoods import MmvaeLoglikeConfig, mmvae_estimates
from training import run_from_command_line, runs

import torch


@dataclass
class Config(PairOptions, MmvaeLoglikeConfig):
    """The options of pairing, and of MMVAE's log-likelihoods."""


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    model = config.trained_model("mnist_svhn")
    config.check_fits(model)
    pairs = load("test", config)
    torch.manual_seed(config.seed)
    values = mmvae_estimates(model, pairs, **config.sampling, paper=config.paper)
    return tables.report_estimates(values, config, "mnist_svhn", len(pairs), about(config))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
