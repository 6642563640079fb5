"""Models of images as parts: the two halves, or each pixel."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import log, prod, sqrt
from typing import Protocol

import torch
from torch import Tensor, nn

from common.data.batches import n_columns
from common.encoders_decoders import SharedNetwork, SplitLinearLayer, swish_mlp
from common.errors import require
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood, LaplaceLikelihood, NormalLikelihood
from common.models import FAMILIES, VAE, MultimodalVAE
from common.variational_strategies import SetStrategy

SIZE, N_PIXELS = 28, 784
SHAPES = {  # of the modalities, by layout; side by side and flattened they are the pixels of an image, row by row
    "list": {"top": (N_PIXELS // 2,), "bottom": (N_PIXELS // 2,)},
    "vectorised": {"halves": (2, N_PIXELS // 2)},
    "pixels": {"pixel": (N_PIXELS, 1)},
}
LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood,
    "laplace": partial(LaplaceLikelihood, 0.2),
    "normal": partial(NormalLikelihood, 0.2),
}


class Networks(Protocol):
    """What of a configuration makes the model."""

    layout: str
    decoder: str
    fusion: str
    posterior: str
    likelihood: str
    learn_prior: bool
    n_latents: int
    hidden: int
    layers: int


def split(images: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Images (N, 1, 28, 28) as modalities, {name: (N, *shape)}."""
    parts = images.flatten(1).split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.unflatten(1, shape) for part, (name, shape) in zip(parts, shapes.items(), strict=True)}


def join(parts: Mapping[str, Tensor]) -> Tensor:
    """Modalities (N, ...) as images (N, 1, 28, 28)."""
    return torch.cat([part.flatten(1) for part in parts.values()], dim=1).view(-1, 1, SIZE, SIZE)


def build(config: Networks) -> MultimodalVAE:
    """The model of the parts of an image, each in [0, 1] (`SHAPES`)."""
    d, hidden = config.n_latents, [config.hidden] * config.layers
    family = FAMILIES[config.posterior]
    heads = (d,) * family.n_params
    fusion = config.fusion
    if config.layout == "list":
        sizes = {name: size for name, (size,) in SHAPES[config.layout].items()}
        encoder = {
            name: nn.Sequential(swish_mlp(size, *hidden), SplitLinearLayer(config.hidden, heads))
            for name, size in sizes.items()
        }
        decoder = {
            name: nn.Sequential(swish_mlp(d, *hidden), nn.Linear(config.hidden, size)) for name, size in sizes.items()
        }
    else:
        ((name, (n, size)),) = SHAPES[config.layout].items()
        last = nn.Identity() if fusion == "set" else SplitLinearLayer(config.hidden, heads)
        if config.layout == "pixels":
            last = nn.Sequential(last, OneOfMany(n, gaussian=fusion == "poe" and family.n_params == 2))
        encoder = {name: SharedNetwork(n, nn.Linear(size, config.hidden), _rest(hidden, last))}
        last = nn.Linear(config.hidden, size if config.decoder == "shared" else n * size)
        if config.decoder == "shared":
            decoder = {name: SharedNetwork(n, nn.Linear(d, config.hidden), _rest(hidden, last))}
        else:
            decoder = {name: nn.Sequential(swish_mlp(d, *hidden), last, nn.Unflatten(1, (n, size)))}
    if fusion == "set":
        fusion = SetStrategy(
            nn.Sequential(swish_mlp(config.hidden, config.hidden), SplitLinearLayer(config.hidden, heads))
        )
    likelihood = GroupedLikelihood(**{name: LIKELIHOODS[config.likelihood]() for name in encoder})
    return VAE(fusion, encoder, decoder, likelihood, d, posterior=config.posterior, learn_prior=config.learn_prior)


def _rest(hidden: Sequence[int], last: nn.Module) -> nn.Sequential:
    # of mean 0 at first: else what all pixels say alike drowns the sum
    return nn.Sequential(nn.Tanh(), swish_mlp(*hidden), last)


class OneOfMany(nn.Module):
    """What one of n pixels adds to a sum of natural parameters, or to a set encoder's: 1 / sqrt(n) of it alone.

    Outputs of order 1 then make a sum of order 1. A Gaussian's are (sqrt(n) mu, logvar + log n).
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
    """Images (N, 1, 28, 28) as the model's modalities."""
    return split(images, next(shapes for shapes in SHAPES.values() if tuple(shapes) == model.modalities))


def columns(model: MultimodalVAE, observed: Tensor) -> Tensor:
    """Which of the model's parts are observed, (N, M) bool, given the pixels (N, 784).

    Raises:
        InputError: a part is observed partly.
    """
    parts = observed.unflatten(1, (n_columns(model.columns), -1))  # (N, M, pixels)
    given = parts.all(dim=-1)
    whole = bool((given == parts.any(dim=-1)).all())
    require(whole, "--observed: this model sees a half as a whole or not at all: top or bottom")
    return given


def pixels(given: Tensor) -> Tensor:
    """The pixels of parts (N, M): (N, 1, 28, 28) bool."""
    return given.repeat_interleave(N_PIXELS // given.shape[1], dim=1).view(-1, 1, SIZE, SIZE)
