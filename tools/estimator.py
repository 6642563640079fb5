"""Multimodal VAEs for people with arrays, tables or MuData, in the words of scikit-learn.

    vae = MultimodalEstimator({"rna": Continuous(120), "cell": Labels(("B", "T", "NK"))})
    vae.fit({"rna": rna, "cell": cell})                      # arrays, tensors, DataFrames or a MuData object
    z = vae.transform({"rna": rna})                          # latent means, (N, 16)
    cell = vae.predict({"rna": rna}, "cell")                 # one modality from the others
    whole = vae.impute({"rna": rna, "cell": cell})           # missing cells filled, and nothing else

Rows are examples. NaN is a missing cell, None a missing class. DataFrames whose rows differ are joined by their index:
a modality is absent from the rows that its table lacks.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Annotated, Any, Self

from common.checkpoints import BEST, FORMAT, NetworkOptions, load_config, load_model
from common.data import Examples
from common.data.batches import is_missing
from common.data.scales import Scales, in_units, scales_of, standardised
from common.data.splits import hold_out
from common.errors import require, require_names
from common.estimators import importance_estimates
from common.execution import devices
from common.execution.random_states import fixed_noise
from common.io import save_tensors, write_atomically
from common.likelihoods import GroupedLikelihood
from common.models import VAE, MultimodalVAE
from common.models.choices import MODELS
from reports.metrics import divergences
from reports.tables import FEW_EFFECTIVE
from tools.kinds import (
    Continuous,
    Counts,
    Image,
    Kind,
    Labels,
    Rows,
    filled,
    in_frame,
    into_mudata,
    is_mudata,
    present,
    read,
)
from training import Experiment, objective_of, run
from training.model_options import ObjectiveOptions
from training.options import RunConfig
from training.parallel import logged

import msgspec
import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

__all__ = ["Continuous", "Counts", "Image", "Labels", "MultimodalEstimator"]

EXPERIMENT, BATCH_SIZE = "estimator", 100
# their posteriors exist for every subset, and their latents are shared
NAMES = (
    "mvae",
    "mmvae",
    "mopoe",
    "mopoe-published",
    "mvtcae",
    "crmvae",
    "mmjsd",
    "hoelder",
    "helvae",
    "wb",
    "mwb",
    "code",
)
LEAST_KL, LEAST_GAIN = 0.05, 0.01  # of a modality that has not collapsed: nats, and of R^2 or accuracy
FEWEST_JUDGED, MOST_JUDGED = 30, 1000  # rows by which a collapse is told
MOST_MODALITIES = 500  # thousands take half a minute to build
Kinds = Annotated[dict[str, Kind], msgspec.Meta(max_length=MOST_MODALITIES)]
Networks = Mapping[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]]


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    modalities: Kinds = msgspec.field(default_factory=dict)
    columns: dict[str, list[str]] = msgspec.field(default_factory=dict)
    scales: Scales = msgspec.field(default_factory=dict)


@dataclass
class Config(ObjectiveOptions, RunConfig):
    """A run of the estimator.

    columns: the names of the columns of modalities that were DataFrames.
    lambdas: weights of the modalities' log-likelihoods.
    """

    model: str
    modalities: dict[str, Kind]
    columns: dict[str, list[str]]
    scales: Scales
    lambdas: dict[str, float]
    device: str
    posterior: str = "gaussian"

    def select_device(self) -> torch.device:
        devices.select(self.device == "cuda")
        return torch.device(self.device)

    def weights(self, model: MultimodalVAE) -> dict[str, float]:
        return self.lambdas


def build(config: SimpleNamespace, networks: Networks | None = None) -> MultimodalVAE:
    """Build the model of the config's modalities, some of them with networks of their own."""
    kinds, d = msgspec.convert(config.modalities, dict[str, Kind]), config.n_latents
    made = {name: (kind.encoder(d), kind.decoder(d)) for name, kind in kinds.items()}
    made |= {name: tuple(make(d) for make in pair) for name, pair in (networks or {}).items()}
    encoders, decoders = ({name: pair[i] for name, pair in made.items()} for i in range(2))
    likelihood = GroupedLikelihood(**{name: kind.likelihood() for name, kind in kinds.items()})
    return VAE(MODELS[config.model].fusion, encoders, decoders, likelihood, d)


