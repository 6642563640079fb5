"""Coherence of a model of PolyMNIST: does what it generates show the same digit?

    python analyse.py trained_models --data-dir data         tables and pictures
    python analyse.py trained_models --json out.json         and a file
    python analyse.py trained_models --quadrant              a model of PolyMNIST-Quadrant
    python analyse.py trained_models --cuda --inception pt_inception-2015-12-05-6726825d.pth    also FID

Cross coherence: how often an image decoded from another modality shows the digit of the given image. Joint coherence:
how often all images decoded from one draw of the prior show the same digit. Convolutional networks classify the digits;
they are trained on the training images, once for each data-dir, and their accuracy on test images, which limits the
coherence, is printed too. A table by the number of given images has the coherence of all subsets with all targets,
linear accuracy, and Frechet distances of the classifiers' features. SSIM compares images with their reconstructions.
Clusters of the latents are scored by their majority digits: those of k-means, and of a mixture prior before and after
pruning. With --quadrant, linear classifiers read the digit and its quadrant from shared and from private latents. What
else is measured: `python ../mnist_svhn/analyse.py --help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

from common.data import Examples
from common.errors import require
from common.execution import devices
from common.models import MultimodalVAE
from polymnist import quadrants
from polymnist.data import N_CLASSES, SIZE, load
from polymnist.inception import inception_features
from polymnist.options import DatasetOptions, about, dataset_options
from polymnist.sample import IMAGES
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.classifiers import image_classifier, judge, judge_file
from reports.metrics import Judge
from reports.subsets import Posteriors, linear_accuracy
from reports.tables import Table, percent
from training import run_from_command_line

from torch import Tensor

STEPS = {SIZE: 3000, quadrants.SIZE: 1000}  # of a classifier's training, by the size of its images
N_PROBED = 5000  # training examples of a linear classifier of latents


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
    kind = "_quadrant" if config.quadrant else "_translated" if config.translated else ""
    size = quadrants.SIZE if config.quadrant else SIZE
    build = partial(image_classifier, 3, size, 1, N_CLASSES)
    folder = config.cache_dir or config.data_dir
    files = {x: judge_file(folder, f"digits_of_{x}_{config.images}{kind}.pt", config) for x in model.modalities}
    return {name: judge(build, train, name, labels, STEPS[size], file) for name, file in files.items()}


def probe(train: Posteriors, test: Posteriors, examples: Mapping[str, Examples]) -> list[Table]:
    """The table of how often logistic regressions read the digit, and the quadrant of x_m, from latents of q(.|x_m).

    They are fitted to the first `N_PROBED` training examples and scored on test examples; the figures are means over m,
    in [0, 1]. Shared latents z and private ones w_m are read apart. (Zhang, Shen & Wang, IDMVAE, ICLR 2026.)

    Args:
        examples: {split: the examples with digit and quadrants}.
    """
    model, accuracies = test.model, {}
    for name in model.modalities:
        points = {"train": train.points((name,), N_PROBED), "test": test.points((name,))}
        own = model.modality[name].private_latents
        parts = {"z": slice(model.n_shared)} | ({"w": slice(own.start, own.stop)} if own else {})
        for part, latents in parts.items():
            for shown, item in (("digit", "digit"), ("quadrant", f"quadrant_{name}")):
                labels = {split: examples[split].modalities[item].cpu()[: len(x)] for split, x in points.items()}
                pairs = ((x[:, latents], labels[split]) for split, x in points.items())
                accuracies.setdefault(f"{part} -> {shown}", []).append(linear_accuracy(*pairs))
    means = {pair: fmean(x) for pair, x in accuracies.items()}
    rows = [[part, *(percent(means[f"{part} -> {x}"]) for x in ("digit", "quadrant"))] for part in parts]
    notes = (
        f"Linear classifiers of the means of q(.|x_m), fitted to {len(points['train']):,} training examples. z: shared "
        "latents; w: private ones of x_m. Means over m; chance is 10 and 25 %."
    )
    return [Table("probe", means, ("latents", "digit, %", "quadrant of x_m, %"), rows, notes)]


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
    tables = probe if config.quadrant else DATA.tables
    return analyse(config, DATA._replace(by_subset=config.by_size, inception=features, tables=tables))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
