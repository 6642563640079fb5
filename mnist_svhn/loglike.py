"""Log-likelihoods of a model of MNIST-SVHN, by importance sampling on pairs of test images (nats per pair).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --data-dir data --svhn synthetic    where it was trained on that
    python loglike.py trained_models --paper --json out.json             with the paper's number, and a file

log p(mnist,svhn), log p(mnist) and log p(svhn) share samples of q(z|mnist,svhn), of a mixture the whole one. Each is
estimated with samples of each encoder alone too: that of log p(svhn) with z from q(z|mnist) says how much of the image
of one modality the other one tells. Weights and beta play no part, but in --paper.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from common import devices, runs
from common.checkpoints import load_model
from common.data import Batch, Examples
from common.estimators import CHUNK, importance_estimates
from common.models import MultimodalVAE
from common.objectives import IwaeElbo
from mnist_svhn.data import PairOptions, load

BATCH_SIZE = 100


@dataclass
class Config(PairOptions, runs.LoglikeConfig):
    paper: bool = False
    """also what the paper reports as log p(mnist,svhn): all samples of each encoder, likelihoods weighed as in training
    (--llik-scaling), so that it is no log-likelihood"""


def main(config: Config) -> dict[str, dict[str, float]]:
    config.check()
    model = load_model(config.model, "mnist_svhn").to(devices.select(config.cuda))
    pairs = load("test", config.data_dir, replace(config, matchings=1), config.demo, limit=config.limit)
    torch.manual_seed(config.seed)
    estimates = runs.summarise(evaluate(model, pairs, config.n_samples, config.paper))
    runs.report(estimates, config, "mnist_svhn", len(pairs))
    return estimates


def evaluate(model: MultimodalVAE, pairs: Examples, n_samples: int, paper: bool = False) -> dict[str, Tensor]:
    """Every estimate for every pair: {name: (N,)}, nats."""
    pairs = pairs.only(model.modalities).to(next(model.parameters()).device)
    rows = []
    with torch.no_grad(), tqdm(total=len(pairs), unit=" pairs", disable=None) as bar:
        for batch in pairs.batches(BATCH_SIZE):
            rows.append(
                estimates(model, batch, n_samples) | ({PAPER: scaled(model, batch, n_samples)} if paper else {})
            )
            bar.update(len(batch))
    return {name: torch.cat([row[name] for row in rows]).cpu() for name in rows[0]}


def estimates(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """Of the modalities together and each alone, with samples of the whole posterior and of each encoder."""
    names = model.modalities
    alone = [(name,) for name in names]
    targets = [names, *alone] if len(names) > 1 else alone
    row = {}
    for given in targets:
        found = importance_estimates(model, batch, targets if given == names else alone, given, n_samples)
        source = "" if given == names else f", z from q(z|{given[0]})"
        for target, estimate in zip(targets if given == names else alone, found, strict=True):
            row[f"log p({','.join(target)}){source}"] = estimate.value
            row[f"effective samples, {','.join(target)}{source}"] = estimate.ess
    return row


PAPER = "log p(mnist,svhn) weighed as in training, by the paper's estimator"


def scaled(model: MultimodalVAE, batch: Batch, n_samples: int) -> Tensor:
    """The tight bound of all components' samples with the model's weights, in chunks (`compute_joint_nll_paper`)."""
    size = max(1, CHUNK[next(model.parameters()).device.type] // (len(model.modalities) * len(batch)))
    sizes = [min(size, n_samples - start) for start in range(0, n_samples, size)]
    parts = [IwaeElbo(model, K).bound(batch).value + math.log(K) for K in sizes]
    return torch.stack(parts).logsumexp(dim=0) - math.log(n_samples)


if __name__ == "__main__":
    runs.command_line(main, Config, __doc__)
