"""MMVAE on CUB: photographs of birds and captions of them (Shi et al. 2019, arXiv 1911.03393).

    python train.py --model images --data-dir data          photographs of 64 x 64 pixels, the authors' settings
    python train.py --model features --data-dir data        features of ResNet-101, which features.py extracts before
    python train.py --fusion mmvae+ --n-private 16 --data-dir data             shared latents and 16 of each modality
    python train.py --demo                                            features of drawn birds, in minutes

Bounds of log p(image, caption): importance-weighted ones (--obj iwae, dreg, stl) with --K samples of each encoder, or
the ELBO; the log-likelihood of the image or the feature is weighed by --llik-scaling. Each image has ten captions: an
example is an image with one of them.
A batch: image (B, 3, 64, 64) float in [0, 1] or feature (B, 2048) float, and caption (B, 32) int64, words.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from common.errors import require
from common.models import choices
from cub.options import AUTHORS, FUSIONS, MODELS, POSTERIORS, TrainingBirdOptions, model_of
from training import run_from_command_line
from training.objective_options import MmvaeOptions, ObjectiveName, ObjectiveOptions, Unset
from training.options import LATENT_NAMES, OptimizerName, RunConfig

if TYPE_CHECKING:
    from training import Experiment


@dataclass
class Config(TrainingBirdOptions, MmvaeOptions, RunConfig):
    DEFAULTS_FROM: ClassVar = "as in the authors' code"
    DEMO: ClassVar = {"model": "features", "epochs": 5, "batch_size": 16, "limit": 600, "K": 1}
    WITH_PRIVATE: ClassVar = "--fusion poe or mmvae+, or --obj dmvae"
    WITH_CLUSTERS: ClassVar = "--fusion mmvae+"
    DEPEND_ON: ClassVar = ObjectiveOptions.DEPEND_ON | {
        "fusion": ("obj", "posterior", "n_private", "n_clusters"),
        "posterior": ("learn_prior",),
    }

    model: Literal["images", "features", "image", "feature", "caption", "cubIS", "cubISft"] = "images"
    """images, also cubIS: photographs and captions; features, also cubISft: ResNet-101's features of photographs, and
    captions; image, feature, caption: a VAE of this modality alone"""
    settings: tyro.conf.Suppress[str] = "recommended"  # the defaults are the authors'
    fusion: Literal[tuple(FUSIONS)] = "moe"
    """how the experts are fused"""
    posterior: Literal[POSTERIORS] | None = None
    """family of the experts and the prior. Default: laplace for --fusion mmvae+; for moe, except with
    --obj mmjsd, as in the authors' code: laplace-normal for --model images (image Laplace, caption Gaussian) and
    softplus-normal for features; otherwise gaussian"""
    obj: ObjectiveName | None = None
    """objective to maximise. Default: dreg for --fusion moe and mopoe, as in the paper; mvae for poe, mvtcae for
    product, jmvae for joint, jnf for jnf, elbo-one for mopoe-published, iwae for mmvae+"""
    K: int | None = None
    """samples from each encoder, for --obj dreg, iwae and stl. Default: 50, as in the authors' runs; 1 for --fusion
    mmvae+, as in its code"""
    llik_scaling: float | None = None
    """weight of the image's or the feature's log-likelihood; 0 stands for the ratio of the dimensions, 32 / 12288 or 32
    / 2048. Default: 0, with --model features 0.002, as in the authors' runs"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z, of its shared part beside private latents. Default: 128, with features 64, as in the authors'
    runs"""
    n_private: int | None = None
    """number of private latents of each modality, for --fusion mmvae+ and poe (DMVAE). Default: 16, a choice of ours;
    none for poe without --obj dmvae"""
    n_clusters: int | None = None
    """clusters of the prior, for --fusion mmvae+ (CMVAE). Default: no clusters, MMVAE+"""
    batch_size: int = 64
    """examples in a batch, each an image with a caption. Default: as in the authors' runs"""
    epochs: int | None = None
    """passes over the captions. Default: 200, with features 50, as in the authors' runs"""
    lr: float = 1e-3
    """learning rate. Default: as in the authors' code; their README says 1e-4"""
    optimizer: OptimizerName = "amsgrad"

    def __post_init__(self) -> None:
        self.model = AUTHORS.get(self.model, self.model)
        super().__post_init__()
        record, defaults = self.record(), MODELS[self.model]._asdict()
        if record.fusion != "moe" or record.obj == "mmjsd":
            defaults["posterior"] = record.posterior
        defaults |= {"obj": record.obj or self.objectives()[0], "n_private": 16 if record.private else None}
        for name in ("posterior", "obj", "llik_scaling", "n_latents", "n_private", "epochs"):
            if getattr(self, name) is None:
                setattr(self, name, defaults[name])
        if self.K is None and self.obj in ("dreg", "iwae", "stl"):
            self.K = 50
        if isinstance(self.learn_prior, Unset):
            self.learn_prior = record == FUSIONS["moe"] and self.posterior not in choices.WITHOUT_SCALES

    def record(self) -> choices.Model:
        return model_of(self.fusion, self.obj, self.n_private, self.n_clusters)

    def assembly(self) -> choices.Assembly:
        if len(MODELS[self.model].modalities) == 1:
            return choices.Assembly(f"--model {self.model}", "own", self.posterior)
        return super().assembly()

    def check(self) -> None:
        model, fusion, _ = self.assembly()
        fuses = fusion != "own" or self.fusion == "moe"
        require(fuses, f"--fusion {self.fusion}: {model} has one expert, leave it out")
        super().check()
        require(not self.vocab or self.pre_trained, "--vocab needs --pre-trained with the authors' model: add it")


def experiment(config: Config) -> "Experiment":
    """Photographs or features of birds, and captions."""
    from cub.data import load
    from cub.model import build
    from cub.sample import draw
    from cub.trained_model import load_train
    from training import Experiment, objective_of

    return Experiment(
        "cub",
        load,
        build,
        objective_of,
        draw if config.analytics else None,
        load_train,
        examples=lambda config, birds, model: birds.examples.only(model.modalities),
    )


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    from cub import loglike
    from training import run  # imported here, like the others: --help does without torch

    finished = run(config, experiment(config))
    if config.logp:
        same = ("data_dir", "images_dir", "cache_dir", "demo", "limit", "seed", "cuda")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
