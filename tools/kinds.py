"""What the modalities of `tools.estimator` hold: their values as tensors and back, their networks, their scores."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

from common.data.batches import is_missing
from common.encoders_decoders import SplitLinearLayer, WithColumns, WithMissing, swish_mlp
from common.errors import InputError, brief, require
from common.likelihoods import CategoricalLikelihood, NegativeBinomialLikelihood, NormalLikelihood

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

MOST_COUNT = 2**53  # from there on float64, which reads the values, has not all counts
WIDTH, CHANNELS, SMALLEST = 256, 32, 4  # hidden units; channels of an image's first convolution; side of its last


class Continuous(msgspec.Struct, frozen=True, tag=True):
    """Real numbers (N, columns): standardised for the model, Normal with a learned scale for each column."""

    columns: int

    def tensor(self, name: str, x: Any) -> Tensor:  # noqa: ANN401 (what numpy takes)
        """Values (N, columns), float64, NaN where one is missing."""
        return numbers(name, x, (self.columns,))

    def encoder(self, d: int) -> nn.Module:
        """x (N, columns) -> mean and log-variance of q(z|x), (N, d) each."""
        return WithMissing(nn.Sequential(swish_mlp(2 * self.columns, WIDTH), SplitLinearLayer(WIDTH, (d, d))))

    def decoder(self, d: int) -> nn.Module:
        """z (N, d) -> what the likelihood takes."""
        network = nn.Sequential(swish_mlp(d, WIDTH), nn.Linear(WIDTH, self.columns))
        return WithColumns(network, torch.zeros(self.columns))

    def likelihood(self) -> nn.Module:
        """Of the decoder's output."""
        return NormalLikelihood()

    def expected(self, p: Distribution) -> Tensor:
        """The mean of x over draws of z: p of batch shape (n, B) -> (B, ...)."""
        return p.mean.mean(dim=0)

    def drawn(self, p: Distribution) -> Tensor:
        """Draws of x."""
        return p.sample()

    def values(self, x: Tensor) -> np.ndarray:
        """The model's values as the user's."""
        return x.cpu().numpy()

    def score(self, x: Tensor, predicted: Tensor) -> float:
        """R^2 over all cells of x that are there, against the means of the columns."""
        error, spread = (x - predicted).square().nansum(), (x - x.nanmean(dim=0)).square().nansum()
        return (1 - error / spread).item()

    def chance(self, x: Tensor) -> float:
        """The score of the best prediction without any other modality."""
        return 0.0


