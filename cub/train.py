"""MMVAE on CUB: photographs of birds and captions of them (Shi et al. 2019, arXiv 1911.03393).

    python train.py --model images --data-dir data          photographs of 64 x 64 pixels, the authors' settings
    python train.py --model features --data-dir data        features of ResNet-101, which features.py extracts before
    python train.py --demo --K 1 --epochs 4 --precision bf16       drawn birds, in half an hour on one core

Bounds of log p(image, caption): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or
the ELBO; the log-likelihood of the image or the feature is weighed by --llik-scaling. Each image has ten captions: an
example is an image with one of them.
A batch: image (B, 3, 64, 64) float in [0, 1] or feature (B, 2048) float, and caption (B, 32) int64, words.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from common.errors import require
from common.training import run_from_command_line
from common.training.objective_options import MmvaeOptions, ObjectiveName
from common.training.options import LATENT_NAMES, RunConfig
from cub.options import AUTHORS, MODELS, WordOptions

if TYPE_CHECKING:
    from common.training import Experiment
    from cub.data import Birds


@dataclass
class Config(WordOptions, MmvaeOptions, RunConfig):
    DEFAULTS_FROM: ClassVar = "as in the authors' code"
    ALWAYS_PAIRED: ClassVar = "captions belong to their images"

    model: Literal["images", "features", "image", "feature", "caption", "cubIS", "cubISft"] = "images"
    """images, also cubIS: photographs and captions; features, also cubISft: ResNet-101's features of photographs, and
    captions; image, feature, caption: a VAE of this modality alone"""
    fusion: Literal["moe", "poe", "mopoe"] = "moe"
    """how the experts are fused"""
    posterior: (
        Literal["laplace-normal", "softplus-normal", "softplus-laplace", "gaussian", "laplace", "vmf", "ebm"] | None
    ) = None
    """family of the experts and the prior. Default: gaussian for products, and for mixtures as the authors:
    laplace-normal for --model images (image Laplace, caption Gaussian), softplus-normal for features"""
    obj: ObjectiveName | None = None
    """objective to maximise. Default: dreg, as in the paper; mvae with --fusion poe"""
    K: int | None = None
    """samples from each encoder, for --obj dreg, iwae and stl. Default: 50, as in the authors' runs"""
    llik_scaling: float | None = None
    """weight of the image's or the feature's log-likelihood; 0 stands for the ratio of the dimensions, 32 / 12288 or 32
    / 2048. Default: 0, with --model features 0.002, as in the authors' runs"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z. Default: 128, with features 64, as in the authors' runs"""
    batch_size: int = 64
    """examples in a batch, each an image with a caption. Default: as in the authors' runs"""
    epochs: int | None = None
    """passes over the captions. Default: 200, with features 50, as in the authors' runs"""
    valid: int | None = None
    """hold out the last N training images, with their captions, and select the best model on them. 0 holds out none,
    and the last model counts as the best, as in the authors' code. Default: the last tenth"""
    limit: int | None = None
    """use only the first N images of each split, with their captions"""
    paired_fraction: float = 1.0
    """must be 1: captions belong to their images"""
    download: bool = False
    """try to download the authors' archive. It is gone from its host, so this says what to get instead"""
    annealing_epochs: int = 0
    lr: float = 1e-3
    """learning rate of Adam with amsgrad. Default: as in the authors' code; their README says 1e-4"""
    # of the training data, with which the model is kept
    vocabulary: tyro.conf.Suppress[list[str] | None] = None
    feature_network: tyro.conf.Suppress[dict[str, Any] | None] = None

    def __post_init__(self) -> None:
        self.model = AUTHORS.get(self.model, self.model)
        defaults = MODELS[self.model]._asdict() | {"obj": "dreg"}
        if self.experts()[1] in ("poe", "mopoe"):
            defaults["posterior"] = "gaussian"
        if self.experts()[1] == "poe":
            defaults["obj"] = "mvae"
        for name in ("posterior", "obj", "llik_scaling", "n_latents", "epochs"):
            if getattr(self, name) is None:
                setattr(self, name, defaults[name])
        if self.K is None and self.obj in ("dreg", "iwae", "stl"):
            self.K = 50

    def experts(self) -> tuple[str, str, str]:
        if len(MODELS[self.model].modalities) == 1:
            return f"--model {self.model}", "own", self.posterior
        return super().experts()

    def check(self) -> None:
        super().check()
        model, fusion, _ = self.experts()
        require(fusion != "own" or self.fusion == "moe", f"--fusion {self.fusion} fuses two experts: {model} has one")
        given = self.vocab is None or self.pre_trained is not None
        require(given, "--vocab gives the words of the authors' model that --pre-trained names")


def load_train(config: Config) -> tuple["Birds", "Birds | None"]:
    """Load birds to train on and to validate on; completes the config with their vocabulary and network of features."""
    from cub import data
    from cub.trained_model import network_behind, vocabulary_of

    source = "feature" if "feature" in MODELS[config.model].modalities else "image"
    words = vocabulary_of(config.pre_trained, config.vocab) if config.pre_trained else None
    train, valid = data.load_train(config, source, words)
    config.vocabulary = train.vocabulary.words
    config.feature_network = network_behind(config) if source == "feature" else None
    return train, valid


def experiment(config: Config) -> "Experiment":
    """Photographs or features of birds, and captions."""
    from common.analysis import latent_pictures
    from common.training import Experiment, objective_of
    from cub.data import load
    from cub.model import build
    from cub.sample import draw

    return Experiment(
        "cub",
        load,
        build,
        objective_of,
        draw if config.analytics else None,
        load_train,
        examples=lambda config, birds, model: birds.examples.only(model.modalities),
        amsgrad=True,
        analytics=latent_pictures if config.analytics_every else None,
    )


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    from common.training import run  # imported here, like the others: --help does without torch
    from cub import loglike

    finished = run(config, experiment(config))
    if finished and config.logp:
        same = ("data_dir", "images_dir", "cache_dir", "demo", "limit", "seed", "cuda")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
