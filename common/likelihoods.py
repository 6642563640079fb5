"""Likelihoods p(x_m|z): a decoder's output in, a Distribution over the modality out.

Each has `point(p)`, the value that stands for the distribution in pictures and reconstructions: its mean, or its
mode where the values are names.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Laplace, Normal


class IndependentLogits(Independent):
    """Independent discrete variables that go on showing the logits of their base distribution."""

    @property
    def logits(self) -> Tensor:
        return self.base_dist.logits


class BernoulliLikelihood(nn.Module):
    """Bernoulli over intensities in [0, 1], from logits: log_prob is the negative cross entropy, summed over the event.

    Args:
        event_dims: the trailing dimensions of one example (3 for an image (C, H, W)).
    """

    def __init__(self, event_dims: int = 1) -> None:
        super().__init__()
        self.event_dims = event_dims

    def forward(self, logits: Tensor) -> IndependentLogits:
        # unchecked: the papers score intensities between 0 and 1, which the check would refuse
        return IndependentLogits(Bernoulli(logits=logits, validate_args=False), self.event_dims)

    def point(self, p: Distribution) -> Tensor:
        return p.mean


class SameScale(Independent):
    """Independent values of Laplace or Normal of one scale, whose log-density takes no pass for each one's scale."""

    def log_prob(self, value: Tensor) -> Tensor:
        p, event = self.base_dist, tuple(range(-self.reinterpreted_batch_ndims, 0))
        scale, far = p.scale[(0,) * p.scale.dim()], p.loc - value
        n = math.prod(self.event_shape)
        if isinstance(p, Laplace):
            return -far.abs().sum(dim=event) / scale - n * (2 * scale).log()
        return -far.square().sum(dim=event) / (2 * scale**2) - n * (scale * math.sqrt(2 * math.pi)).log()


class LocationScaleLikelihood(nn.Module):
    """Independent values of a family of location and scale around the decoder's output, all of one fixed scale.

    Args:
        family: torch's Laplace or Normal.
        scale: the family's second parameter.
        event_dims: the trailing dimensions of one example.
    """

    def __init__(self, family: type[Distribution], scale: float, event_dims: int = 1) -> None:
        super().__init__()
        self.family, self.scale, self.event_dims = family, scale, event_dims

    def forward(self, loc: Tensor) -> SameScale:
        scale = loc.new_full((), self.scale)  # of a number, torch makes a copy to the device, which fits in no graph
        return SameScale(self.family(loc, scale, validate_args=False), self.event_dims)

    def point(self, p: Distribution) -> Tensor:
        return p.mean


LaplaceLikelihood = partial(LocationScaleLikelihood, Laplace)
NormalLikelihood = partial(LocationScaleLikelihood, Normal)
SphericalGaussianLikelihood = NormalLikelihood  # one scale for all dimensions


class FunctionLikelihood(nn.Module):
    """A density given as a function of the decoder's output and x, both (..., *event): its logarithm at each value.

    Args:
        log_density: output, x -> (..., *event).
        event_dims: the trailing dimensions of one example.
    """

    def __init__(self, log_density: Callable[[Tensor, Tensor], Tensor], event_dims: int = 1) -> None:
        super().__init__()
        self.log_density, self.event_dims = log_density, event_dims

    def forward(self, output: Tensor) -> "DensityOfOutput":
        return DensityOfOutput(self.log_density, output, self.event_dims)

    def point(self, p: "DensityOfOutput") -> Tensor:
        return p.mean


class DensityOfOutput(Distribution):
    """See FunctionLikelihood; the output stands for the mean, and nothing can be drawn."""

    def __init__(self, log_density: Callable[[Tensor, Tensor], Tensor], output: Tensor, event_dims: int) -> None:
        shape, n = output.shape, output.dim() - event_dims
        super().__init__(shape[:n], shape[n:], validate_args=False)
        self.log_density, self.output = log_density, output

    @property
    def mean(self) -> Tensor:
        return self.output

    def log_prob(self, x: Tensor) -> Tensor:
        return self.log_density(self.output, x.expand_as(self.output)).sum(dim=tuple(range(-len(self.event_shape), 0)))


class CategoricalLikelihood(nn.Module):
    """One of C classes, from logits (..., C); values are int64 (...).

    Args:
        event_dims: the trailing dimensions of one example: 0 for a class, 1 for a string of independent characters.
    """

    def __init__(self, event_dims: int = 0) -> None:
        super().__init__()
        self.event_dims = event_dims

    def forward(self, logits: Tensor) -> Categorical | IndependentLogits:
        p = Categorical(logits=logits, validate_args=False)
        return IndependentLogits(p, self.event_dims) if self.event_dims else p

    def point(self, p: Distribution) -> Tensor:
        return p.mode


class Binary(Bernoulli):
    """A Bernoulli distribution whose values and mode are int64."""

    @property
    def mode(self) -> Tensor:
        return (self.logits > 0).long()

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value.to(self.logits))


class BinaryLikelihood(nn.Module):
    """A yes or no, from its logit (...); values are int64 (...), 0 or 1."""

    def forward(self, logits: Tensor) -> Binary:
        return Binary(logits=logits, validate_args=False)

    def point(self, p: Binary) -> Tensor:
        return p.mode


class GroupedLikelihood(nn.ModuleDict):
    """Likelihoods that are independent given z, by modality name (positional ones are named "0", "1", ...)."""

    def __init__(self, *likelihoods: nn.Module, **named: nn.Module) -> None:
        super().__init__({str(i): likelihood for i, likelihood in enumerate(likelihoods)} | named)

    def forward(self, outputs: Mapping[str, Tensor]) -> dict[str, Distribution]:
        return {name: self[name](output) for name, output in outputs.items()}

    def point(self, distributions: Mapping[str, Distribution]) -> dict[str, Tensor]:
        return {name: self[name].point(p) for name, p in distributions.items()}
