"""The options that choose the model and its objective, which the experiments' Configs share."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import tyro

from common.errors import option, require, require_positive
from common.models.choices import FUSIONS, MODELS, PAIR_MODELS, Assembly, Model, check_learn_prior
from common.objectives import registry
from common.objectives.registry import OBJECTIVES


class Unset(int):
    """A default of True that the user did not set; saved as null."""

    def __str__(self) -> str:
        return "True"


ObjectiveName = Literal[tuple(OBJECTIVES)]


@dataclasses.dataclass(kw_only=True)
class ObjectiveOptions:
    """The options of objectives; `common.objectives.registry` says which objective takes which."""

    GROUP: ClassVar = "objective"
    FUSIONS: ClassVar[Sequence[str]] = tuple(FUSIONS)  # of a script's models, if it has no --fusion; for --help

    obj: ObjectiveName | None = None
    """objective to maximise. Default: the model's own, else the first of these that exists for it"""
    K: int | None = None
    """importance samples from each component of the posterior; from the whole posterior if it is energy-based. Default:
    30, as in MMVAE's paper; its script has 20"""
    looser: bool = Unset(True)
    """average over a mixture's components outside the logarithm. Default: as in MMVAE's paper"""
    dreg: Literal["exact", "stop-all", "published"] | None = None
    """gradient of --obj dreg. exact: unbiased, for mixtures too; stop-all: the paper's rule; published: the rule in the
    paper's code. Default: exact"""
    approx_m: int = 0
    """number of random subsets, of 2 to M - 1 of the M modalities, whose ELBOs --obj mvae adds in each batch"""
    alpha: float | None = None
    """weight of the KLs between the joint posterior and those of single modalities; for --obj mvtcae the weight of its
    conditional terms, 0 to 1. Default: 0.1, as in Suzuki et al. 2016; for mvtcae 5/6, as in the authors' script
    for PolyMNIST"""

    # {option: options whose defaults from another run are dropped if it changes}
    DEPEND_ON: ClassVar = {"obj": ("K", "looser", "dreg", "approx_m", "alpha")}

    def assembly(self) -> Assembly:
        """How the config's model is assembled."""
        return Assembly(f"--fusion {self.fusion}", self.fusion, self.posterior)

    def objectives(self) -> Sequence[str]:
        """Names of the objectives that exist for the config's model, the default first."""
        return registry.objectives_of(self.assembly().fusion)

    def check(self) -> None:
        """Raise InputError for experts, an objective or options of it that do not exist for the model."""
        super().check()
        model, fusion, posterior = self.assembly()
        self.check_objective(model, self.objectives(), fusion, posterior)

    def objective_name(self, exists: Sequence[str]) -> str:
        """The objective's name: the default is the first one that exists."""
        return self.obj or exists[0]

    def check_objective(self, model: str, exists: Sequence[str], fusion: str, posterior: str) -> None:
        """Refuse fusions, objectives and options that do not exist for a model.

        Args:
            model: the option that names the model ("--model mvae").
            exists: names of the model's objectives, the default first.
            fusion, posterior: names in `common.models.fusions.FUSIONS` and `common.models.families.FAMILIES`.

        Raises:
            InputError: says why, and what exists.
        """
        from common.models.families import FAMILIES  # needs torch, which --help does without
        from common.models.fusions import FUSIONS, check_fusion

        obj, family = self.objective_name(exists), FAMILIES[posterior]
        check_fusion(fusion, family)
        registry.check_objective(obj, tuple(exists), model, family)
        registry.check_options(obj, self._given_options())
        require(
            FUSIONS[fusion].is_mixture or isinstance(self.looser, Unset) or not self.looser,
            f"--looser takes the mean over a mixture's components, and {model} is not a mixture: leave it out",
        )
        require_positive(self, "K")
        for name in ("approx_m", "alpha"):
            value = getattr(self, name)
            require(value is None or value >= 0, f"{option(name)} must not be negative, it is {value}")
        most = OBJECTIVES[obj].max_alpha
        in_range = self.alpha is None or self.alpha <= most
        require(in_range, f"--obj {obj} needs --alpha between 0 and {most:g} (got {self.alpha})")
        require(
            family.has_density or obj != "iwae" or self.K != 1,
            "--obj iwae with --posterior ebm needs --K 2 or more (got 1): --obj elbo is the same bound with less noise",
        )

    def _given_options(self) -> tuple[str, ...]:
        """Names of the objectives' options that the user gave; --K 1 does not count, since all take it."""
        asks = {
            "K": self.K not in (None, 1),
            "looser": bool(self.looser) and not isinstance(self.looser, Unset),
            "dreg": self.dreg is not None,
            "approx_m": self.approx_m != 0,
            "alpha": self.alpha is not None,
        }
        return tuple(name for name, asked in asks.items() if asked)


class NamedModels(ObjectiveOptions):
    """The models that --model names, and their objectives."""

    MODELS: ClassVar[Mapping[str, Model]] = MODELS  # of --model

    def assembly(self) -> Assembly:
        return Assembly(f"--model {self.model}", self.record().fusion, self.posterior)

    def objectives(self) -> Sequence[str]:
        return registry.with_default(self.record().obj, super().objectives())

    def record(self) -> Model:
        """What there is to know about the config's model."""
        return self.MODELS[self.model]

    def check_objective(self, model: str, exists: Sequence[str], fusion: str, posterior: str) -> None:
        """Also name the models that can have the family, if the chosen one cannot."""
        from common.models.families import FAMILIES  # needs torch, which --help does without
        from common.models.fusions import FUSIONS

        family = FAMILIES[posterior]

        def can(other: Model) -> bool:
            takes_it = family.is_gaussian or not OBJECTIVES[registry.default_of(other)].gaussian
            return takes_it and FUSIONS[other.fusion].exists(family)

        able = [name for name, other in self.MODELS.items() if can(other)]
        reason = f"{model} cannot have {posterior} experts ({FUSIONS[fusion].why}): {', '.join(able)} can"
        require(FUSIONS[fusion].exists(family), reason)
        super().check_objective(model, exists, fusion, posterior)


