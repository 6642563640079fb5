"""The options that choose a model and its objective, which the experiments' Configs share."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from common.errors import option, require, require_positive
from common.models.choices import MODELS, PAIR_MODELS, Model
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS, check_fusion
from common.models.objectives import OBJECTIVES, check_objective, with_default

import tyro

DEFAULT_OBJECTIVE = "objective to maximise. None: the model's own, else the first of these that exists for it"


def choice(names: Iterable[str], text: str, known: Mapping[str, Any], or_none: bool = False) -> Any:  # noqa: ANN401 (a type)
    """The type of an option that is one of the names; its help has a line for each.

    Args:
        known: {name: a record with its summary}; other names have no line.
        or_none: whether None is allowed too.
    """
    lines = [text, *(f"{name}: {known[name].summary}" for name in names if name in known)]
    named = Literal[tuple(names)]
    return Annotated[named | None if or_none else named, tyro.conf.arg(help="\n".join(lines))]


def model_option(names: Iterable[str], text: str = "the model") -> Any:  # noqa: ANN401 (a type)
    """The type of an option that names a model."""
    return choice(names, text, MODELS)


def fusion_option(names: Iterable[str]) -> Any:  # noqa: ANN401 (a type)
    """The type of an option that names a fusion."""
    return choice(names, "how the experts are fused", FUSIONS)


def posterior_option(names: Iterable[str], text: str = "family of the experts and the prior") -> Any:  # noqa: ANN401
    """The type of an option that names a posterior family, or is None."""
    return choice(names, text, FAMILIES, or_none=True)


def objective_option(fusions: Iterable[str] = FUSIONS, text: str = DEFAULT_OBJECTIVE) -> Any:  # noqa: ANN401 (a type)
    """The type of an option that names an objective of some fusions, or is None."""
    names = [name for name, objective in OBJECTIVES.items() if not {*objective.fusions}.isdisjoint(fusions)]
    return choice(names, text, OBJECTIVES, or_none=True)


PosteriorOption = posterior_option(("gaussian", "laplace", "student-t", "vmf", "ebm"))


@dataclass(kw_only=True)
class ObjectiveOptions:
    """The options of objectives; `common.models.objectives` says which objective takes which.

    A Config has an option `fusion` or `model`, and its experts' family as `posterior`.
    """

    obj: objective_option() = None
    K: int | None = None
    """importance samples from each component of the posterior; from the whole posterior if it is energy-based.
    None: 30, as in MMVAE's paper; its script has 20"""
    looser: bool | None = None
    """average over a mixture's components outside the logarithm. None: as with --looser, as in MMVAE's paper"""
    dreg: Literal["exact", "stop-all", "published"] | None = None
    """gradient of --obj dreg. exact: unbiased, for mixtures too; stop-all: the paper's rule;
    published: the rule in the paper's code. None: exact"""
    approx_m: int = 0
    """number of random subsets, of 2 to M - 1 of the M modalities, whose ELBOs --obj mvae adds in each batch"""
    alpha: float | None = None
    """weight of the KLs between the joint posterior and those of single modalities. None: 0.1 (Suzuki et al. 2016).
    With --obj mvtcae the weight of its conditional terms, 0 to 1. None: 5/6, as in the authors' script for PolyMNIST.
    With --obj mmvm the weight of the KLs to the prior, 0 to 1. None: 0, as at the end of the authors' training"""

    def record(self) -> Model:
        """What there is to know about the config's model; with an option --fusion, of a model that has it."""
        if not hasattr(self, "fusion"):
            return MODELS[self.model]
        known = (model for model in MODELS.values() if model.fusion == self.fusion)
        return next(known, MODELS["mvae"]._replace(fusion=self.fusion))

    def named(self) -> str:
        """The option that names the model, for errors."""
        return f"--fusion {self.fusion}" if hasattr(self, "fusion") else f"--model {self.model}"

    def objectives(self) -> Sequence[str]:
        """Names of the objectives that exist for the config's model, the default first."""
        return with_default(self.record())

    def check(self) -> None:
        """Raise InputError for experts, an objective or options of it that do not exist for the model."""
        super().check()
        fusion, family = self.record().fusion, FAMILIES[self.posterior]
        check_fusion(fusion, family)
        exists = self.objectives()
        obj = self.obj or exists[0]
        check_objective(obj, exists, self.named(), family, self)
        in_range = obj not in ("mvtcae", "mmvm", "mmvm-mixture") or self.alpha is None or self.alpha <= 1
        require(in_range, f"--alpha must lie between 0 and 1 with --obj {obj}, it is {self.alpha}")
        enough = obj != "iwae" or family.has_density or self.K != 1
        require(enough, f"--obj iwae with {family.name} experts takes two samples or more: raise --K")
        averages = f"--looser takes the mean over a mixture's components, and {self.named()} is not a mixture"
        require(FUSIONS[fusion].is_mixture or not self.looser, f"{averages}: leave it out")
        scales = f"the prior of {family.name} experts has no scales to learn: leave out --learn-prior"
        require(not getattr(self, "learn_prior", False) or not family.fixed_prior, scales)
        require_positive(self, "K")


