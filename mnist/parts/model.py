"""Models of images whose modalities are their two halves, or their pixels."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log, prod, sqrt
from typing import Protocol

import torch
from torch import Tensor, nn

from common.data.batches import n_columns
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, swish_mlp
from common.errors import require
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood, LaplaceLikelihood, SphericalGaussianLikelihood
from common.models import FAMILIES, VAE, MultimodalVAE
from common.variational_strategies import SetStrategy

SIZE, N_PIXELS = 28, 784
SHAPES = {  # shapes of the modalities for each layout; flattened and concatenated they are an image's rows of pixels
    "list": {"top": (N_PIXELS // 2,), "bottom": (N_PIXELS // 2,)},
    "vectorised": {"halves": (2, N_PIXELS // 2)},
    "pixels": {"pixel": (N_PIXELS, 1)},
}
LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood,
    "laplace": partial(LaplaceLikelihood, 0.2),
    "normal": partial(SphericalGaussianLikelihood, 0.2),
}


class Networks(Protocol):
    """The options that determine the model."""

    layout: str
    decoder: str
    fusion: str
    posterior: str
    likelihood: str
    learn_prior: bool
    n_latents: int
    n_vmfs: int
    hidden: int
    layers: int


def split(images: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Split images (N, 1, 28, 28) into modalities {name: (N, *shape)}."""
    pieces = images.flatten(1).split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.unflatten(1, shape) for piece, (name, shape) in zip(pieces, shapes.items(), strict=True)}


def join(modalities: Mapping[str, Tensor]) -> Tensor:
    """Join modalities {name: (N, ...)} to images (N, 1, 28, 28)."""
    return torch.cat([x.flatten(1) for x in modalities.values()], dim=1).view(-1, 1, SIZE, SIZE)


def build(config: Networks) -> MultimodalVAE:
    """Build the model of an image's halves or pixels, each in [0, 1], with the modalities of `SHAPES`."""
    heads = (config.n_latents,) * FAMILIES[config.posterior].n_params
    networks = _separate_networks if config.layout == "list" else _shared_networks
    encoder, decoder = networks(config, heads)
    fusion = config.fusion
    if fusion == "set":
        fusion = SetStrategy(
            nn.Sequential(swish_mlp(config.hidden, config.hidden), SplitLinearLayer(config.hidden, heads))
        )
    return VAE(
        fusion,
        encoder,
        decoder,
        GroupedLikelihood(**{name: LIKELIHOODS[config.likelihood]() for name in encoder}),
        config.n_latents,
        posterior=config.posterior,
        learn_prior=config.learn_prior,
        n_vmfs=getattr(config, "n_vmfs", 1),  # checkpoints that are older than the option lack it
    )


def _separate_networks(
    config: Networks, heads: tuple[int, ...]
) -> tuple[dict[str, nn.Sequential], dict[str, nn.Sequential]]:
    """Build an encoder and a decoder for each half, by its name."""
    hidden = [config.hidden] * config.layers
    sizes = {name: size for name, (size,) in SHAPES[config.layout].items()}
    encoder = {
        name: nn.Sequential(swish_mlp(size, *hidden), SplitLinearLayer(config.hidden, heads))
        for name, size in sizes.items()
    }
    decoder = {
        name: nn.Sequential(swish_mlp(config.n_latents, *hidden), nn.Linear(config.hidden, size))
        for name, size in sizes.items()
    }
    return encoder, decoder


def _shared_networks(config: Networks, heads: tuple[int, ...]) -> tuple[dict[str, nn.Module], dict[str, nn.Module]]:
    """Build one encoder and one decoder for all halves or pixels, by the name of their modality."""
    hidden = [config.hidden] * config.layers
    ((name, (n, size)),) = SHAPES[config.layout].items()
    last = nn.Identity() if config.fusion == "set" else SplitLinearLayer(config.hidden, heads)
    if config.layout == "pixels":
        last = nn.Sequential(last, OneOfMany(n, gaussian=config.fusion == "poe" and len(heads) == 2))
    encoder = SharedNetwork(n, nn.Linear(size, config.hidden), _after_embedding(hidden, last))
    last = nn.Linear(config.hidden, size if config.decoder == "shared" else n * size)
    if config.decoder == "shared":
        decoder = SharedNetwork(n, nn.Linear(config.n_latents, config.hidden), _after_embedding(hidden, last))
    else:
        decoder = nn.Sequential(swish_mlp(config.n_latents, *hidden), last, nn.Unflatten(1, (n, size)))
    return {name: encoder}, {name: decoder}


def _after_embedding(hidden: Sequence[int], last: nn.Module) -> nn.Sequential:
    """Build the layers of a `SharedNetwork` after its first."""
    # tanh keeps their mean at 0 at first: a mean that all pixels share would dominate the sum over them
    return nn.Sequential(nn.Tanh(), swish_mlp(*hidden), last)


class OneOfMany(nn.Module):
    """Scale what one of n pixels adds to a sum of natural parameters, or to a set encoder's sum, by 1 / sqrt(n).

    Outputs of order 1 then have a sum of order 1. For a Gaussian (mu, logvar) becomes (sqrt(n) mu, logvar + log n).
    """

    def __init__(self, n: int, gaussian: bool) -> None:
        super().__init__()
        self.n, self.gaussian = n, gaussian

    def forward(self, params: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self.gaussian:
            mu, logvar = params
            return sqrt(self.n) * mu, logvar + log(self.n)
        (x,) = (params,) if isinstance(params, Tensor) else params
        return (x / sqrt(self.n),)


def inputs(model: MultimodalVAE, images: Tensor) -> dict[str, Tensor]:
    """Split images (N, 1, 28, 28) into the model's modalities {name: (N, ...)}."""
    return split(images, next(shapes for shapes in SHAPES.values() if tuple(shapes) == model.modalities))


def columns(model: MultimodalVAE, observed: Tensor) -> Tensor:
    """Return which of the model's halves or pixels are observed, (N, M) bool, from the observed pixels (N, 784) bool.

    Raises:
        InputError: only some pixels of a half are observed.
    """
    observed = observed.unflatten(1, (n_columns(model.columns), -1))  # (N, M, pixels)
    fully_observed = observed.all(dim=-1)
    all_or_none = bool((fully_observed == observed.any(dim=-1)).all())
    require(all_or_none, "--observed: this model sees a half as a whole or not at all: give top or bottom")
    return fully_observed


def pixels(observed: Tensor) -> Tensor:
    """Return the observed pixels (N, 1, 28, 28) bool, from the observed halves or pixels (N, M) bool."""
    return observed.repeat_interleave(N_PIXELS // observed.shape[1], dim=1).view(-1, 1, SIZE, SIZE)
