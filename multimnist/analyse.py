"""Coherence of a model of MultiMNIST: do its samples and its latents show the string that they were given?

    python analyse.py trained_models --data-dir data     tables and pictures
    python analyse.py trained_models --demo              for the demo's model
    python analyse.py trained_models --json out.json     and a file

A convolutional network that is trained on the training images, once for each data-dir, reads the string of an image.
Each figure is the share of right characters; a string has four, fillers included. "string" follows where all four are
right. A table by character stands below. What else is measured and drawn: `python
../mnist/analyse.py --help`; umap.png is coloured by the number of digits.
"""

from dataclasses import dataclass
from functools import partial

from common.data import Examples
from common.models import MultimodalVAE
from mnist.analyse import judges, labels
from mnist.sample import shown_by
from multimnist.data import FILL, MULTIMNIST, N_CHARACTERS, SIZE
from multimnist.options import LENGTH, DatasetOptions, changed, dataset_options
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.classifiers import image_classifier
from reports.metrics import Judge
from training import run_from_command_line

from torch import Tensor

STEPS = 6000  # of the reader's training


@dataclass
class Config(DatasetOptions, AnalysisConfig):
    """The options of the dataset, and those of all analyse.py."""


def by_number(characters: Tensor) -> dict[str, Tensor]:
    """Which strings (N, 4) have how many digits: {name: (N,) bool}."""
    n_digits = (characters != FILL).sum(dim=1)
    return {f"{n} digits": n_digits == n for n in range(LENGTH + 1)}


def judges_of_strings(config: Config, train: Examples, labels: Tensor, model: MultimodalVAE) -> dict[str, Judge]:
    """The judges of image and text. The dataset's options that are not the paper's are in the name of their file."""
    name = "_".join([MULTIMNIST.name, *(f"{option}_{value}" for option, value in changed(config).items())])
    build = partial(image_classifier, 1, SIZE, LENGTH, N_CHARACTERS)
    return judges(config, train, labels, model, name, build, STEPS)


DATA = Labelled(
    name=MULTIMNIST.name,
    load=MULTIMNIST.load,
    labels=labels,
    names=[f"character {i + 1}" for i in range(LENGTH)],
    n_values=N_CHARACTERS,
    judges=judges_of_strings,
    groups=by_number,
    shown=shown_by(MULTIMNIST),
    label="character",
    all_right="string",
    must_match=dataset_options,
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