class LogCounts(nn.Module):
    """x -> log(1 + x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log1p()


class Counts(Continuous, frozen=True, tag=True):
    """Counts (N, columns), 0, 1, 2, ...: negative binomial with a learned dispersion for each column."""

    def tensor(self, name: str, x: Any) -> Tensor:  # noqa: ANN401
        """int64 (N, columns), -1 where one is missing: float32 has not all counts above 2^24."""
        x = super().tensor(name, x)
        whole = bool(((x == x.round()) & (x >= 0) & (x < MOST_COUNT) | x.isnan()).all())
        require(whole, f"{name} has values that are no counts: give 0, 1, 2, ..., or Continuous({self.columns})")
        return x.nan_to_num(-1).long()

    def encoder(self, d: int) -> nn.Module:
        encoder = super().encoder(d)
        return WithMissing(nn.Sequential(LogCounts(), *encoder.network))

    def likelihood(self) -> nn.Module:
        return NegativeBinomialLikelihood()

    def score(self, x: Tensor, predicted: Tensor) -> float:
        """R^2 of log(1 + x)."""
        return super().score(x.double().masked_fill(x < 0, torch.nan).log1p(), predicted.log1p())


class Labels(msgspec.Struct, frozen=True, tag=True):
    """A class (N,): a number from 0, or one of the names given. None, NaN and -1 are missing."""

    classes: int | tuple[str, ...]

    def __post_init__(self) -> None:
        if isinstance(self.classes, int | np.integer):
            msgspec.structs.force_setattr(self, "classes", int(self.classes))
        else:
            names = tuple(self.classes)
            plain = all(isinstance(x, str) for x in names) and 0 < len(names) == len(set(names))
            require(plain, f"the names of classes must be strings, each once, not {names[:5]}: or number them from 0")
            msgspec.structs.force_setattr(self, "classes", names)

    @property
    def n(self) -> int:
        """The number of classes."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    def tensor(self, name: str, x: Any) -> Tensor:  # noqa: ANN401
        """int64 (N,), -1 where missing."""
        shape = np.shape(x)
        require(shape[1:] in ((), (1,)), f"{name} has the shape {shape}, and its modality (N,): give one class a row")
        if isinstance(self.classes, tuple):
            codes = {label: i for i, label in enumerate(self.classes)}
            names = [None if is_none(x) else x for x in np.asarray(x, dtype=object).reshape(-1).tolist()]
            unknown = sorted({str(x) for x in names if x is not None and x not in codes})
            known = ", ".join(map(str, self.classes[:10]))
            require(not unknown, f"{name} has the classes {', '.join(unknown[:3])}, which are none of {known}")
            return torch.tensor([-1 if x is None else codes[x] for x in names])
        x = numbers(name, x, shape[1:]).reshape(-1).nan_to_num(-1)
        fits = bool(((x == x.round()) & (x >= -1) & (x < self.n)).all())
        require(fits, f"{name} has values that are no classes 0 to {self.n - 1}: give these, or name them in Labels")
        return x.long()

    def encoder(self, d: int) -> nn.Module:
        return nn.Sequential(nn.Embedding(self.n, WIDTH), nn.SiLU(), SplitLinearLayer(WIDTH, (d, d)))

    def decoder(self, d: int) -> nn.Module:
        return nn.Sequential(swish_mlp(d, WIDTH), nn.Linear(WIDTH, self.n))

    def likelihood(self) -> nn.Module:
        return CategoricalLikelihood()

    def expected(self, p: Distribution) -> Tensor:
        """The most probable class, (B,)."""
        return p.probs.mean(dim=0).argmax(dim=-1)

    def drawn(self, p: Distribution) -> Tensor:
        return p.sample()

    def values(self, x: Tensor) -> np.ndarray:
        x = x.cpu().numpy()
        return x if isinstance(self.classes, int) else np.array(self.classes, dtype=object)[x]

    def score(self, x: Tensor, predicted: Tensor) -> float:
        """The accuracy where the class is known."""
        return (predicted == x)[x >= 0].double().mean().item()

    def chance(self, x: Tensor) -> float:
        """The share of the most frequent class."""
        return (x[x >= 0].bincount().max() / (x >= 0).sum()).item()


