"""Coherence of a model of MNIST-SVHN: does what it generates show the same digit (Shi et al. 2019, section 4.1)?

    python analyse.py trained_models --data-dir data                     tables and pictures
    python analyse.py trained_models --data-dir data --svhn synthetic    a model of synthetic SVHN
    python analyse.py trained_models --json out.json                     and a file

Cross coherence: how often a modality decoded from the other one shows the digit of the given one; joint coherence:
how often both decodings of a draw of the prior show the same one. Convolutional networks classify the digits. They are
trained on the training images, once for each data-dir, and their accuracy on test images is printed too. Latent
accuracy: how often a linear classifier reads the digit from one sampled z. Clusters: how often a pair's digit is the
majority digit of its k-means cluster, of the means of q(z|X). By the number of given images: coherence, also with equal
weights of the digits (macro), a logistic regression of the posterior's mean (linear accuracy), and the Frechet distance
between the classifiers' features of decoded and of test images (FD; no FID). SSIM: of images and their reconstructions.
The KLs of the posteriors from the prior and from each other follow, and the networks' sizes.

Writes cross_generation.png, traversal_mnist.png and traversal_svhn.png (along the latents that are used most),
umap.png (draws of the prior and of the posteriors in the plane) and kl.png (KLs by latent) into the model's samples/.
"""

from dataclasses import dataclass
from functools import partial

from common.data import Examples
from common.models import MultimodalVAE
from mnist_svhn import classifier
from mnist_svhn.data import load
from mnist_svhn.options import PairOptions, about, dataset_options
from mnist_svhn.sample import IMAGES
from reports.analysis import AnalysisConfig, Labelled, analyse
from reports.classifiers import judge, judge_file
from reports.metrics import Judge
from training import run_from_command_line

from torch import Tensor


@dataclass
class Config(PairOptions, AnalysisConfig):
    """The options of the pairing, and those of all analyse.py."""


def judges(config: Config, train: Examples, labels: Tensor, model: MultimodalVAE) -> dict[str, Judge]:
    """The judge of each modality."""
    kind = "_synthetic" if config.svhn == "synthetic" else ""
    if (config.pair_seed, config.max_per_class) != (PairOptions.pair_seed, PairOptions.max_per_class):
        kind += f"_pairs_{config.pair_seed}_{config.max_per_class}"
    files = {name: judge_file(config.data_dir, f"digits_of_{name}{kind}.pt", config) for name in model.modalities}
    steps = classifier.STEPS
    return {x: judge(partial(classifier.build, x), train, x, labels, steps, file) for x, file in files.items()}


DATA = Labelled(
    name="mnist_svhn",
    load=load,
    labels=lambda config, split, pairs: pairs.only(("digit",))[:].modalities["digit"][:, None],
    names=("digit",),
    n_values=10,
    judges=judges,
    groups=lambda labels: {str(d): labels[:, 0] == d for d in range(10)},
    shown=IMAGES,
    given_all=True,
    by_subset=True,
    about=about,
    must_match=dataset_options,
)

main = partial(analyse, data=DATA)

if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
