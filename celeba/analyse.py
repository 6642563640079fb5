"""Coherence of a model of CelebA: do its faces and its latents have the attributes that they were given?

    python analyse.py trained_models --data-dir data     tables, one of them by attribute, and pictures
    python analyse.py trained_models --demo              drawn faces, whose attributes are true
    python analyse.py trained_models --json out.json     and a file

A convolutional network learns the attributes of the training images, all of them or the first --limit N. It is kept in
the cache-dir, else in the data-dir, and judges all models there. Shares of right attributes of 64 x 64 images, in %, by
attribute:

    test images           the classifier's accuracy on test images: the ceiling for generated faces
    reconstructed         z of q(z|image) of a test image, decoded
    given all             z of q(z|attrs) of a test image's 18 attributes, decoded
    given alone           z given that attribute alone, or its absence, equally often: 50 is chance
    joint                 z of the prior: the decoded attribute is the one that the classifier sees in the decoded face
    more frequent value   always predicting what most test images have

Before it: the means of these shares and of others (attributes decoded from image or attributes), and latent accuracy,
that of linear classifiers of one z of q(z|image) or q(z|attrs). After it: KLs of these posteriors from the prior and
from each other, and the networks' sizes. Writes cross_generation.png, traversal_image.png, umap.png and kl.png into
samples/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from celeba.attributes import ATTRIBUTES
from celeba.classifier import classifier, predict
from celeba.data import attribute_names, load
from celeba.options import FaceOptions
from celeba.sample import giver, stacked
from common.data import Examples
from common.execution import processes
from common.models import MultimodalVAE
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.classifiers import judge_file
from reports.metrics import Judge
from reports.plots import visible
from reports.sampling import Shown
from training import run_from_command_line

import torch
from torch import Tensor

BATCH_SIZE = 500
JUDGE = "classifier_of_attributes.pt"
TITLES = {
    "classifier, image": "test images",
    "coherence, image -> image": "reconstructed",
    "coherence, attrs -> image": "given all",
    "coherence, joint": "joint",
}


@dataclass
class Config(FaceOptions, AnalysisConfig):
    N_SAMPLES: ClassVar = 5000

    n_samples: int | None = None
    """faces to generate from the prior; a tenth of them given each attribute alone, and given its absence. None: 5,000;
    with --limit N at most N"""


def judges(
    config: Config, train: Examples, labels: Tensor, model: MultimodalVAE, file: str = JUDGE
) -> dict[str, Judge]:
    """The judges of the image, and of the attributes that the model decodes, as one modality or as 18.

    Args:
        file: name of the classifier's file; vision trains on fewer faces, and has another.
    """
    network = classifier(train, labels, judge_file(config.cache_dir or config.data_dir, file, config))
    judges = {"image": Judge(("image",), lambda values: predict(network, values["image"]).long())}
    names = tuple(name for name in model.modelled if name in ("attrs", *ATTRIBUTES))
    if names:
        judges["attrs"] = Judge(names, lambda values: (stacked(values) > 0.5).long(), trained=False)
    return judges


@torch.no_grad()
def more_columns(
    config: Config, model: MultimodalVAE, judges: Mapping[str, Judge], labels: Tensor
) -> dict[str, Tensor]:
    """The columns "given alone", if the model has attributes, and "more frequent value", (18,)."""
    if len(model.modalities) == 1:
        return more_frequent(labels)
    n, give = -(-config.n_samples // 10), giver(model)

    def alone(rows: Tensor) -> dict[str, Tensor]:
        right = []
        for i, name in enumerate(ATTRIBUTES):
            for value in (0, 1):
                given = give({name: value}, len(rows))
                z = model.posterior(given).sample()
                image = model.decode(z, ["image"], given)["image"].mean
                right.append(judges["image"].read({"image": image})[:, i] == value)
        return {"right": torch.stack(right, dim=1)}  # (B, 36)

    right = processes.map_rows(n, BATCH_SIZE, alone, "given alone", " draws")["right"]
    return {"given alone": right.double().mean(dim=0).view(-1, 2).mean(dim=1)} | more_frequent(labels)


def more_frequent(labels: Tensor) -> dict[str, Tensor]:
    """The accuracy of always predicting what most of N examples have, of labels (N, 18)."""
    share = labels.double().mean(dim=0)
    return {"more frequent value": torch.maximum(share, 1 - share)}


def by_sex(labels: Tensor) -> dict[str, Tensor]:
    """Faces labelled male, and others: {name: (N,) bool}."""
    male = labels[:, ATTRIBUTES.index("Male")] == 1
    return {"Male": male, "not Male": ~male}


def captions(values: Mapping[str, Tensor]) -> list[str]:
    """The attributes of N faces, as one modality or as 18; none if they are not among the values."""
    if not {"attrs", ATTRIBUTES[0]} & set(values):
        return []
    return visible([x.replace(" ", ", ") for x in attribute_names(stacked(values))])


DATA = Labelled(
    name="celeba",
    load=load,
    labels=lambda config, split, faces: faces.modalities["attrs"].long(),
    names=ATTRIBUTES,
    n_values=2,
    judges=judges,
    groups=by_sex,
    shown=Shown(("image",), captions, sentences=True),
    columns=TITLES,
    more=more_columns,
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