@dataclasses.dataclass(kw_only=True)
class PrivateOptions(ObjectiveOptions):
    """Private latents of the modalities, and a prior of clusters; for configs whose `record` says who has them."""

    GROUP: ClassVar = "model"
    WITH_PRIVATE: ClassVar = "--model dmvae, mmvae+ or cmvae"  # the options of models that have them, for errors
    WITH_CLUSTERS: ClassVar = "--model cmvae"
    DEPEND_ON: ClassVar = ObjectiveOptions.DEPEND_ON | {"model": ("obj", "n_private", "n_clusters")}

    n_private: int | None = None
    """number of private latents of each modality"""
    n_clusters: int | None = None
    """number of clusters in --model cmvae's prior. Default: 40, as in CMVAE's code"""
    K: int | None = None
    """importance samples from each expert. Default: 1 for --model mmvae+ and cmvae, as in MMVAE+'s code, else 30"""

    def __post_init__(self) -> None:
        super().__post_init__()
        model = self.record()
        if self.n_clusters is None and model.clusters:
            self.n_clusters = 40
        if self.K is None:
            self.K = model.K

    def check(self) -> None:
        """Raise InputError for private latents or clusters that the model does not have."""
        from common.models.families import FAMILIES  # needs torch, which --help does without

        super().check()
        (model, _, posterior), record, n = self.assembly(), self.record(), self.n_private
        require(record.private or n is None, f"--n-private needs {self.WITH_PRIVATE} (got {model})")
        sizes = n if isinstance(n, tuple) else (n,)  # one number for each modality, or one for all
        given = " ".join(map(str, sizes))
        require(not record.private or min(sizes) > 0, f"--n-private of {model} must be positive, not {given}")
        fits = not record.private or FAMILIES[posterior].private_latents
        require(fits, f"private latents need another family: {posterior} experts have no parameters for each latent")
        n = self.n_clusters
        require(record.clusters or n is None, f"--n-clusters needs {self.WITH_CLUSTERS} (got {model})")
        require(n is None or n > 0, f"--n-clusters must be positive, not {n}")


@dataclasses.dataclass(kw_only=True)
class ModelOptions(NamedModels):
    """The models of two modalities by name, and their objectives."""

    GROUP: ClassVar = "model"
    DEPEND_ON: ClassVar = ObjectiveOptions.DEPEND_ON | {"model": ("obj",)}
    MODELS: ClassVar = {name: MODELS[name] for name in PAIR_MODELS}

    model: Literal[PAIR_MODELS] = "mvae"
    """the model"""
    posterior: Literal["gaussian", "laplace", "vmf", "ebm"] = "gaussian"
    """family of the experts and the prior"""
    approx_m: tyro.conf.Suppress[int] = 0  # two modalities have no other subsets

    def check(self) -> None:
        super().check()
        require(
            self.paired_fraction == 1 or self.record().unpaired,
            f"--model {self.model} has no use for unpaired examples: leave --paired-fraction at 1",
        )
        if self.record().first_alone:
            lambdas = (field for field in dataclasses.fields(self) if field.name.startswith("lambda_"))
            for field in (field for field in lambdas if field.name != "lambda_image"):
                default = getattr(self, field.name) in (field.default, (self.PAPER or {}).get(field.name))
                require(default, f"--model {self.model} scores the image alone: leave out {option(field.name)}")


@dataclasses.dataclass(kw_only=True)
class MmvaeOptions(PrivateOptions):
    """What the experiments of MMVAE's paper share."""

    GROUP: ClassVar = "model"
    GROUPS: ClassVar = {"objective": ("llik_scaling",), "run": ("analytics", "logp")}

    approx_m: tyro.conf.Suppress[int] = 0  # two modalities have no other subsets
    paired_fraction: tyro.conf.Suppress[float] = 1.0  # MMVAE's paper trains on pairs alone
    learn_prior: bool = Unset(True)
    """learn the scales of the prior. Not for vmf and ebm, whose priors have none, and not for products of experts and
    prior and jnf, whose posteriors hold N(0, I). Default: as in MMVAE's paper; other models have a fixed prior, as in
    theirs"""
    llik_scaling: float | None = 0.0
    """weight of the first modality's log-likelihood; 0: the second modality's number of dimensions divided by the
    first's. Default: as in the paper"""
    analytics: bool = True
    """draw pictures during training"""
    logp: bool = False
    """after training, estimate the best model's log-likelihoods of the test split (python loglike.py)"""

    def check(self) -> None:
        super().check()
        scaling, (model, fusion, posterior) = self.llik_scaling, self.assembly()
        in_range = scaling is None or 0 <= scaling < math.inf
        require(in_range, f"--llik-scaling must be a number that is not negative, it is {scaling}")
        require(not scaling or fusion != "own", f"--llik-scaling: {model} has one modality, leave it out")
        fixed = self.n_clusters is not None
        require(not fixed or not self.learn_prior, "a prior of clusters has fixed scales: leave out --learn-prior")
        check_learn_prior(self.learn_prior, model, fusion, posterior)