class Image(msgspec.Struct, frozen=True, tag=True):
    """Images (N, channels, height, width), uint8 or floats in [0, 1]: Normal with a learned scale for each channel."""

    channels: int
    height: int
    width: int

    def sides(self) -> list[tuple[int, int]]:
        """Height and width before and after each convolution, which halves them."""
        sides = [(self.height, self.width)]
        while min(sides[-1]) > SMALLEST:
            sides.append(tuple(x // 2 for x in sides[-1]))
        return sides

    def tensor(self, name: str, x: Any) -> Tensor:  # noqa: ANN401
        scale = 255 if getattr(x, "dtype", None) in (np.uint8, torch.uint8) else 1
        x = (numbers(name, x, (self.channels, self.height, self.width)) / scale).float()
        inside = bool(((x >= 0) & (x <= 1) | x.isnan()).all())
        require(inside, f"{name} has values outside [0, 1]: scale them, or give uint8")
        return x

    def widths(self) -> list[int]:
        """Channels after each convolution."""
        return [CHANNELS * 2**i for i in range(len(self.sides()) - 1)]

    def encoder(self, d: int) -> nn.Module:
        (h, w), channels = self.sides()[-1], [2 * self.channels, *self.widths()]
        layers = [layer for a, b in pairwise(channels) for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.SiLU())]
        hidden = swish_mlp(channels[-1] * h * w, WIDTH)
        return WithMissing(nn.Sequential(*layers, nn.Flatten(), hidden, SplitLinearLayer(WIDTH, (d, d))))

    def decoder(self, d: int) -> nn.Module:
        sides, channels = self.sides()[::-1], [*self.widths()[::-1], self.channels]
        (h, w), first = sides[0], channels[0]
        layers = [swish_mlp(d, WIDTH), nn.Linear(WIDTH, first * h * w), nn.Unflatten(1, (first, h, w))]
        for side, (a, b) in zip(sides[1:], pairwise(channels), strict=True):
            layers += [nn.SiLU(), nn.Upsample(side), nn.Conv2d(a, b, 3, padding=1)]
        return WithColumns(nn.Sequential(*layers), torch.zeros(self.channels, 1, 1))

    def likelihood(self) -> nn.Module:
        return NormalLikelihood(event_dims=3)

    def expected(self, p: Distribution) -> Tensor:
        return p.mean.mean(dim=0).clamp(0, 1)

    def drawn(self, p: Distribution) -> Tensor:
        """Means: draws of each pixel would be noise."""
        return p.mean.clamp(0, 1)

    values, score, chance = Continuous.values, Continuous.score, Continuous.chance


Kind = Continuous | Counts | Labels | Image


def is_none(x: object) -> bool:
    """Whether a class is missing: None, NaN or pandas' NA."""
    return x is None or (isinstance(x, float) and x != x) or type(x).__name__ in ("NAType", "NaTType")


def present(x: Tensor) -> Tensor:
    """Which rows have a value, (N, ...) -> (N,) bool."""
    return ~is_missing(x).reshape(len(x), -1).all(dim=1)


def numbers(name: str, x: Any, shape: tuple[int, ...]) -> Tensor:  # noqa: ANN401
    """Values as float64 (N, *shape); InputError for what are no finite numbers of this shape."""
    x = x.detach().cpu() if isinstance(x, Tensor) else x
    try:
        x = x.to_numpy(dtype=np.float64, na_value=np.nan) if hasattr(x, "to_numpy") else np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} has values that are no numbers ({brief(error)}): convert them, or use Labels"
        ) from error
    expected = f"(N{''.join(f', {n}' for n in shape)})"
    require(x.shape[1:] == shape, f"{name} has the shape {x.shape}, and its modality {expected}: give both the same")
    require(not np.isinf(x).any(), f"{name} has infinite values: give NaN where one is missing")
    return torch.from_numpy(np.array(x))


class Rows(NamedTuple):
    """What `read` makes of X.

    tensors: {name: (N, ...)}, missing values marked.
    tables: {name: what X has}, tables joined, their columns in the order of fit.
    index: the rows' names, of pandas; None for arrays.
    """

    tensors: dict[str, Tensor]
    tables: dict[str, Any]
    index: Any

    @property
    def columns(self) -> dict[str, list[str]]:
        """{name: the names of the columns}, of DataFrames; [] of a Series."""
        framed = {name: x for name, x in self.tables.items() if hasattr(x, "iloc")}
        return {name: list(map(str, getattr(x, "columns", ()))) for name, x in framed.items()}


def is_mudata(x: object) -> bool:
    """Whether X is a MuData object."""
    return hasattr(x, "mod") and hasattr(x, "obsm")


