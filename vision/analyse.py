"""Does the face that a model makes of one view have the attributes that the person has? A classifier tells.

    python analyse.py trained_models --data-dir data     tables, one of them by attribute, and pictures
    python analyse.py trained_models --demo              drawn faces, whose attributes are true
    python analyse.py trained_models --json out.json     and a file

The classifier: `python ../celeba/analyse.py --help`. Shares of test faces whose colour image, decoded of one z of
q(z|a view), shows the attribute as it is, in %, by view; beside them the classifier's accuracy on the images
themselves, and that of always predicting the more frequent value. Faces without a mask are left out.

Before the table by attribute: the means of its columns, and latent accuracy by view, that of linear classifiers of one
z. After it: KLs of the views' posteriors from the prior and from each other, and the networks' sizes. Writes
cross_generation.png, a traversal for each view, umap.png and kl.png into the model's samples/.
"""

from dataclasses import dataclass
from functools import partial

from celeba import analyse as celeba
from celeba.analyse import more_frequent
from celeba.data import load as load_faces
from common.latent_priors import Kind
from reports.analysis import analyse
from reports.sampling import Shown
from training import run_from_command_line
from vision.data import load
from vision.model import CHANNELS

import tyro


@dataclass
class Config(celeba.Config):
    # the image alone is judged, so nothing is generated from the prior
    n_samples: tyro.conf.Suppress[int | None] = None
    mixture: tyro.conf.Suppress[int] = 0
    latent_prior: tyro.conf.Suppress[tuple[Kind, ...]] = ()


DATA = celeba.DATA._replace(
    name="vision",
    load=load,
    judges=partial(celeba.judges, file="classifier_of_attributes_of_faces_with_masks.pt"),
    labels=lambda config, split, views: load_faces(split, config).modalities["attrs"][: len(views)].long(),
    shown=Shown(tuple(CHANNELS)),
    columns={"classifier, image": "test images"} | {f"coherence, {view} -> image": view for view in CHANNELS},
    more=lambda config, model, judges, labels: more_frequent(labels),
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
