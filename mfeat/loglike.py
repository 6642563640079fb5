"""Log-likelihoods of a model of UCI Multiple Features, by importance sampling on test examples (nats per example).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file
    python loglike.py trained_models --target digit --given fou mor      also log p(digit|fou,mor)
    python loglike.py trained_models --by-size                           also of all subsets, and of the rest given them

log p of all modalities and of each alone, with samples of the posterior given the same ones. The densities of tables
are those of standardised values: in the units of the files, log p of a table is lower by the sum of the logarithms of
its columns' deviations.
"""

from functools import partial

from common.data import Batch
from common.estimators import importance_estimates
from common.models import MultimodalVAE
from mfeat.data import load_as_trained
from reports import metrics, tables
from reports.likelihoods import of_subsets
from reports.options import SubsetLikelihoodsConfig as Config
from training import run_from_command_line

import torch
from torch import Tensor

BATCH_SIZE = 50


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model = config.trained_model("mfeat")
    evaluations = [partial(all_and_each, **config.sampling), *of_subsets(config, model)]
    examples = load_as_trained("test", config)
    torch.manual_seed(config.seed)
    values = metrics.evaluate_examples(model, examples, evaluations, BATCH_SIZE)
    return tables.report_estimates(values, config, "mfeat", len(examples))


def all_and_each(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """Estimate log p of all modalities together, and of each: {name: (B,)}, nats, and their qualities."""
    rows = {}
    for names in (model.modalities, *((name,) for name in model.modalities)):
        (estimate,) = importance_estimates(model, batch, [names], names, **sampling)
        rows |= estimate.named(f"log p({','.join(names)})")
    return rows


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