def read(X: Any, kinds: Mapping[str, Kind], columns: Mapping[str, Sequence[str]] | None = None) -> Rows:  # noqa: ANN401
    """Arrays, tensors, tables joined by their index, or MuData, as tensors of the kinds.

    Args:
        columns: {name: the names of a table's columns}, which a DataFrame of X may have in another order.

    Raises:
        InputError: names without a kind, other columns, modalities of different lengths, indexes that cannot be joined,
            or values that a kind does not have.
    """
    index = X.obs_names if is_mudata(X) else None
    tables = of_mudata(X, kinds) if is_mudata(X) else X
    require(isinstance(tables, Mapping), f"X must map names to arrays, or be a MuData object, not {type(X).__name__}")
    unknown = [name for name in tables if name not in kinds]
    require(not unknown, f"X has {', '.join(map(str, unknown))}, which modalities lack: they have {', '.join(kinds)}")
    require(len(tables) > 0, f"X is empty: give at least one of {', '.join(kinds)}")
    tables = {name: tables[name] for name in kinds if name in tables}
    framed = {name: x for name, x in tables.items() if hasattr(x, "iloc")}
    if framed and index is None:
        index = reduce(lambda a, b: a if a.equals(b) else a.union(b, sort=False), (x.index for x in framed.values()))
    if len(framed) > 1 and len(framed) == len(tables) and sum(map(len, framed.values())) == len(index):
        raise InputError("no row is in two of the tables: give their ids the same type, such as x.index.astype(str)")
    for name, x in framed.items():
        if not x.index.equals(index):
            unique = x.index.is_unique and len(framed) == len(tables)
            require(unique, f"{name} has another index than the other tables: make it unique, and give all as tables")
            tables[name] = x.reindex(index)
        if x.ndim == 2 and columns and columns.get(name):
            names = list(map(str, x.columns))
            if names == list(map(str, range(len(names)))):  # they have no names, as in obsm
                continue
            other = f"{name} has other columns than in fit: give {', '.join(columns[name][:5])}, ..."
            require(sorted(names) == sorted(columns[name]), other)
            tables[name] = tables[name].iloc[:, [names.index(column) for column in columns[name]]]
    tensors = {name: kinds[name].tensor(name, x) for name, x in tables.items()}
    sizes = {name: len(x) for name, x in tensors.items()}
    require(0 not in sizes.values(), f"X has no rows (got {sizes}): give at least one")
    require(len(set(sizes.values())) == 1, f"all modalities need the same number of rows (got {sizes})")
    return Rows(tensors, tables, index)


def of_mudata(X: Any, names: Sequence[str]) -> dict[str, Any]:  # noqa: ANN401
    """{name: table} of the modalities, the obsm and the columns of obs that have one of the names."""
    tables = {name: X.mod[name].to_df() for name in names if name in X.mod}
    frame = type(X.obs)
    tables |= {x: frame(X.obsm[x], index=X.obs_names) for x in names if x in X.obsm and x not in tables}
    return tables | {name: X.obs[name] for name in names if name in X.obs and name not in tables}


def into_mudata(X: Any, tables: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Write tables with all rows where `of_mudata` reads them, as far as the object has the rows."""
    for name, table in tables.items():
        if name in X.mod:
            X.mod[name].X = table.loc[X.mod[name].obs_names].to_numpy()
        elif name in X.obsm:
            X.obsm[name] = table.to_numpy()
        else:
            X.obs[name] = table
    return X


def filled(x: Any, gaps: np.ndarray, guess: np.ndarray) -> Any:  # noqa: ANN401 (as x)
    """A copy of an array or a table with other values where gaps are; columns without a gap keep their types."""
    gaps, guess = gaps.reshape(np.shape(x)), guess.reshape(np.shape(x))
    if not hasattr(x, "iloc"):
        x = np.array(x)
        x[gaps] = guess[gaps]
        return x
    if x.ndim == 2:
        lacking = x.columns[gaps.any(axis=0)]
        kind = object if guess.dtype == object else float
        return x.astype(dict.fromkeys(lacking, kind)).mask(gaps, type(x)(guess, x.index, x.columns))
    if hasattr(x, "cat"):
        x = x.cat.add_categories(sorted({*guess[gaps]} - {*x.cat.categories}))
    elif not (guess.dtype == object and x.dtype == object):
        x = x.astype(object if guess.dtype == object else float)
    return x.mask(gaps, type(x)(guess, index=x.index))


def in_frame(x: np.ndarray, columns: Sequence[str] | None, index: Any) -> Any:  # noqa: ANN401
    """An array (N, ...) as a DataFrame of the columns, a Series if there are none; itself if columns is None."""
    if columns is None:
        return x
    import pandas

    return pandas.DataFrame(x, index=index, columns=columns) if columns else pandas.Series(x, index=index)