@dataclass(kw_only=True)
class PairModelOptions(ObjectiveOptions):
    """The models of two modalities by name."""

    model: model_option(PAIR_MODELS) = "mvae"
    posterior: PosteriorOption = "gaussian"
    approx_m: tyro.conf.Suppress[int] = 0  # two modalities have no other subsets

    def default_weight(self, papers: float) -> float:
        """The default weight of what is not the image: the paper's with --settings paper, if the model scores it."""
        return papers if self.settings == "paper" and not self.record().first_alone else 1.0

    def check(self) -> None:
        super().check()
        record = self.record()
        needs = f"--model {self.model} has no use for unpaired examples: leave --paired-fraction at 1"
        require(self.paired_fraction == 1 or record.unpaired, needs)
        for name in vars(self):
            unused = record.first_alone and name.startswith("lambda_") and name != "lambda_image"
            alone = f"--model {self.model} scores the image alone: leave out {option(name)}"
            require(not unused or getattr(self, name) == 1, alone)


@dataclass(kw_only=True)
class PrivateOptions(ObjectiveOptions):
    """Private latents, a prior of clusters, dependent experts; the config's `record` says who has them."""

    n_private: int | None = None
    """number of private latents of each modality"""
    n_clusters: int | None = None
    """number of clusters in --model cmvae's prior. None: 40, as in CMVAE's code"""
    rho: float | None = None
    """correlation of the errors of --model code's experts, 0 to 0.8. None: 0.4"""
    K: int | None = None
    """importance samples from each expert. None: 1 for mixtures with private latents, as in MMVAE+'s code, else 30"""

    def __post_init__(self) -> None:
        model = self.record()
        self.fill(n_clusters=40 if model.clusters else None, K=model.K)
        super().__post_init__()

    def check(self) -> None:
        """Raise InputError for private latents or clusters that the model does not have."""
        super().check()
        record, n = self.record(), self.n_private
        require(record.private or n is None, f"--n-private needs a model with private latents, not {self.named()}")
        sizes = n if isinstance(n, tuple | list) else (n,)  # one number for each modality, or one for all
        given = " ".join(map(str, sizes))
        require(not record.private or min(sizes) > 0, f"--n-private of {self.named()} must be positive, not {given}")
        fits = not record.private or FAMILIES[self.posterior].private_latents
        needs = f"private latents need another family: {self.posterior} experts have no parameters for each latent"
        require(fits, needs)
        unclustered = f"--n-clusters needs a model with a prior of clusters, not {self.named()}"
        require(record.clusters or self.n_clusters is None, unclustered)
        learns_scales = record.clusters and getattr(self, "learn_prior", False)
        require(not learns_scales, "a clustered prior has fixed scales: leave out --learn-prior")
        require_positive(self, "n_clusters")
        dependent = record.fusion == "code" or self.rho is None
        require(dependent, f"--rho needs a model with dependent experts, not {self.named()}: leave it out")


@dataclass(kw_only=True)
class MmvaeOptions(PrivateOptions):
    """What the experiments of MMVAE's paper share."""

    approx_m: tyro.conf.Suppress[int] = 0  # two modalities have no other subsets
    paired_fraction: tyro.conf.Suppress[float] = 1.0  # MMVAE's paper trains on pairs alone
    learn_prior: bool | None = None
    """learn the scales of the prior, which vmf and ebm do not have;
    not for poe, quotient, mopoe and jnf, whose posteriors hold N(0, I). None: as in MMVAE's paper;
    other models have a fixed prior, as in theirs"""
    llik_scaling: float | None = 0.0
    """weight of the first modality's log-likelihood;
    0, as in the paper: the second modality's number of dimensions divided by the first's"""
    analytics: bool = True
    """draw pictures during training"""
    logp: bool = False
    """after training, estimate the best model's log-likelihoods of the test split (python loglike.py)"""

    def check(self) -> None:
        super().check()
        scaling = self.llik_scaling
        require(scaling is None or scaling >= 0, f"--llik-scaling must not be negative, it is {scaling}")
        alone = not scaling or self.record().fusion != "own"
        require(alone, f"--llik-scaling: {self.named()} has one modality, leave it out")
