"""Log-likelihoods of a model of CelebA, by importance sampling on the test images (nats per example).

    python loglike.py trained_models --data-dir data                     two tables
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

log p(image), log p(image, attrs) and what follows from them share samples of q(z|image), as the caption of the paper's
Table 2 has it; further rows have the same estimates with samples of q(z|image, attrs). For log p(attrs) z comes from
the prior, and, in another row, from q(z|attrs). These are lower bounds in expectation: the higher of two values is
nearer. log p(image|attrs), a difference of two, may err either way. Weights and annealing of the training play no part.

The second table: how well the attributes are inferred from the image alone, by their likelier values. Accuracy says
little about rare attributes (that of always predicting the more frequent value stands beside it). F1 counts
presence as the positive class.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from celeba.attributes import ATTRIBUTES
from celeba.data import load
from celeba.options import FaceOptions
from celeba.sample import probabilities
from common.data import Batch, Examples
from common.estimators import importance_estimates
from common.models import MultimodalVAE
from mnist.loglike import image_alone, image_and_label
from reports import metrics, options, tables
from training import run_from_command_line

import torch
from sklearn.metrics import f1_score
from torch import Tensor

BATCH_SIZE = 100


@dataclass
class Config(FaceOptions, options.LoglikeConfig):
    pass


def main(
    config: Config, experiment: str = "celeba", arranged: Callable[[Examples], Examples] = lambda examples: examples
) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats.

    Args:
        arranged: CelebA's examples with the model's modalities.
    """
    config.check()
    model = config.trained_model(experiment)
    examples = load("test", config)
    torch.manual_seed(config.seed)
    values, predicted = evaluate(model, arranged(examples).only(model.modalities), **config.sampling)
    known = examples.modalities["attrs"].bool()
    more = [] if predicted is None else [tables.attribute_table(scores(predicted, known))]
    return tables.report_estimates(values, config, experiment, len(examples), more=more)


def evaluate(
    model: MultimodalVAE, examples: Examples, **sampling: float | None
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Every estimate of each example, {name: (N,)}, nats, and the attributes inferred from its image, (N, 18) bool.

    A model of the image alone, or of the image given attributes, infers none.

    Args:
        sampling: n_samples and tolerance of `common.estimators.importance_estimates`.
    """
    evaluations = [partial(image_alone, **sampling)]
    if len(model.modelled) > 1:
        evaluations = [inferred, partial(log_likelihoods, **sampling)]
    values = metrics.evaluate_examples(model, examples, evaluations, BATCH_SIZE)
    return values, values.pop("predicted", None)


def inferred(model: MultimodalVAE, batch: Batch) -> dict[str, Tensor]:
    """The attributes inferred from the images alone, "predicted", (B, 18) bool."""
    z = model.posterior(batch, ("image",)).point
    return {"predicted": probabilities(model.decode(z)) > 0.5}


def log_likelihoods(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """The estimates of p(image, attrs) and its parts, {name: (B,)}, nats, and the effective samples."""
    attributes = tuple(name for name in model.modalities if name != "image")
    estimates = image_and_label(model, batch, attributes, "attrs", **sampling)
    (attrs,) = importance_estimates(model, batch, [attributes], attributes, **sampling)
    return estimates | attrs.named("log p(attrs), z from q(z|attrs)")


def scores(predicted: Tensor, true: Tensor) -> dict[str, dict[str, float | None]]:
    """Accuracy and F1 by attribute of (N, 18) bool, in [0, 1]; F1 is None if none is present or predicted."""
    accuracy, share = (x.double().mean(dim=0) for x in (predicted == true, true))
    f1 = f1_score(true.numpy(), predicted.numpy(), average=None, zero_division=math.nan).tolist()
    columns = {
        "accuracy": accuracy.tolist(),
        "of the more frequent value": torch.maximum(share, 1 - share).tolist(),
        "F1": [None if math.isnan(x) else x for x in f1],
    }
    return {name: {title: x[i] for title, x in columns.items()} for i, name in enumerate(ATTRIBUTES)}


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
