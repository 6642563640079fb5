"""The options that sample.py, loglike.py and analyse.py share: a trained model, and what to make of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from common import fitted_priors
from common.checkpoints import load_model
from common.data.batches import Examples
from common.errors import option, require, require_positive, require_seed
from common.execution import devices
from common.io import check_writable, folder_of
from common.latent_priors import Kind
from common.multimodal_vae import MultimodalVAE
from reports import sampling
from training.options import ComputeOptions, DataOptions

import tyro
from torch.distributions import Distribution


@dataclass
class ModelArgument:
    """The trained model; a class of its own, so that it stays the first argument of all configs."""

    model: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="MODEL")]] = None
    """a checkpoint, or a run's folder for its best model. The original authors' files work too"""
    save_dir: Path | None = field(default=None, kw_only=True)
    """the model, in place of MODEL, as in the MMVAE authors' scripts"""

    def __post_init__(self) -> None:
        """Move a --save-dir to `model`; raise InputError unless exactly one of the two is given."""
        given = [path for path in (self.model, self.save_dir) if path is not None]
        none = "no model is given: add a checkpoint or a run's folder, as MODEL or as --save-dir DIR"
        both = f"{self.model} and --save-dir {self.save_dir} both name a model: give one of them"
        require(len(given) == 1, both if given else none)
        (self.model,), self.save_dir = given, None


@dataclass
class ModelConfig(ComputeOptions, DataOptions, ModelArgument):
    """The options that all sample.py, loglike.py and analyse.py share."""

    def check(self) -> None:
        """Raise InputError for values that no call can have."""
        require_positive(self, *(name for name in ("limit", "n_samples") if hasattr(self, name)))
        require_seed(self)

    def trained_model(self, experiment: str) -> MultimodalVAE:
        """The model that the options name, on the device that they choose; see `common.checkpoints.load_model`."""
        return load_model(self.model, experiment).to(devices.select(self.cuda))


@dataclass(kw_only=True)
class SamplesConfig(ModelConfig):
    """The options of scripts that write pictures or texts."""

    out_dir: Path | None = None
    """folder to write to. None: samples/ beside the model"""

    @property
    def samples_dir(self) -> Path:
        """The folder to write to."""
        return self.out_dir or folder_of(self.model) / "samples"


@dataclass(kw_only=True)
class PriorSamplesConfig(SamplesConfig):
    """The options of scripts that draw from the prior.

    CONDITIONS: the options with which they draw nothing from it.
    STAND_INS: the options in the prior's place, of which a script takes one.
    SCORED: those of CONDITIONS that go with --latent-prior score (`reports.sampling.latents_given`).
    """

    CONDITIONS: ClassVar[tuple[str, ...]] = ()
    STAND_INS: ClassVar[tuple[str, ...]] = ("mixture", "latent_prior")
    SCORED: ClassVar[tuple[str, ...]] = ()

    mixture: int = 0
    """draw z from a mixture of this number of Gaussians, fitted to training latents, in place of the prior"""
    latent_prior: Kind | None = None
    """draw z from a density that `python -m tools.latent_prior` fitted to the model's latents: a masked autoregressive
    flow, or a score network. With --given a score network draws the latents of the other modalities (--model mmvm)"""

    def check(self) -> None:
        super().check()
        require(self.mixture >= 0, f"--mixture must not be negative, it is {self.mixture}")
        stand_ins = [name for name in self.STAND_INS if getattr(self, name) != getattr(type(self), name)]
        names = " and ".join(map(option, stand_ins))
        require(len(stand_ins) < 2, f"{names} both stand in for the prior: leave out one of them")
        for name in stand_ins:
            self.check_draws_from_prior(name)

    def path(self, given: Mapping[str, str] = {}) -> Path:
        """The picture of samples, named by what they are given, {modality: text}, or by what z is drawn from."""
        drawn_from = f"mixture_{self.mixture}" if self.mixture else self.latent_prior or "prior"
        return self.samples_dir / f"{sampling.name_of(given) if given else drawn_from}.png"

    def path_given(self, names: Sequence[str]) -> Path:
        """The picture of what is decoded given some modalities of test examples."""
        drawn_by = f"_{self.latent_prior}" if self.latent_prior else ""
        return self.samples_dir / f"from_{'_'.join(names)}{drawn_by}.png"

    def latents(self, model: MultimodalVAE, training: Callable[[], Examples]) -> Distribution | None:
        """The distribution of z in place of the prior, event shape (D,) or (M, D); None for the prior.

        Args:
            training: reads the training examples, to which --mixture fits its Gaussians.

        Raises:
            InputError: too few training examples, no file of --latent-prior, or a --cluster that the prior lacks.
        """
        if self.latent_prior:
            return fitted_priors.load(self.model, self.latent_prior, model)
        return sampling.gaussian_mixture(model, training(), self.mixture) if self.mixture else None

    def check_draws_from_prior(self, in_its_place: str) -> None:
        """Raise InputError for an option in the prior's place beside one that draws nothing from the prior."""
        by_score = self.SCORED if in_its_place == "latent_prior" and self.latent_prior == "score" else ()
        for name in self.CONDITIONS:
            is_given = getattr(self, name) not in (None, False, ()) and name not in by_score
            does_not = f"{option(name)} does not draw from the prior: leave one of them out"
            require(not is_given, f"{option(in_its_place)} stands in for the prior, and {does_not}")


