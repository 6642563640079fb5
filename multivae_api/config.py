"""The configuration of `multivae_api.mmvae.MMVAE`, its checks, and the pieces that it stands for."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypedDict, get_type_hints

from common.encoders_decoders import SplitLinearLayer, evaluation_mode
from common.errors import InputError, require
from common.likelihoods import (
    BernoulliLikelihood,
    FunctionLikelihood,
    LaplaceLikelihood,
    SphericalGaussianLikelihood,
    check_names,
)
from common.objectives import DregIwaeElbo, IwaeElbo
from common.variational_posteriors import DiagonalGaussianPosterior, LaplacePosterior

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn
from torch.distributions import Independent, OneHotCategorical


class OneHot(OneHotCategorical):
    """A one-hot vector, (..., C), or the probabilities of classes, which MultiVae scores too."""

    def log_prob(self, value: Tensor) -> Tensor:
        """Minus the cross entropy, (...), nats."""
        return (value * self.logits).sum(dim=-1)


class OneHotLikelihood(BernoulliLikelihood):
    """One-hot vectors along the last dimension, from logits, which take the values that a Bernoulli's take.

    Args:
        event_dims: the number of trailing dimensions of one example, the classes' dimension among them.
    """

    def __init__(self, event_dims: int = 1) -> None:
        super().__init__(event_dims)
        self.takes_bytes = False

    def forward(self, logits: Tensor) -> Independent:
        """Logits (..., *event) -> p(x|z), batch shape (...), event shape (*event)."""
        return Independent(OneHot(logits=logits, validate_args=False), self.event_dims - 1)


FAMILIES = {"laplace_with_softmax": LaplacePosterior, "normal": DiagonalGaussianPosterior}
LOCATION_SCALE = {"normal": SphericalGaussianLikelihood, "laplace": LaplaceLikelihood}
DISCRETE = {"bernoulli": BernoulliLikelihood, "categorical": OneHotLikelihood}
OBJECTIVES = {"dreg_looser": DregIwaeElbo, "iwae_looser": IwaeElbo}
Dist = Literal["normal", "laplace", "bernoulli", "categorical"]
Size, Weight = Annotated[int, Meta(ge=1)], Annotated[float, Meta(ge=0, le=1e100)]
N_HIDDEN = 512  # hidden units of the default networks


@dataclass
class MMVAEConfig:
    """The options of an MMVAE, under MultiVae's names.

    Args:
        n_modalities: the number of modalities.
        latent_dim: D.
        input_dims: {name: shape of one example}, which the default networks and rescaling factors need.
        uses_likelihood_rescaling: weigh the modalities' log-likelihoods (Javaloy et al. 2022).
        rescale_factors: {name: weight}; by default the size of the largest modality divided by the modality's.
        decoders_dist: {name: distribution}: "normal" (the default), "laplace", "bernoulli" (the decoder gives logits),
            "categorical" (of one-hot vectors along the last dimension; the decoder gives logits), or a function: the
            decoder's output and x, both (..., *shape) -> the log-density of each value, nats.
        decoder_dist_params: {name: {"scale": scale of the normal or Laplace distribution}}, by default 1.
        custom_architectures: "encoders" and "decoders", if they are not the default ones; set by the model.
        K: importance samples from each encoder.
        prior_and_posterior_dist: "laplace_with_softmax", whose scales sum to D, or "normal".
        learn_prior: learn the prior's location and scales.
        beta: weight of log p(z) - log q(z|X) in training.
        loss: "dreg_looser" or "iwae_looser".
    """

    n_modalities: int
    latent_dim: Size = 10
    input_dims: dict[str, Annotated[tuple[Size, ...], Meta(min_length=1)]] | None = None
    uses_likelihood_rescaling: bool = False
    rescale_factors: dict[str, Weight] | None = None
    decoders_dist: dict[str, Dist | Callable[[Tensor, Tensor], Tensor]] | None = None
    decoder_dist_params: dict[str, dict[str, Annotated[float, Meta(gt=0)]]] | None = None
    custom_architectures: list[str] = field(default_factory=list)
    K: Size = 10
    prior_and_posterior_dist: Literal["laplace_with_softmax", "normal"] = "laplace_with_softmax"
    learn_prior: bool = True
    beta: Weight = 1.0
    loss: Literal["dreg_looser", "iwae_looser"] = "dreg_looser"


# a configuration without functions, as msgspec checks it and a file keeps it
HINTS = get_type_hints(MMVAEConfig, include_extras=True) | {"decoders_dist": dict[str, Dist] | None}
Options = TypedDict("Options", HINTS, total=False)


def check_options(config: MMVAEConfig) -> None:
    """Raise InputError for options of other types or beyond their ranges."""
    dists = config.decoders_dist
    if isinstance(dists, Mapping):
        dists = {name: dist for name, dist in dists.items() if not callable(dist)}
    try:
        # JSON makes plain values of what only inherits from them, such as NumPy's float64 and torch.Size
        msgspec.convert(json.loads(json.dumps(vars(config) | {"decoders_dist": dists})), Options)
    except (msgspec.ValidationError, TypeError) as error:
        raise InputError(f"MMVAEConfig cannot be used, {error}: give another value") from error


def check(config: MMVAEConfig, names: tuple[str, ...], encoders: Mapping | None, decoders: Mapping | None) -> None:
    """Raise InputError if a configuration contradicts itself or the networks.

    Args:
        names: the modalities.
        encoders, decoders: the caller's networks by modality; None for the default ones.
    """
    require(
        (encoders is not None and decoders is not None) or config.input_dims is not None,
        "the default networks are made from input_dims: give {name: shape}, or encoders and decoders",
    )
    for option, mapping in {"encoders": encoders, "decoders": decoders, "input_dims": config.input_dims}.items():
        by_name = mapping is None or hasattr(mapping, "keys")
        require(by_name, f"{option} must be {{name: network}}, not a {type(mapping).__name__}")
        same = mapping is None or set(mapping) == set(names)
        require(same, f"{option} names {mapping and sorted(mapping)}, but the modalities are {names}")
    n = config.n_modalities
    require(len(names) == n, f"n_modalities is {n}, but there are {len(names)} modalities: {names}")
    for option in ("decoders_dist", "decoder_dist_params", "rescale_factors"):
        unknown = set(getattr(config, option) or {}) - set(names)
        require(not unknown, f"{option} of unknown modalities: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
    check_names(names)
    rescales, factors = config.uses_likelihood_rescaling, config.rescale_factors
    require(rescales or factors is None, "rescale_factors need uses_likelihood_rescaling=True (got False)")
    require(
        not rescales or factors is not None or config.input_dims is not None,
        "likelihood rescaling needs input_dims, or rescale_factors: give one of them",
    )


def weights(config: MMVAEConfig) -> dict[str, float] | None:
    """The weights of the modalities' log-likelihoods, {name: weight}; None if all are 1."""
    if not config.uses_likelihood_rescaling or config.rescale_factors is not None:
        return config.rescale_factors
    sizes = {name: math.prod(shape) for name, shape in config.input_dims.items()}
    return {name: max(sizes.values()) / size for name, size in sizes.items()}


