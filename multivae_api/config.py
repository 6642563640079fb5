"""The configuration of `multivae_api.mmvae.MMVAE`, and the pieces that it names."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from common.encoders_decoders import SplitLinearLayer
from common.errors import require
from common.likelihoods import BernoulliLikelihood, FunctionLikelihood, LaplaceLikelihood, NormalLikelihood
from common.objectives.importance import DregElbo, IwaeElbo
from common.variational_posteriors import DiagonalGaussianPosterior, LaplacePosterior

FAMILIES = {"laplace_with_softmax": LaplacePosterior, "normal": DiagonalGaussianPosterior}
LOCATION_SCALE = {"normal": NormalLikelihood, "laplace": LaplaceLikelihood}
OBJECTIVES = {"dreg_looser": DregElbo, "iwae_looser": IwaeElbo}
N_HIDDEN = 512  # of the default networks


@dataclass
class MMVAEConfig:
    """What an MMVAE is made of.

    Args:
        n_modalities: the number of modalities.
        latent_dim: D.
        input_dims: {name: shape of one example}; the default networks and the rescaling factors are made from it.
        uses_likelihood_rescaling: weigh the modalities' log-likelihoods (Javaloy et al. 2022).
        rescale_factors: {name: weight}; default: the largest modality's size divided by the modality's.
        decoders_dist: {name: "normal", "bernoulli" (the decoder gives logits) or "laplace", or a function of the
            decoder's output and x, both (..., *shape), that gives the log-density of each value}; "normal" by default.
        decoder_dist_params: {name: {"scale": of the normal or the Laplace}}; 1 by default.
        custom_architectures: which networks are not the default ones; the model fills it.
        K: importance samples of each encoder.
        prior_and_posterior_dist: "laplace_with_softmax", whose scales sum to D, or "normal".
        learn_prior: learn the prior's location and scales.
        beta: weight of log p(z) - log q(z|X) in training.
        loss: "dreg_looser" or "iwae_looser".
    """

    n_modalities: int
    latent_dim: int = 10
    input_dims: dict[str, tuple[int, ...]] | None = None
    uses_likelihood_rescaling: bool = False
    rescale_factors: dict[str, float] | None = None
    decoders_dist: dict[str, str | Callable[[Tensor, Tensor], Tensor]] | None = None
    decoder_dist_params: dict[str, dict[str, float]] | None = None
    custom_architectures: list[str] = field(default_factory=list)
    K: int = 10
    prior_and_posterior_dist: Literal["laplace_with_softmax", "normal"] = "laplace_with_softmax"
    learn_prior: bool = True
    beta: float = 1.0
    loss: Literal["dreg_looser", "iwae_looser"] = "dreg_looser"


def check(config: MMVAEConfig, names: tuple[str, ...], encoders: Mapping | None, decoders: Mapping | None) -> None:
    """Raise InputError for a configuration that does not exist."""
    require(
        (encoders is not None and decoders is not None) or config.input_dims is not None,
        "the default networks are made from input_dims: give {name: shape}, or encoders and decoders",
    )
    for what, given in (("encoders", encoders), ("decoders", decoders), ("input_dims", config.input_dims)):
        require(given is None or set(given) == set(names), f"{what} are of {given and sorted(given)}, not of {names}")
    require(
        len(names) == config.n_modalities, f"n_modalities is {config.n_modalities}, there are {len(names)}: {names}"
    )
    for what in ("decoders_dist", "decoder_dist_params", "rescale_factors"):
        unknown = set(getattr(config, what) or {}) - set(names)
        require(not unknown, f"{what} of unknown modalities: {', '.join(sorted(unknown))}")
    for dist in (config.decoders_dist or {}).values():
        known = callable(dist) or dist in (*LOCATION_SCALE, "bernoulli")
        require(known, f"decoders_dist is normal, bernoulli, laplace or a function, not {dist!r}")
    for what, known in (("prior_and_posterior_dist", FAMILIES), ("loss", OBJECTIVES)):
        require(getattr(config, what) in known, f"{what} is {' or '.join(known)}, not {getattr(config, what)!r}")
    named = all(re.fullmatch("[^.,|]+", name) for name in names)
    require(named, f"a modality's name has none of the characters . , |: {', '.join(names)}")
    for what in ("K", "latent_dim"):
        require(getattr(config, what) > 0, f"{what} must be positive, not {getattr(config, what)}")
    require(0 <= config.beta < math.inf, f"beta must be a number that is not negative, it is {config.beta}")
    for name, params in (config.decoder_dist_params or {}).items():
        require(params.get("scale", 1) > 0, f"the scale of {name} must be positive, not {params.get('scale')}")
    require(
        config.uses_likelihood_rescaling or config.rescale_factors is None,
        "rescale_factors need uses_likelihood_rescaling=True",
    )
    require(
        not config.uses_likelihood_rescaling or config.rescale_factors is not None or config.input_dims is not None,
        "likelihood rescaling needs input_dims, or rescale_factors",
    )


def weights(config: MMVAEConfig) -> dict[str, float] | None:
    if not config.uses_likelihood_rescaling or config.rescale_factors is not None:
        return config.rescale_factors
    sizes = {name: math.prod(shape) for name, shape in config.input_dims.items()}
    return {name: max(sizes.values()) / size for name, size in sizes.items()}


def likelihood(config: MMVAEConfig, name: str, decoder: nn.Module) -> nn.Module:
    dist = (config.decoders_dist or {}).get(name, "normal")
    params = (config.decoder_dist_params or {}).get(name, {})
    training, like = decoder.training, next(decoder.parameters(), torch.zeros(()))
    with torch.no_grad():
        event_dims = decoder.eval()(like.new_zeros(1, config.latent_dim)).dim() - 1
    decoder.train(training)
    if dist in LOCATION_SCALE:
        unknown = set(params) - {"scale"}
        require(not unknown, f"decoder_dist_params of {name}: {dist} has a scale, no {', '.join(sorted(unknown))}")
        return LOCATION_SCALE[dist](params.get("scale", 1.0), event_dims)
    require(not params, f"decoder_dist_params of {name}: {dist} has none")
    return BernoulliLikelihood(event_dims) if dist == "bernoulli" else FunctionLikelihood(dist, event_dims)


def default_encoder(shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    heads = SplitLinearLayer(N_HIDDEN, (latent_dim, latent_dim))
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), N_HIDDEN), nn.ReLU(), heads)


def default_decoder(shape: tuple[int, ...], latent_dim: int) -> nn.Module:
    out = (nn.Linear(N_HIDDEN, math.prod(shape)), nn.Unflatten(1, tuple(shape)))
    return nn.Sequential(nn.Linear(latent_dim, N_HIDDEN), nn.ReLU(), *out)


class Named(nn.Module):
    """A network whose outputs may have names."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        out = self.network(x)
        if hasattr(out, self.names[0]):
            values = tuple(getattr(out, name) for name in self.names)
            return values if len(values) > 1 else values[0]
        return out
