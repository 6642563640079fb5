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
belong to other labels (which costs log 10 = 2.3 nats if label and image share nothing, more with few samples);
q(z|image) for log p(image, text), since few of its samples decode to the label.

A VAE has log p(image) alone, with samples of q(z|image); a CVAE log p(image|text), with samples of q(z|image, text).
"""

from collections.abc import Sequence
from functools import partial

from common.data import Batch, Examples
from common.estimators import importance_estimates
from common.models import MultimodalVAE
from mnist.data import MNIST, Dataset, load_as_trained
from reports import metrics, tables
from reports.options import LoglikeConfig as Config
from training import run_from_command_line

import torch
from torch import Tensor

BATCH_SIZE = 100


def main(config: Config, dataset: Dataset = MNIST) -> dict[str, dict[str, float]]:
    """Report the estimates: {name: {"mean", "stderr"}}, log-likelihoods in nats."""
    config.check()
    model = config.trained_model(dataset.name)
    examples = load_as_trained("test", config, dataset)
    torch.manual_seed(config.seed)
    values = evaluate(model, examples, **config.sampling)
    return tables.report_estimates(values, config, dataset.name, len(examples))


def evaluate(model: MultimodalVAE, examples: Examples, **sampling: float | None) -> dict[str, Tensor]:
    """Every estimate for every example: {name: (N,)}, nats.

    Args:
        sampling: n_samples and tolerance of `common.estimators.importance_estimates`, in all functions here.
    """
    likelihoods = partial(two_modalities if "text" in model.modelled else image_alone, **sampling)
    evaluations = [likelihoods, accuracies] if "text" in model.modelled else [likelihoods]
    return metrics.evaluate_examples(model, examples.only(model.modalities), evaluations, BATCH_SIZE)


def two_modalities(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """The estimates of a model of p(image, text)."""
    one_of_few = batch.modalities["text"].dim() == 1
    return image_and_label(model, batch, ("text",), "text", () if one_of_few else ("text",), **sampling)


def image_and_label(
    model: MultimodalVAE,
    batch: Batch,
    label: Sequence[str],
    label_name: str,
    given: Sequence[str] = (),
    **sampling: float | None,
) -> dict[str, Tensor]:
    """Estimate log p of an image, its label, the two together and each given the other.

    The image's own posterior q(z|image) is the proposal, as the caption of Table 2 has it (Wu & Goodman 2018, arXiv
    1802.05335). Rows whose names end in ", z from q(z|image,LABEL)" have the same estimates with the posterior of both.

    Args:
        label: the modalities that are the label.
        label_name: its name in the results.
        given: the modalities of the proposal for log p(label); by default the prior.

    Returns:
        {name: (B,)}, log-likelihoods in nats, and the effective numbers of samples.
    """
    pair = ("image", *label)
    (y,) = importance_estimates(model, batch, [label], given, **sampling)
    rows = {}
    for proposal, suffix in ((("image",), ""), (pair, f", z from q(z|image,{label_name})")):
        image, joint = importance_estimates(model, batch, [("image",), pair], proposal, **sampling)
        rows |= image.named(f"log p(image){suffix}") | joint.named(f"log p(image,{label_name}){suffix}")
        rows[f"log p(image|{label_name}){suffix}"] = joint.value - y.value
        rows[f"log p({label_name}|image){suffix}"] = joint.value - image.value
    return rows | y.named(f"log p({label_name})")


def image_alone(model: MultimodalVAE, batch: Batch, **sampling: float | None) -> dict[str, Tensor]:
    """The estimate of a model of the image alone, p(image) or p(image|text)."""
    (image,) = importance_estimates(model, batch, [("image",)], given=model.modalities, **sampling)
    return image.named(f"log p({'|'.join(['image', *model.modality['image'].given])})")


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
