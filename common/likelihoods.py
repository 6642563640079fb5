"""Likelihoods p(x_m|z): a decoder's output in, a Distribution over the modality out.

Each has `point(p)`, the value that represents the distribution in pictures and reconstructions: its mean, or the mode
if the values are classes. `takes_bytes` says that it is one of pixels: uint8 in `Examples` becomes floats in [0, 1].
Other likelihoods refuse it.

Each states its range: the decoder's outputs up to which the log-density of an example's n values and its gradients are
finite in float32. Beyond it a sum or a square overflows: training stops, since the loss is not finite.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from common.errors import InputError, require

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Laplace, NegativeBinomial, Normal

LEAST_SCALE = 0.01  # of `NormalLikelihood`
MOST_LOG_R = 8.0  # of `NegativeBinomialLikelihood`


def in_float32(output: Tensor) -> Tensor:
    """A decoder's output in float32 where it is in half precision: squares and sums would leave float16's range."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


class IndependentLogits(Independent):
    """Independent discrete variables with the logits of their base distribution."""

    @property
    def logits(self) -> Tensor:
        """The base distribution's logits, (..., *event), or (..., *event, C) for C classes."""
        return self.base_dist.logits


class BernoulliLikelihood(nn.Module):
    """Bernoulli over intensities in [0, 1], from logits: log_prob is the negative cross entropy, summed over the event.

    Range: |logits| <= 1e38 / n.

    Args:
        event_dims: the number of trailing dimensions of one example (3 for an image (C, H, W)).
    """

    def __init__(self, event_dims: int = 1) -> None:
        super().__init__()
        self.event_dims = event_dims
        self.takes_bytes = event_dims > 1  # as those of images

    def forward(self, logits: Tensor) -> IndependentLogits:
        """Logits (..., *event) -> p(x|z), batch shape (...), event shape (*event)."""
        # no validation: it would refuse intensities between 0 and 1, which the papers score
        return IndependentLogits(Bernoulli(logits=in_float32(logits), validate_args=False), self.event_dims)

    def point(self, p: Distribution) -> Tensor:
        """The mean, (..., *event)."""
        return p.mean


class SameScale(Independent):
    """Independent Laplace or Normal values with one scale, which the log-density applies once, not to every value."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of value (..., *event), summed over the event: (...), nats."""
        p, dims = self.base_dist, self.reinterpreted_batch_ndims
        scale, deviation = p.scale[(0,) * p.scale.dim()], p.loc - value
        n = math.prod(self.event_shape)
        if isinstance(p, Laplace):
            return -summed(deviation.abs(), dims) / scale - n * (2 * scale).log()
        return -summed(deviation.square(), dims) / (2 * scale**2) - n * (scale * math.sqrt(2 * math.pi)).log()


def summed(x: Tensor, dims: int) -> Tensor:
    """The sum over the last `dims` dimensions, (..., *event) -> (...)."""
    return x.sum(dim=tuple(range(-dims, 0))) if dims else x  # torch sums over all dimensions if it is given none


class LocationScaleLikelihood(nn.Module):
    """Independent Laplace or Normal values around the decoder's output, all with one fixed scale.

    Range: |loc - x| / scale <= 1e38 / n for Laplace, and its square for Normal.

    Args:
        family: torch's Laplace or Normal.
        scale: the family's second parameter; by default that of poe-vae.
        event_dims: the number of trailing dimensions of one example.

    Raises:
        InputError: another family, or a scale that is not positive.
    """

    def __init__(self, family: type[Distribution], scale: float = 0.1, event_dims: int = 1) -> None:
        super().__init__()
        require(family in (Laplace, Normal), f"the family must be torch's Laplace or Normal (got {family.__name__})")
        require(0 < scale < math.inf, f"a likelihood's scale must be positive and finite, it is {scale}")
        self.family, self.scale, self.event_dims = family, scale, event_dims
        self.takes_bytes = event_dims > 1  # as those of images

    def forward(self, loc: Tensor) -> SameScale:
        """Locations (..., *event) -> p(x|z), batch shape (...), event shape (*event)."""
        loc = in_float32(loc)
        scale = loc.new_full((), self.scale)  # torch would copy a plain number to the GPU, which no CUDA graph can hold
        return SameScale(self.family(loc, scale, validate_args=False), self.event_dims)

    def point(self, p: Distribution) -> Tensor:
        """The mean, (..., *event)."""
        return p.mean


LaplaceLikelihood = partial(LocationScaleLikelihood, Laplace)
SphericalGaussianLikelihood = partial(LocationScaleLikelihood, Normal)


