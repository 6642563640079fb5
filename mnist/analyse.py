"""Coherence of a model of MNIST: do its samples and its latents show the digit that they were given?

    python analyse.py trained_models --data-dir data     tables and pictures
    python analyse.py trained_models --demo              for the demo's model
    python analyse.py trained_models --json out.json     and a file

Cross coherence: how often a mean or mode decoded from one z of q(z|source) shows the source's digit; "text, aggregate"
draws z from the label's aggregate posterior. Joint coherence: how often an image and a label decoded from the same draw
of the prior agree. A convolutional network classifies the images. It is trained on the training images, once for each
data-dir, and its accuracy on test images is printed too. Latent accuracy: how often a linear classifier reads the digit
from one sampled z. The KLs of the posteriors from the prior and from each other follow, and the networks' sizes.

Writes cross_generation.png, traversal_image.png (along the latents that are used most), umap.png (draws of the prior
and of the posteriors in the plane) and kl.png (KLs by latent) into the model's samples/.
"""

from collections.abc import Callable
from functools import partial

from common.checkpoints import load_config
from common.data import Batch, Examples
from common.models import MultimodalVAE
from mnist.aggregate_posterior import from_aggregate_posterior
from mnist.data import CLASSES, MNIST, Dataset, load_as_trained
from mnist.model import N_CLASSES
from mnist.sample import shown_by
from reports.analysis import AnalysisConfig as Config
from reports.analysis import Labelled, analyse
from reports.classifiers import image_classifier, judge, judge_file
from reports.metrics import Judge
from training import run_from_command_line

import torch
from torch import Tensor, nn

STEPS = 3000  # of the classifier's training


def labels(config: Config, split: str, examples: Examples) -> Tensor:
    """The labels (N, G) that examples show: their class, or the characters of their string."""
    return examples.modalities["text"].view(len(examples), -1)


def judges(
    config: Config,
    train: Examples,
    labels: Tensor,
    model: MultimodalVAE,
    name: str,
    build: Callable[[], nn.Module],
    steps: int | None = None,
) -> dict[str, Judge]:
    """The judges of image and text; a text shows itself.

    Args:
        name: the experiment's.
        build: makes the untrained network: images -> logits (N, G, n_values).
    """
    binary = "_binary" if load_config(config.model).get("binary") else ""
    cache = judge_file(config.data_dir, f"{name}{binary}_classifier.pt", config)
    known = {
        "image": judge(build, train, "image", labels, steps or STEPS, cache),
        "text": Judge(("text",), lambda values: values["text"].view(len(values["text"]), -1), trained=False),
    }
    return {name: known[name] for name in model.modelled}


def samplers(model: MultimodalVAE, train: Examples, test: Examples) -> dict[str, Callable[[Batch], Tensor]]:
    """z from the aggregate posterior of the label, as `python sample.py --sampler aggregate`.

    Empty if the training examples lack a test label.
    """
    if "text" not in model.modelled:
        return {}
    asked, known = (examples.modalities["text"].unique() for examples in (test, train))
    if not torch.isin(asked, known).all():
        return {}
    return {"text, aggregate": lambda batch: from_aggregate_posterior(model, train, batch.modalities["text"])}


def by_class(dataset: Dataset, classes: tuple[str, ...]) -> Labelled:
    """The analysis of images and their classes."""
    return Labelled(
        name=dataset.name,
        load=partial(load_as_trained, dataset=dataset),
        labels=labels,
        names=("class",),
        n_values=N_CLASSES,
        judges=partial(judges, name=dataset.name, build=partial(image_classifier, 1, dataset.size, 1, N_CLASSES)),
        groups=lambda shown: {name: shown[:, 0] == c for c, name in enumerate(classes)},
        samplers=samplers,
        shown=shown_by(dataset),
    )


main = partial(analyse, data=by_class(MNIST, CLASSES))

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
