"""Coherence of a model of PolyMNIST: does what it generates show the same digit?

    python analyse.py trained_models --data-dir data         tables and pictures
    python analyse.py trained_models --json out.json         and a file
    python analyse.py trained_models --cuda --inception pt_inception-2015-12-05-6726825d.pth    also FID

Cross coherence: how often an image decoded from another modality shows the digit of the given image. Joint coherence:
how often all images decoded from one draw of the prior show the same digit. Convolutional networks classify the digits;
they are trained on the training images, once for each data-dir, and their accuracy on test images, which limits the
coherence, is printed too. A table by the number of given images has the coherence of all subsets with all targets,
linear accuracy, and Frechet distances of the classifiers' features. SSIM compares images with their reconstructions.
Clusters of the latents are scored by their majority digits: those of k-means, and of a mixture prior before and after
pruning. What else is measured: `python ../mnist_svhn/analyse.py --help`.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from common.data import Examples
from common.errors import require
from common.execution import devices
from common.models import MultimodalVAE
from polymnist.data import N_CLASSES, SIZE, load
from polymnist.inception import inception_features
from polymnist.options import DatasetOptions, about, dataset_options
from polymnist.sample import IMAGES
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.classifiers import image_classifier, judge, judge_file
from reports.metrics import Judge
from training import run_from_command_line

STEPS = 3000  # of a classifier's training


@dataclass
class Config(DatasetOptions, AnalysisConfig):
    """The options of the dataset, and those of all analyse.py."""

    by_size: bool = True
    """measure what is decoded given every subset of the images, 2^M - 1 of them;
    the table has means by size, the file of --json also each subset"""
    inception: Path | None = None
    """also measure FID by size: the weights of Inception-v3, the file pt_inception-2015-12-05-6726825d.pth;
    it is not downloaded, and needs torch-fidelity, and a GPU for more than a few hundred examples"""

    def check(self) -> None:
        super().check()
        require(self.by_size or not self.inception, "--inception measures FID by size: leave out --no-by-size")


def judges(config: Config, train: Examples, labels: Tensor, model: MultimodalVAE) -> dict[str, Judge]:
    """The judge of each modality."""
    kind, build = "_translated" if config.translated else "", partial(image_classifier, 3, SIZE, 1, N_CLASSES)
    folder = config.cache_dir or config.data_dir
    files = {x: judge_file(folder, f"digits_of_{x}_{config.images}{kind}.pt", config) for x in model.modalities}
    return {name: judge(build, train, name, labels, STEPS, file) for name, file in files.items()}


DATA = Labelled(
    name="polymnist",
    load=load,
    labels=lambda config, split, examples: examples.modalities["digit"][:, None],
    names=("digit",),
    n_values=N_CLASSES,
    judges=judges,
    groups=lambda labels: {str(d): labels[:, 0] == d for d in range(N_CLASSES)},
    shown=IMAGES,
    given_all=True,
    about=about,
    must_match=dataset_options,
)


def main(config: Config) -> dict[str, float]:
    """Analyse a model, see `reports.analysis.analyse`."""
    config.check()
    features = config.inception and inception_features(config.inception, devices.select(config.cuda))
    return analyse(config, DATA._replace(by_subset=config.by_size, inception=features))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