class NormalLikelihood(nn.Module):
    """Independent Normal values whose scales the decoder gives too, see `common.encoders_decoders.WithColumns`.

    `LEAST_SCALE` is added to the scales, or a column that is predicted without error would have an infinite density.
    Range: |loc - x| <= 1e17 / sqrt(n), log-scales <= 80.

    Args:
        event_dims: the number of trailing dimensions of one example.
    """

    def __init__(self, event_dims: int = 1) -> None:
        super().__init__()
        self.event_dims = event_dims
        self.takes_bytes = event_dims > 1  # as those of images

    def forward(self, output: Tensor) -> Independent:
        """Locations and log-scales (..., 2 C, ...), C the first dimension of an event -> p(x|z), event (C, ...)."""
        loc, log_scale = in_float32(output).chunk(2, dim=-self.event_dims)
        return Independent(
            Normal(loc, log_scale.exp() + LEAST_SCALE, validate_args=False), self.event_dims, validate_args=False
        )

    def point(self, p: Distribution) -> Tensor:
        """The mean, (..., *event)."""
        return p.mean


class LargeCounts(NegativeBinomial):
    """A negative binomial whose log-probabilities are computed in float64.

    At a count of 10^6 the logarithm of the gamma function is 10^7 nats, of which float32 loses one.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts (...), floats or whole numbers: (...), nats."""
        p = NegativeBinomial(self.total_count.double(), logits=self.logits.double(), validate_args=False)
        return p.log_prob(value.double()).to(self.logits.dtype)


class NegativeBinomialLikelihood(nn.Module):
    r"""Independent counts, overdispersed: the variance is mean + mean^2 / r.

    r is at most e^8: beyond, the counts are Poisson's but for 1 in 3,000 of their variance a count of the mean.
    Range: log-means from -40 to 40, log r from -40; counts are floats or whole numbers.
    """

    event_dims = 1

    def forward(self, output: Tensor) -> Independent:
        """Log-means and log r of D counts (..., 2 D) -> p(x|z), batch shape (...), event shape (D,)."""
        log_mean, log_r = in_float32(output).chunk(2, dim=-1)
        log_r = log_r.clamp(max=MOST_LOG_R)
        p = LargeCounts(log_r.exp(), logits=log_mean - log_r, validate_args=False)
        return Independent(p, 1, validate_args=False)

    def point(self, p: Distribution) -> Tensor:
        """The mean, (..., D)."""
        return p.mean


class FunctionLikelihood(nn.Module):
    """A likelihood given as a function: the log-density of each value of x.

    Args:
        log_density: the decoder's output and x, both (..., *event) -> (..., *event), nats.
        event_dims: the number of trailing dimensions of one example.
    """

    def __init__(self, log_density: Callable[[Tensor, Tensor], Tensor], event_dims: int = 1) -> None:
        super().__init__()
        self.log_density, self.event_dims = log_density, event_dims
        self.takes_bytes = event_dims > 1  # as those of images

    def forward(self, output: Tensor) -> "DensityOfOutput":
        """The decoder's output (..., *event) -> p(x|z), batch shape (...), event shape (*event)."""
        return DensityOfOutput(self.log_density, in_float32(output), self.event_dims)

    def point(self, p: "DensityOfOutput") -> Tensor:
        """The mean, (..., *event)."""
        return p.mean


class DensityOfOutput(Distribution):
    """The distribution of `FunctionLikelihood`: its mean is the decoder's output, and it cannot be sampled."""

    def __init__(self, log_density: Callable[[Tensor, Tensor], Tensor], output: Tensor, event_dims: int) -> None:
        shape, n = output.shape, output.dim() - event_dims
        super().__init__(shape[:n], shape[n:], validate_args=False)
        self.log_density, self.output = log_density, output

    @property
    def mean(self) -> Tensor:
        return self.output

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Raise InputError, also by `sample`: a log-density does not say how to draw from it."""
        raise InputError("a likelihood given as a function has a log-density alone: take p.mean, it cannot be sampled")

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density of x (..., *event), summed over the event: (...), nats."""
        return summed(self.log_density(self.output, x.expand_as(self.output)), len(self.event_shape))


class CategoricalLikelihood(nn.Module):
    """One of C classes, from logits (..., C); values are int64 (...).

    Range: |logits| <= 1e38 / n.

    Args:
        event_dims: the number of trailing dimensions of one example: 0 for a class, 1 for a string of independent
            characters.
    """

    def __init__(self, event_dims: int = 0) -> None:
        super().__init__()
        self.event_dims = event_dims

    def forward(self, logits: Tensor) -> Categorical | IndependentLogits:
        """Logits (..., *event, C) -> p(x|z), batch shape (...), event shape (*event)."""
        p = Categorical(logits=in_float32(logits), validate_args=False)
        return IndependentLogits(p, self.event_dims) if self.event_dims else p

    def point(self, p: Distribution) -> Tensor:
        """The mode, int64 (..., *event)."""
        return p.mode


