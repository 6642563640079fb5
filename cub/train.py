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
from typing import Annotated, Literal

from common.errors import require
from common.model_data import modelled
from common.models.choices import Model
from common.models.families import FAMILIES
from cub import loglike
from cub.data import load
from cub.model import build
from cub.options import AUTHORS, FUSIONS, MODELS, POSTERIORS, TrainingBirdOptions, model_of
from cub.sample import draw
from cub.trained_model import load_train
from training import Experiment, objective_of, run, run_from_command_line
from training.model_options import MmvaeOptions, fusion_option, objective_option, posterior_option
from training.options import LATENT_NAMES, OptimizerName, RunConfig


@dataclass
class Config(TrainingBirdOptions, MmvaeOptions, RunConfig):
    """The defaults are those of the authors' runs, or else of their code."""

    model: Literal["images", "features", "image", "feature", "caption", "cubIS", "cubISft"] = "images"
    """images, also cubIS: photographs and captions;
    features, also cubISft: ResNet-101's features of photographs, and captions;
    image, feature, caption: a VAE of this modality alone"""
    fusion: fusion_option(FUSIONS) = "moe"
    posterior: posterior_option(
        POSTERIORS,
        "family of the experts and the prior. None: laplace for --fusion mmvae+; for moe, except with --obj mmjsd, as "
        "in the authors' code: laplace-normal for --model images (image Laplace, caption Gaussian) and softplus-normal "
        "for features; otherwise gaussian",
    ) = None
    obj: objective_option(
        FUSIONS,
        "objective to maximise. None: dreg for --fusion moe and mopoe, as in the paper; mvae for poe, mvtcae for "
        "product, jmvae for joint, jnf for jnf, elbo-one for mopoe-published, iwae for mmvae+",
    ) = None
    K: int | None = None
    """samples from each encoder, for --obj dreg, iwae and stl. None: 50, as in the authors' runs;
    1 for --fusion mmvae+, as in its code, and with --demo"""
    llik_scaling: float | None = None
    """weight of the image's or the feature's log-likelihood;
    0 stands for the ratio of the dimensions, 32 / 12288 or 32 / 2048.
    None: 0, with --model features 0.002, as in the authors' runs"""
    num_hidden_layers: Literal[1] = 1
    """the authors' code takes any number, but its networks of birds do not depend on it: leave it at 1"""
    n_latents: Annotated[int | None, LATENT_NAMES] = None
    """dimensions of z, of its shared part beside private latents.
    None: 128, with features 64, as in the authors' runs"""
    n_private: int | None = None
    """number of private latents of each modality, for --fusion mmvae+ and poe (DMVAE).
    None: 16, a choice of ours; none for poe without --obj dmvae"""
    n_clusters: int | None = None
    """clusters of the prior, for --fusion mmvae+ (CMVAE). None: no clusters, MMVAE+"""
    batch_size: int = 64
    """examples in a batch, each an image with a caption"""
    epochs: int | None = None
    """passes over the captions. None: 200, with features 50, as in the authors' runs"""
    lr: float = 1e-3
    """learning rate; the authors' README says 1e-4"""
    optimizer: OptimizerName = "amsgrad"

    def __post_init__(self) -> None:
        self.model = AUTHORS.get(self.model, self.model)
        record, named = self.record(), MODELS[self.model]
        as_published = record._replace(fusion=self.fusion) == FUSIONS["moe"]
        self.fill(
            posterior=named.posterior if as_published else record.posterior,
            obj=record.obj or self.objectives()[0],
            llik_scaling=named.llik_scaling,
            n_latents=named.n_latents,
            n_private=16 if record.private else None,
            epochs=named.epochs,
            K=record.K,
        )
        self.fill(
            K=50 if self.obj in ("dreg", "iwae", "stl") else None,
            learn_prior=as_published and not FAMILIES[self.posterior].fixed_prior,
        )
        super().__post_init__()

    def record(self) -> Model:
        fusion = "own" if len(MODELS[self.model].modalities) == 1 else self.fusion
        return model_of(self.fusion, self.obj, self.n_private, self.n_clusters)._replace(fusion=fusion)

    def named(self) -> str:
        return f"--model {self.model}" if self.record().fusion == "own" else super().named()

    def check(self) -> None:
        fuses = self.record().fusion != "own" or self.fusion == "moe"
        require(fuses, f"--fusion {self.fusion}: --model {self.model} has one expert, leave it out")
        super().check()
        require(not self.vocab or self.pre_trained, "--vocab needs --pre-trained with the authors' model: add it")


PAPER = Config(settings="paper")
DEMO = Config(demo=True, model="features", epochs=5, batch_size=16, limit=600, K=1)


def experiment(config: Config) -> Experiment:
    """Photographs or features of birds, and captions."""
    return Experiment(
        "cub",
        load,
        build,
        objective_of,
        draw if config.analytics else None,
        load_train,
        examples=lambda config, birds, model: modelled(config, birds.examples, model),
    )


def main(config: Config) -> None:
    """Train a model, and with --logp estimate its log-likelihoods."""
    finished = run(config, experiment(config))
    if config.logp:
        same = ("data_dir", "images_dir", "cache_dir", "demo", "limit", "seed", "cuda")
        loglike.main(loglike.Config(finished.dir, **{name: getattr(config, name) for name in same}))


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__, paper=PAPER, demo=DEMO)
