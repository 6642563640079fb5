"""Log-likelihoods of a model of MNIST-SVHN, by importance sampling on pairs of test images (nats per pair).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --data-dir data --svhn synthetic    where it was trained on that
    python loglike.py trained_models --paper --json out.json             with the paper's number, and a file

log p(mnist,svhn), log p(mnist) and log p(svhn) share samples of q(z|mnist,svhn), of a mixture the whole one. Each is
estimated with samples of each encoder alone too: that of log p(svhn) with z from q(z|mnist) says how much of the image
of one modality the other one tells. Weights and beta play no part, but in --paper.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from common import devices, options, reports, runs
from common.checkpoints import load_model
from common.data import Batch, Examples
from common.errors import require
from common.estimators import Weights, of_examples, weighted_joint
from common.models import MultimodalVAE
from common.variational_posteriors import LocScaleEbmPosterior, proposal
from common.variational_strategies import MoeStrategy
from mnist_svhn.data import PairOptions, chosen, load

BATCH_SIZE = 100


@dataclass
class Config(PairOptions, options.LoglikeConfig):
    paper: bool = False
    """also what the paper reports as log p(mnist,svhn): all samples of each encoder, likelihoods weighed as in training
    (--llik-scaling), so that it is no log-likelihood"""


def main(config: Config) -> dict[str, dict[str, float]]:
    config.check()
    runs.check_same(chosen(config), config.model)
    model = load_model(config.model, "mnist_svhn").to(devices.select(config.cuda))
    energy_based = isinstance(model.variational_posterior, LocScaleEbmPosterior)
    require(not (config.paper and energy_based), f"--paper takes a known density: {config.model} is energy-based")
    pairs = load("test", config.data_dir, config, config.demo, limit=config.limit)
    torch.manual_seed(config.seed)
    estimates = reports.summarise(evaluate(model, pairs, config.n_samples, config.paper))
    reports.report(estimates, config, "mnist_svhn", len(pairs), {"svhn": "demo" if config.demo else config.svhn})
    return estimates


def evaluate(model: MultimodalVAE, pairs: Examples, n_samples: int, paper: bool = False) -> dict[str, Tensor]:
    """Every estimate for every pair: {name: (N,)}, nats."""
    pairs = pairs.only(model.modalities).to(next(model.parameters()).device)

    def estimate(batch: Batch) -> dict[str, Tensor]:
        found = estimates(model, batch, n_samples)
        if paper:
            name = f"log p({','.join(model.modalities)}) weighed as in training, by the paper's estimator"
            found[name] = weighted_joint(model, batch, n_samples)
        return found

    return of_examples(pairs, BATCH_SIZE, estimate)


def estimates(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """Of the modalities together and each alone, with samples of the whole posterior and of each encoder: (B,).

    K samples of each q(z|x_m), which a mixture of them has for its own; any other posterior has K more.
    """
    names, x = model.modalities, batch.modalities
    whole, prior = proposal(model.posterior(batch)), model.prior()
    proposals = [proposal(model.posterior({name: x[name]})) for name in names]
    of_whole = slice(0, len(names))
    if len(names) > 1 and not isinstance(model.variational_strategy, MoeStrategy):
        of_whole = slice(len(names), None)
        proposals.append(whole)
    targets = [names, *((name,) for name in names)] if len(names) > 1 else [names]
    weights = defaultdict(Weights)  # by target and source
    size = max(1, model.decoded_at_once // (len(proposals) * len(batch)))
    for start in range(0, n_samples, size):
        z = torch.stack([q.sample((min(size, n_samples - start),)) for q in proposals])  # (S, k, B, D)
        log_p = {name: p.log_prob(x[name]) for name, p in model.decode(z).items()}  # (S, k, B)
        log_prior = prior.log_prob(z)
        log_ratio = log_prior[of_whole] - whole.log_prob(z[of_whole])
        for target in targets:
            weights[",".join(target), ""].add(log_ratio + sum(log_p[name][of_whole] for name in target))
        for s, source in enumerate(names if len(names) > 1 else ()):
            log_ratio = log_prior[s] - proposals[s].log_prob(z[s])
            for target in names:
                weights[target, f", z from q(z|{source})"].add(log_ratio + log_p[target][s])
    row = {}
    for (target, source), of_target in weights.items():
        row[f"log p({target}){source}"], row[f"effective samples, {target}{source}"] = of_target.estimate()
    return row


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