class Binary(Bernoulli):
    """A Bernoulli distribution whose values and mode are int64."""

    @property
    def mode(self) -> Tensor:
        """The more probable value, 0 or 1, int64 (...)."""
        return (self.logits > 0).long()

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        """Draws, 0 or 1, int64 (*sample_shape, ...)."""
        return super().sample(sample_shape).long()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of value (...): (...), nats."""
        return super().log_prob(value.to(self.logits))


class BinaryLikelihood(nn.Module):
    """A binary variable, from its logit (...); values are int64 (...), 0 or 1. Range: any logit."""

    event_dims = 0

    def forward(self, logits: Tensor) -> Binary:
        """Logits (...) -> p(x|z), batch shape (...)."""
        return Binary(logits=in_float32(logits), validate_args=False)

    def point(self, p: Binary) -> Tensor:
        """The mode, int64 (...)."""
        return p.mode


def check_shape(name: str, x: Tensor, p: Distribution, leading: int) -> None:
    """Raise InputError for values (B, ...) of another shape than p(x_m|z), (*leading dimensions, ...), has."""
    shape = (p.batch_shape + p.event_shape)[leading:]
    if x.shape[1:] != shape:
        raise InputError(
            f"{name} has values of shape {tuple(x.shape)}, which its decoder does not give: it gives (B, "
            f"{', '.join(map(str, shape))}), reshape the values"
        )


def log_prob(name: str, p: Distribution, x: Tensor, leading: int | None, observed: Tensor | None = None) -> Tensor:
    """Log-probability of a modality's values (B, ...) under p(x_m|z), nats.

    Args:
        leading: the number of dimensions of p before an example's own, (..., B); None: x has all dimensions of p.
        observed: which values count, (B, ...) bool; None: all.

    Raises:
        InputError: see `check_shape`, without which the values would be broadcast, and `log_prob_of_observed`.
    """
    if leading is not None:
        check_shape(name, x, p, leading)
    try:
        return p.log_prob(x) if observed is None else log_prob_of_observed(name, p, x, observed)
    except RuntimeError:  # of torch, which speaks of an index
        check_class(name, x, p)
        raise


def log_prob_of_observed(name: str, p: Distribution, x: Tensor, observed: Tensor) -> Tensor:
    """Log-probability under p of the values x that are observed; args as for `log_prob`, that broadcast with p.

    Raises:
        InputError: only some values of an example are observed, and its values are not independent.
    """
    if isinstance(p, DensityOfOutput):
        # some functions have no density at 0, which would leave NaN in the gradient
        mean = (x * observed).sum() / observed.sum().clamp(min=1)
        x = torch.where(observed, x, mean.to(x.dtype))
        log_p = p.log_density(p.output, x.expand_as(p.output))
    elif isinstance(p, Independent) and not p.base_dist.event_shape:
        log_p = p.base_dist.log_prob(x)
    else:
        raise InputError(
            f"{name} lacks some of its values, and {type(p).__name__} has no density of the others alone: mask these "
            "examples, or give the values independent likelihoods"
        )
    return summed(torch.where(observed, log_p, 0), len(p.event_shape))


def check_class(name: str, x: Tensor, p: Distribution) -> None:
    """Raise InputError for classes x (...) that a categorical p(x_m|z) does not have."""
    p = p.base_dist if isinstance(p, Independent) else p
    if isinstance(p, Categorical):
        last = p.logits.shape[-1] - 1
        decoded = f"{name} has the class {int(x.max())}, its decoder gives the classes 0 to {last}"
        require(int(x.max()) <= last, f"{decoded}: count classes from 0, or give the decoder more")


def check_names(names: Iterable[str]) -> None:
    """Raise InputError for modalities whose networks or terms (`common.objectives.Bound`) would have another's name."""
    attributes = nn.ModuleDict()
    for name in names:
        why = None
        if not re.fullmatch("[^.,|]+", name):
            why = "a name is not empty and has no . , or |"
        elif hasattr(attributes, name) or hasattr(GroupedLikelihood, name):
            why = "the modules that hold the modalities' networks have an attribute of this name"
        elif re.fullmatch(r"kl|joint|mixture|ar|subset\d+", name):
            why = "a term of objectives has this name"
        require(why is None, f"a modality cannot be called {name!r}, {why}: rename it")


class GroupedLikelihood(nn.ModuleDict):
    """The modalities' likelihoods, independent given z, by name; positional arguments are named "0", "1", ...

    Raises:
        InputError: see `check_names`.
    """

    def __init__(self, /, *likelihoods: nn.Module, **named: nn.Module) -> None:
        by_name = {str(i): likelihood for i, likelihood in enumerate(likelihoods)} | named
        check_names(by_name)
        super().__init__(by_name)

    def forward(self, outputs: Mapping[str, Tensor]) -> dict[str, Distribution]:
        """The decoders' outputs {name: (..., *event)} -> {name: p(x_m|z)}."""
        return {name: self[name](output) for name, output in outputs.items()}

    def point(self, distributions: Mapping[str, Distribution]) -> dict[str, Tensor]:
        """The mean or mode of each modality's distribution, {name: (..., *event)}."""
        return {name: self[name].point(p) for name, p in distributions.items()}
