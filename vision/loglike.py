"""Log-likelihoods of a model of six views of a face, by importance sampling on the test images (nats per example).

    python loglike.py trained_models --data-dir data --limit 200         a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file
    python loglike.py trained_models --target mask --given image gray    also log p(mask|image,gray)
    python loglike.py trained_models --by-size --limit 50                also of all subsets, and of the rest given them

Reports log p of all six views, of each view, and of the image given the other five, a difference of two lower bounds,
which may err either way. All share samples of q(z|all six). Test faces without a mask are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from celeba.options import FaceOptions
from common.data import Batch, Examples
from common.data.splits import only_complete
from common.estimators import importance_estimates
from common.models import MultimodalVAE
from reports import metrics, options, tables
from reports.likelihoods import of_subsets
from training import run_from_command_line
from vision.data import load

import torch
from torch import Tensor

BATCH_SIZE = 50


@dataclass
class Config(FaceOptions, options.SubsetLikelihoodsConfig):
    pass


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model = config.trained_model("vision")
    more = of_subsets(config, model)
    examples = load("test", config)
    complete, _ = only_complete(examples)
    if len(complete) < len(examples):
        print(f"left out, since they have no mask: {tables.count(len(examples) - len(complete), 'face')}")
    torch.manual_seed(config.seed)
    values = evaluate(model, complete, more, **config.sampling)
    return tables.report_estimates(values, config, "vision", len(complete))


def evaluate(
    model: MultimodalVAE, examples: Examples, more: Sequence[metrics.Evaluation] = (), **sampling: float | None
) -> dict[str, Tensor]:
    """Every estimate, and more, for every example, which must all have six views: {name: (N,)}, nats."""
    return metrics.evaluate_examples(model, examples, [partial(log_likelihoods, **sampling), *more], BATCH_SIZE)


def log_likelihoods(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """The estimates of all six views, of each, and of the image given the others, {name: (B,)}, nats."""
    views = model.modalities
    others = tuple(name for name in views if name != "image")
    targets = [views, others, *((name,) for name in views)]
    every, rest, *each = importance_estimates(model, batch, targets, views, **sampling)
    rows = every.named("log p(all six)") | rest.named("log p(the five others)")
    for name, estimate in zip(views, each, strict=True):
        rows |= estimate.named(f"log p({name})")
    return rows | {"log p(image|the five others)": every.value - rest.value}


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
