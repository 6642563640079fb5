"""Log-likelihoods of a model of MNIST, by importance sampling on the test images (nats per example).

    python loglike.py trained_models --data-dir data                     a table
    python loglike.py trained_models --n-samples 5000 --json out.json    and a file

log p(image), log p(image, text) and the conditionals derived from them share samples of q(z|image), as in the caption
of the paper's Table 2; further rows have the same estimates with samples of q(z|image, text). For a label, log p(text)
uses the prior as proposal; for a string it uses q(z|text), since few samples of the prior would decode to the string.
Training's weights and annealing do not enter.

log p(image), log p(text) and log p(image, text) are lower bounds in expectation: of two estimates the higher one is
closer to the truth. Conditionals are differences of two estimates, and no bounds. If the label's latents do not depend
on the image, both proposals are poor: q(z|image, text) for log p(image), since it misses the regions of p(z|image) that
belong to other labels (which costs up to log 10 = 2.3 nats); q(z|image) for log p(image, text), since few of its
samples decode to the label.

A VAE has log p(image) alone, with samples of q(z|image); a CVAE log p(image|text), with samples of q(z|image, text).
"""

from functools import partial

import torch
from torch import Tensor

from common import metrics
from common.checkpoints import load_config, load_model
from common.data import Batch, Examples
from common.estimators import image_and_label, importance_estimates
from common.models import MultimodalVAE
from common.reporting import tables
from common.training import devices, run_from_command_line
from common.training.options import LoglikeConfig as Config
from mnist.data import MNIST, Dataset, binarised

BATCH_SIZE = 100


def main(config: Config, dataset: Dataset = MNIST) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model = load_model(config.model, dataset.name).to(devices.select(config.cuda))
    examples = dataset.load("test", config)
    if load_config(config.model, dataset.name).get("binary"):
        examples = binarised(examples)
    torch.manual_seed(config.seed)
    values = evaluate(model, examples, config.n_samples)
    return tables.report_estimates(values, config, dataset.name, len(examples))


def evaluate(model: MultimodalVAE, examples: Examples, n_samples: int) -> dict[str, Tensor]:
    """Every estimate for every example: {name: (N,)}, nats."""
    likelihoods = partial(two_modalities if "text" in model.modelled else image_alone, n_samples=n_samples)
    evaluations = [likelihoods, accuracies] if "text" in model.modelled else [likelihoods]
    return metrics.evaluate(model, examples.only(model.modalities), evaluations, BATCH_SIZE)


def two_modalities(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """The estimates of a model of p(image, text)."""
    one_of_few = batch.modalities["text"].dim() == 1
    return image_and_label(model, batch, ("text",), "text", n_samples, () if one_of_few else ("text",))


def image_alone(model: MultimodalVAE, batch: Batch, n_samples: int) -> dict[str, Tensor]:
    """The estimate of a model of the image alone, p(image) or p(image|text)."""
    (image,) = importance_estimates(model, batch, [("image",)], given=model.modalities, n_samples=n_samples)
    name = "|".join(["image", *model.modality["image"].given])
    return {f"log p({name})": image.value, **image.quality(name)}


def accuracies(model: MultimodalVAE, batch: Batch) -> dict[str, Tensor]:
    """How much of the text is inferred rightly from the image, by example, in [0, 1]."""
    right = model.reconstruct(batch, given=("image",))["text"] == batch.modalities["text"]  # (B,), strings: (B, 4)
    if right.dim() == 1:
        return {"label accuracy from the image": right.float()}
    return {
        "character accuracy from the image": right.float().mean(dim=1),
        "string accuracy from the image": right.all(dim=1).float(),
    }


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
