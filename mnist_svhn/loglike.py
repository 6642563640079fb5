"""Log-likelihoods of a model of MNIST-SVHN, by importance sampling on pairs of test images (nats per pair).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --data-dir data --svhn synthetic    where it was trained on that
    python loglike.py trained_models --paper --json out.json             with the paper's number, and a file

log p(mnist,svhn), log p(mnist) and log p(svhn) share samples of q(z|mnist,svhn), of a mixture the whole one. Each is
estimated with samples of each encoder alone too: that of log p(svhn) with z from q(z|mnist) says how much of the image
of one modality the other one tells. Weights and beta play no part, but in --paper.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.checkpoints import load_model
from common.data import Batch, Examples
from common.errors import require
from common.estimators import joint_and_each, of_examples, weighted_joint
from common.models import MultimodalVAE
from common.reporting import tables as reports
from common.training import devices, options, run_from_command_line, runs
from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, chosen

BATCH_SIZE = 100


@dataclass
class Config(PairOptions, options.LoglikeConfig):
    paper: bool = False
    """also estimate what the paper reports as log p(mnist,svhn). It is not a log-likelihood: it takes all samples of
    each encoder, and weighs likelihoods as in training (--llik-scaling)"""


def main(config: Config) -> dict[str, dict[str, float]]:
    config.check()
    runs.check_same(chosen(config), config.model)
    model = load_model(config.model, "mnist_svhn").to(devices.select(config.cuda))
    has_density = model.variational_posterior.has_density
    require(has_density or not config.paper, f"--paper needs a density in closed form: {config.model} is energy-based")
    pairs = load("test", config)
    torch.manual_seed(config.seed)
    estimates = reports.summarise(evaluate(model, pairs, config.n_samples, config.paper))
    reports.report(estimates, config, "mnist_svhn", len(pairs), {"svhn": "demo" if config.demo else config.svhn})
    return estimates


def evaluate(model: MultimodalVAE, pairs: Examples, n_samples: int, paper: bool = False) -> dict[str, Tensor]:
    """Every estimate for every pair: {name: (N,)}, nats."""
    pairs = pairs.only(model.modalities).to(next(model.parameters()).device)

    def estimate(batch: Batch) -> dict[str, Tensor]:
        found = joint_and_each(model, batch, n_samples)
        if paper:
            name = f"log p({','.join(model.modalities)}) weighed as in training, by the paper's estimator"
            found[name] = weighted_joint(model, batch, n_samples)
        return found

    return of_examples(pairs, BATCH_SIZE, estimate)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
