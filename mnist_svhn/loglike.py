"""Log-likelihoods of a model of MNIST-SVHN, by importance sampling on pairs of test images (nats per pair).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --data-dir data --svhn synthetic    a model of synthetic SVHN
    python loglike.py trained_models --paper --json out.json             with the paper's number, and a file

log p(mnist,svhn), log p(mnist) and log p(svhn) share samples of q(z|mnist,svhn), all components of a mixture. Each is
estimated with samples of each encoder alone too: log p(svhn) with z from q(z|mnist) shows how much mnist tells
about svhn. Only --paper uses the weights of the likelihoods.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from common import metrics
from common.checkpoints import load_model
from common.data import Batch, Examples
from common.errors import require
from common.estimators import joint_and_each, weighted_joint
from common.models import MultimodalVAE
from common.reporting import tables
from common.training import devices, options, run_from_command_line, runs
from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, dataset_options

BATCH_SIZE = 10  # so that progress is shown often: samples fill the batches of decoders


@dataclass
class Config(PairOptions, options.LoglikeConfig):
    paper: bool = False
    """also estimate what the paper reports as log p(mnist,svhn). It is not a log-likelihood: it takes all samples of
    each encoder, and weighs likelihoods as in training (--llik-scaling)"""


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    runs.check_same(dataset_options(config), config.model)
    model = load_model(config.model, "mnist_svhn").to(devices.select(config.cuda))
    check_paper(config, model)
    pairs = load("test", config)
    torch.manual_seed(config.seed)
    values = evaluate(model, pairs, config.n_samples, config.paper)
    about = {} if config.demo else {"svhn": config.svhn}
    return tables.report_estimates(values, config, "mnist_svhn", len(pairs), about)


def check_paper(config: options.LoglikeConfig, model: MultimodalVAE) -> None:
    """Raise InputError if --paper asks for what a model does not have."""
    density, samples = model.variational_posterior.has_density, model.auxiliary is None
    lacking = f"--paper needs a density in closed form, which {config.model} lacks"
    require(density or not config.paper, f"{lacking}: leave it out")
    why = "draws private latents from auxiliary priors, whose densities no weight counts: leave it out"
    require(samples or not config.paper, f"--paper weighs the samples of each encoder, but {config.model} {why}")


def evaluate(model: MultimodalVAE, pairs: Examples, n_samples: int, paper: bool = False) -> dict[str, Tensor]:
    """Every estimate for every pair: {name: (N,)}, nats."""
    evaluations = [joint_and_each, papers_joint] if paper else [joint_and_each]
    evaluations = [partial(f, n_samples=n_samples) for f in evaluations]
    return metrics.evaluate(model, pairs.only(model.modalities), evaluations, BATCH_SIZE)


def papers_joint(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """What the paper reports as the joint log-likelihood, {name: (B,)}."""
    name = f"log p({','.join(model.modalities)}) weighed as in training, by the paper's estimator"
    return {name: weighted_joint(model, batch, n_samples)}


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