@dataclass(kw_only=True)
class ClusterSamplesConfig(PriorSamplesConfig):
    """The options of sample.py in folders whose models include CMVAE."""

    STAND_INS: ClassVar = (*PriorSamplesConfig.STAND_INS, "cluster")

    cluster: int | None = None
    """draw z from this cluster of the prior alone, 0 to C - 1 (models of --model cmvae)"""

    def path(self, given: Mapping[str, str] = {}) -> Path:
        of_cluster = not given and self.cluster is not None
        return self.samples_dir / f"cluster_{self.cluster}.png" if of_cluster else super().path(given)

    def latents(self, model: MultimodalVAE, training: Callable[[], Examples]) -> Distribution | None:
        if self.cluster is None:
            return super().latents(model, training)
        return sampling.cluster_of(model.prior, self.cluster)


@dataclass(kw_only=True)
class ScoresConfig(ModelConfig):
    """The options of scripts that score a model."""

    json: Path | None = None
    """also write the figures to this file"""

    def check(self) -> None:
        super().check()
        if self.json is not None:
            folder = self.json.parent
            require(folder.is_dir(), f"--json {self.json}: there is no folder {folder}, make it or give another file")
            check_writable(self.json)


@dataclass
class LoglikeConfig(ScoresConfig):
    """The options of all loglike.py."""

    n_samples: Annotated[int, tyro.conf.arg(aliases=["--iwae-samples"])] = 1000
    """importance samples for each example, as in the papers"""
    tolerance: float | None = None
    """stop sampling an example when the standard errors of its estimates are below this number of nats;
    --n-samples is then the maximum.
    This lowers the estimates, by more than the square of that number where weights have heavy tails.
    None: take all samples"""

    @property
    def sampling(self) -> dict[str, float | None]:
        """The arguments of `common.estimators.importance_estimates` that these options give."""
        return {"n_samples": self.n_samples, "tolerance": self.tolerance}

    def check(self) -> None:
        super().check()
        require_positive(self, "tolerance")


@dataclass(kw_only=True)
class SubsetLikelihoodsConfig(LoglikeConfig):
    """The options of loglike.py for models with posteriors of many subsets of the modalities."""

    by_size: bool = False
    """also estimate log p(x_S) of every subset S of the modalities, and log p(x_T|x_S) of the others T.
    Means over the subsets of a size, each with samples of its q(z|x_S): 2^M - 1 estimates"""
    target: tuple[str, ...] = ()
    """also estimate log p(TARGET|GIVEN) of these modalities, or without --given log p(TARGET).
    (): with --given, all others"""
    given: tuple[str, ...] = ()
    """the modalities that --target is given"""