class MultimodalEstimator(TransformerMixin, BaseEstimator):
    """A multimodal VAE of arrays by name.

    Args:
        modalities: {name: Continuous(columns), Counts(columns), Labels(classes) or Image(channels, height, width)}.
        model, n_latents, objective, beta: see docs/models.md; None: the model's own objective.
        networks: {name: (make_encoder, make_decoder)}, each a function of n_latents that makes a module, in place of
            the modality's own: x (N, ...) -> mean and log-variance (N, n_latents), z -> what its likelihood takes.
        weights: {name: weight of the modality's log-likelihood}; 1 by default.
        epochs, batch_size, lr: of Adam.
        validation_fraction, patience: a random share of the rows chooses the best epoch; training ends after `patience`
            epochs without a better one. 0: no rows, and all epochs.
        device: "cpu" or "cuda".
        random_state: seed of all draws.
        save_dir: folder of the run, which must be empty; None: a temporary one.
        verbose: show progress.

    Attributes:
        model_: the `MultimodalVAE`.
        history_: a line an epoch, of metrics.jsonl; `load` leaves it out.
        about_: the run's options, versions and commit.
    """

    def __init__(
        self,
        modalities: Mapping[str, Kind],
        model: str = "mvtcae",
        n_latents: int = 16,
        objective: str | None = None,
        beta: float = 1.0,
        networks: Networks | None = None,
        weights: Mapping[str, float] | None = None,
        epochs: int = 200,
        batch_size: int = 64,
        lr: float = 1e-3,
        validation_fraction: float = 0.1,
        patience: int | None = 20,
        device: str = "cpu",
        random_state: int = 0,
        save_dir: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        self.modalities = modalities
        self.model = model
        self.n_latents = n_latents
        self.objective = objective
        self.beta = beta
        self.networks = networks
        self.weights = weights
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.random_state = random_state
        self.save_dir = save_dir
        self.verbose = verbose

    def fit(self, X: Any, y: object = None, *, mask: Mapping[str, Any] | None = None) -> Self:  # noqa: ANN401 (arrays, tables, MuData)
        """Train on rows, some of them incomplete. The caller's random state stays as it was.

        Args:
            y: not used; scikit-learn's pipelines give it.
            X: {name: (N, ...)}, or MuData with the names among its modalities, obsm or obs.
            mask: {name: (N,) bool}, False where a row lacks the modality.

        Raises:
            InputError: options or values that cannot be used.
        """
        odd = [name for name, kind in self.modalities.items() if not isinstance(kind, Kind)]
        require(not odd, f"modalities must be Continuous(N), Counts(N), Labels(N) or Image(C, H, W), not {odd}")
        require(
            len(self.modalities) <= MOST_MODALITIES,
            f"modalities are {len(self.modalities)}: give {MOST_MODALITIES} at most",
        )
        require(self.model in NAMES, f"model must be one of {', '.join(NAMES)}, not {self.model!r}")
        check_device(self.device)
        require(
            0 <= self.validation_fraction < 1,
            f"validation_fraction must lie in [0, 1), it is {self.validation_fraction}",
        )
        whole = isinstance(self.random_state, int | np.integer)
        self.seed_ = int(self.random_state) if whole else int(check_random_state(self.random_state).randint(2**31))
        rows = read(X, self.modalities)
        lacking = [name for name in self.modalities if name not in rows.tensors]
        require(not lacking, f"X lacks {', '.join(lacking)}: give all of the modalities, NaN where rows lack them")
        examples = Examples(masked(rows, mask))
        tables = [name for name, kind in self.modalities.items() if type(kind) is Continuous]
        examples = examples.take(torch.randperm(len(examples), generator=torch.Generator().manual_seed(self.seed_)))
        n_valid = round(self.validation_fraction * len(examples))
        with TemporaryDirectory() if self.save_dir is None else nullcontext(self.save_dir) as folder:
            config = Config(
                model=self.model,
                obj=self.objective,
                n_latents=int(self.n_latents),
                beta=float(self.beta),
                epochs=int(self.epochs),
                batch_size=int(self.batch_size),
                lr=float(self.lr),
                patience=int(self.patience) if self.patience and n_valid else None,
                valid=n_valid,
                seed=self.seed_,
                device=self.device,
                save_dir=Path(folder),
                modalities=dict(self.modalities),
                columns=rows.columns,
                scales=scales_of(examples, tables, "give rows that have it"),
                lambdas={name: float(x) for name, x in (self.weights or {}).items()},
            )
            require(not (Path(folder) / BEST).exists(), f"save_dir {folder} holds a run: give another folder")
            held = hold_out(standardised(examples, config.scales), n_valid)
            made = partial(build, networks=self.networks)
            experiment = Experiment(EXPERIMENT, lambda *_: held[0], made, objective_of, None, lambda config: held)
            quiet = nullcontext() if self.verbose else logged(config.save_dir)
            with quiet, fixed_noise(self.seed_, torch.device(self.device)):
                finished = run(config, experiment)
                self._take(load_model(finished.dir, EXPERIMENT, made), finished.about)
            self.history_ = finished.metrics
        judged = held[1] if n_valid >= FEWEST_JUDGED else held[0]
        self._warn_of_collapse(judged.take(slice(MOST_JUDGED)))
        return self

    def _take(self, model: MultimodalVAE, about: dict[str, Any]) -> None:
        """Keep a trained model and the facts of its run."""
        self.about_, self.model_, self.seed_ = about, model.to(torch.device(self.device)), about["config"]["seed"]
        options = msgspec.convert(about["config"], Options, strict=False)
        self.scales_, self.columns_ = options.scales, options.columns

    def transform(self, X: Any, given: Sequence[str] | None = None) -> Any:  # noqa: ANN401
        """The mean of q(z|x) of each row, (N, n_latents), by what the row has; `given`: by these modalities alone.

        A DataFrame with the joined index where X has tables.
        """
        rows = self.rows(X)
        with torch.no_grad():
            batches = self.examples(rows).batches(BATCH_SIZE)
            means = torch.cat([self.model_.posterior(batch, given).mean.cpu() for batch in batches])
        names = None if rows.index is None else list(self.get_feature_names_out())
        return in_frame(means.numpy(), names, rows.index)

    def predict(
        self,
        X: Any,  # noqa: ANN401
        target: str | Sequence[str],
        given: Sequence[str] | None = None,
        n_draws: int = 50,
    ) -> Any:  # noqa: ANN401 (an array or a table, or several by name)
        """What modalities are expected to be, given others: E[x_target|x_given], of classes the most probable one.

        Args:
            target: a name, or several, whose predictions are then returned by name.
            given: by default all modalities of X but the target.
            n_draws: of z, whose mean a prediction is.
        """
        require_names(given)
        rows, names = self.rows(X), (target,) if isinstance(target, str) else tuple(target)
        unknown = [name for name in names if name not in self.modalities]
        require(not unknown, f"there is no modality {', '.join(unknown)}: there are {', '.join(self.modalities)}")
        given = tuple(given or (name for name in rows.tensors if name not in names))
        require(
            len(given) > 0, f"X has {', '.join(names)} alone, and nothing to predict it from: give other modalities"
        )
        found = self.values(self.expected(self.examples(rows), names, given, n_draws))
        found = {name: in_frame(x, self.columns_.get(name), rows.index) for name, x in found.items()}
        return found[target] if isinstance(target, str) else found

    def impute(self, X: Any, n_draws: int = 50) -> Any:  # noqa: ANN401 (as X)
        """X with its missing cells filled, by what each row has, and nothing else changed.

        A DataFrame gets the rows that other tables have. A MuData object is copied, with the rows that it has.
        """
        rows = self.rows(X)
        lacking = {name: gaps for name, x in rows.tensors.items() if (gaps := is_missing(x).numpy()).any()}
        tables = dict(rows.tables)
        if lacking:
            predicted = self.expected(self.examples(rows), tuple(lacking), tuple(rows.tensors), n_draws)
            guesses = self.values(predicted)
            tables |= {name: filled(tables[name], gaps, guesses[name]) for name, gaps in lacking.items()}
        if is_mudata(X):
            return into_mudata(X.copy(), {name: tables[name] for name in lacking})
        return {
            name: x[list(X[name].columns)] if getattr(x, "ndim", 0) == 2 and hasattr(x, "iloc") else x
            for name, x in tables.items()
        }

    def sample(self, n: int = 1, given: Any = None, names: Sequence[str] | None = None) -> dict[str, Any]:  # noqa: ANN401
        """Draws of all modalities from the prior, (n, ...) each; given X, of x|X, arrays (n, N, ...).

        Args:
            names: of the modalities to draw; by default all.
        """
        check_is_fitted(self)
        require(n > 0, f"n must be positive, not {n}")
        with drawing(self.seed_, self.model_.device):
            if given is None:
                zs, dim = [self.model_.draw_latents(n)], 0
            else:
                batches = self.examples(self.rows(given)).batches(BATCH_SIZE)
                zs, dim = [self.model_.posterior(batch).sample((n,)) for batch in batches], 1
            parts = [
                {name: self.modalities[name].drawn(p) for name, p in self.model_.decode(z, names).items()} for z in zs
            ]
        values = self.values({name: torch.cat([part[name] for part in parts], dim) for name in parts[0]})
        columns = self.columns_ if given is None else {}
        return {name: in_frame(x, columns.get(name), None) for name, x in values.items()}

    def score_samples(self, X: Any, n_samples: int = 1000) -> tuple[Any, Any]:  # noqa: ANN401
        """log p(x) of what each row has, and its standard error by the importance weights, (N,) each.

        In nats, and in the units of the data, pixels in [0, 1]. Series where X has tables. One sample has no standard
        error: NaN. Warns of rows whose estimate rests on few effective samples, which may be far too low.
        """
        rows = self.rows(X)
        log_p, stderr, ess = self.estimates(rows, n_samples)
        few = int((ess < FEW_EFFECTIVE).sum())
        if few:
            rest = f"fewer than {FEW_EFFECTIVE} effective samples, the fewest {ess.min():.1f} of {n_samples}"
            warnings.warn(f"log p of {few} of {len(ess)} rows rests on {rest}: raise n_samples", stacklevel=2)
        return tuple(in_frame(x.numpy(), None if rows.index is None else (), rows.index) for x in (log_p, stderr))

    def estimates(self, rows: Rows, n_samples: int) -> tuple[Tensor, Tensor, Tensor]:
        """log p of what each row has, its standard error, and the effective number of samples, (N,) each."""
        estimates = []
        with drawing(self.seed_, self.model_.device):
            for batch in map(self.model_.observe, self.examples(rows).batches(BATCH_SIZE)):
                has = tuple(batch.modalities) if batch.mask is None else batch.mask
                estimates += importance_estimates(self.model_, batch, [has], has, n_samples)
        log_p, stderr, ess = (
            torch.cat([getattr(x, name) for x in estimates]).double().cpu() for name in ("value", "stderr", "ess")
        )
        for name in (name for name in self.scales_ if name in rows.tensors):
            deviation = torch.tensor(self.scales_[name], dtype=torch.float64)[:, 1]
            log_p -= (~rows.tensors[name].isnan()).double() @ deviation.log()
        return log_p, stderr, ess

    def save(self, folder: str | Path) -> None:
        """Write the model as a run's folder, which `load` and `common.checkpoints.load_model` read."""
        check_is_fitted(self)
        path = Path(folder) / BEST
        require(not path.exists(), f"{path} exists: give another folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(path, self.about_ | {"state_dict": self.model_.state_dict()})
        write_atomically(path.with_name("config.json"), json.dumps(self.about_, indent=2).encode())

    @classmethod
    def load(cls, folder: str | Path, networks: Networks | None = None, device: str = "cpu") -> Self:
        """The estimator of a folder of `save`, or of save_dir; `networks` as it was given."""
        check_device(device)
        config = load_config(folder, EXPERIMENT)
        options = msgspec.convert(config, Options, strict=False)
        named = {x: config[x] for x in ("model", "n_latents", "beta", "epochs", "batch_size", "lr", "patience")}
        found = cls(
            options.modalities,
            objective=config["obj"],
            weights=config["lambdas"] or None,
            networks=networks,
            random_state=config["seed"],
            device=device,
            **named,
        )
        about = {"experiment": EXPERIMENT, "config": config, "format": FORMAT}
        found._take(load_model(folder, EXPERIMENT, partial(build, networks=networks)), about)
        return found

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """The names of the latents, z0, z1, ..., for set_output."""
        check_is_fitted(self)
        return np.array([f"z{i}" for i in range(self.n_latents)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def rows(self, X: Any) -> Rows:  # noqa: ANN401
        """X as tensors, tables joined."""
        check_is_fitted(self)
        return read(X, self.modalities, self.columns_)

    def examples(self, rows: Rows) -> Examples:
        """Rows as the model takes them, on its device: standardised."""
        return standardised(Examples(rows.tensors), self.scales_).to(self.model_.device)

    def expected(
        self, examples: Examples, names: Sequence[str], given: Sequence[str], n_draws: int
    ) -> dict[str, Tensor]:
        """E[x|x_given] of the modalities named, (N, ...), standardised, of `examples`."""
        require(n_draws > 0, f"n_draws must be positive, not {n_draws}")
        parts = []
        with drawing(self.seed_, self.model_.device):
            for batch in examples.batches(BATCH_SIZE):
                p = self.model_.decode(self.model_.posterior(batch, given).sample((n_draws,)), names)
                parts.append({name: self.modalities[name].expected(p[name]).cpu() for name in names})
        return {name: torch.cat([part[name] for part in parts]) for name in names}

    def values(self, x: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Standardised values in the user's units and words."""
        return {name: self.modalities[name].values(x) for name, x in in_units(x, self.scales_).items()}

    def _warn_of_collapse(self, examples: Examples) -> None:
        """Name the modalities that the latents do not hold, by standardised examples."""
        names = self.model_.modalities
        found = self.expected(examples.to(self.model_.device), names, names, 10)
        kls = divergences(self.model_, examples, {name: (name,) for name in names})
        for name, kind in self.modalities.items():
            x = examples.modalities[name]
            if present(x).sum() < FEWEST_JUDGED:
                continue
            score, chance = kind.score(x, found[name]), kind.chance(x)
            kl = kls[f"KL(q(z|{name}) || p(z))"].sum(dim=1).nanmean().item()
            found_to = f"decoded from all modalities it has the score {score:.3f}, a constant {chance:.3f}"
            why = found_to if score < chance + LEAST_GAIN else f"its KL is {kl:.3f} nats" if kl < LEAST_KL else ""
            if why:
                remedy = "train for more epochs, or give it more weight (weights)"
                warnings.warn(f"{name} collapsed, {why}: {remedy}", stacklevel=3)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Draws from the seed, without gradients; the caller's random state stays as it was."""
    with torch.no_grad(), fixed_noise(seed, device):
        yield


def masked(rows: Rows, mask: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """The values, missing where a modality's mask (N,) is False."""
    tensors = dict(rows.tensors)
    for name, there in (mask or {}).items():
        require(name in tensors, f"the mask names {name}, which X lacks: it has {', '.join(tensors)}")
        if hasattr(there, "reindex") and rows.index is not None:
            there = there.reindex(rows.index, fill_value=False)
        x, there = tensors[name], torch.as_tensor(np.asarray(there))
        fits = there.dtype == torch.bool and there.shape == x.shape[:1]
        kind = f"{there.dtype} of {tuple(there.shape)}"
        require(fits, f"the mask of {name} must be bool of shape ({len(x)},), not {kind}")
        absent = torch.nan if x.is_floating_point() else -1
        tensors[name] = x.masked_fill(~there.view(-1, *[1] * (x.dim() - 1)), absent)
    return tensors


def check_device(device: str) -> None:
    """Raise InputError for a device that is not here."""
    require(device in ("cpu", "cuda"), f"device must be cpu or cuda, not {device!r} (mps lacks float64): choose one")
    require(device == "cpu" or torch.cuda.is_available(), "there is no GPU here for device='cuda': give device='cpu'")