def likelihood(config: MMVAEConfig, name: str, decoder: nn.Module) -> nn.Module:
    """A modality's likelihood; the event's dimensions are those of the decoder's output for one z."""
    dist = (config.decoders_dist or {}).get(name, "normal")
    params = (config.decoder_dist_params or {}).get(name, {})
    like = next(decoder.parameters(), torch.zeros(()))
    with evaluation_mode(decoder), torch.no_grad():
        event_dims = decoder(like.new_zeros(1, config.latent_dim)).dim() - 1
    if dist in LOCATION_SCALE:
        unknown = set(params) - {"scale"}
        require(not unknown, f"decoder_dist_params of {name}: {dist} has a scale, no {', '.join(sorted(unknown))}")
        return LOCATION_SCALE[dist](params.get("scale", 1.0), event_dims)
    require(not params, f"decoder_dist_params of {name}: {dist} has none, leave out {', '.join(sorted(params))}")
    return FunctionLikelihood(dist, event_dims) if callable(dist) else DISCRETE[dist](event_dims)


def default_encoder(shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    """One hidden layer: x (N, *shape) -> location and log-variance, each (N, latent_dim)."""
    heads = SplitLinearLayer(N_HIDDEN, (latent_dim, latent_dim))
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), N_HIDDEN), nn.ReLU(), heads)


def default_decoder(shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    """One hidden layer: z (N, latent_dim) -> (N, *shape)."""
    out = (nn.Linear(N_HIDDEN, math.prod(shape)), nn.Unflatten(1, tuple(shape)))
    return nn.Sequential(nn.Linear(latent_dim, N_HIDDEN), nn.ReLU(), *out)


class NamedOutputs(nn.Module):
    """A network whose output may be an object with named values, as MultiVae's networks return, or just the values.

    Args:
        names: the names of the values, in the order that the model expects.
    """

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The named values, a tensor if there is only one name; an output without these names is passed on."""
        out = self.network(x)
        if hasattr(out, self.names[0]):
            values = tuple(getattr(out, name) for name in self.names)
            return values if len(values) > 1 else values[0]
        return out
