"""Models of images whose modalities are their two halves, or their pixels."""

from collections.abc import Mapping
from math import log, prod, sqrt
from types import SimpleNamespace

from common.authors_files import Depth, Size
from common.checkpoints import Name, NetworkOptions
from common.data.batches import n_columns
from common.encoders_decoders import ConcatLayer, SharedNetwork, SplitLinearLayer, swish_mlp
from common.errors import require
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood, LaplaceLikelihood, SphericalGaussianLikelihood
from common.models import VAE, MultimodalVAE
from common.models.families import FAMILIES, vmf_family
from common.variational_strategies import SetStrategy, Strategy, UnstructuredStrategy

import torch
from torch import Tensor, nn

SIZE, N_PIXELS = 28, 784
SHAPES = {  # shapes of the modalities for each layout; flattened and concatenated they are an image's rows of pixels
    "list": {"top": (N_PIXELS // 2,), "bottom": (N_PIXELS // 2,)},
    "vectorised": {"halves": (2, N_PIXELS // 2)},
    "pixels": {"pixel": (N_PIXELS, 1)},
}
OLD_SCALE = 0.2  # of the likelihoods of models whose files name none


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    FIXED = (*NetworkOptions.FIXED, "likelihood", "n_vmfs")

    hidden: Size = 1
    layers: Depth = 1
    n_vmfs: Size = 1
    embed_dim: Size | None = None
    layout: Name | None = None
    decoder: Name | None = None
    likelihood: Name | None = None
    likelihood_scale: float | None = None


def n_parts(layout: str) -> int:
    """Return the number of an image's parts: 2 halves, or 784 pixels."""
    return sum(shape[0] if len(shape) > 1 else 1 for shape in SHAPES[layout].values())


def split(images: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Split images (N, 1, 28, 28) into modalities {name: (N, *shape)}."""
    pieces = images.flatten(1).split([prod(shape) for shape in shapes.values()], dim=1)
    return {name: piece.unflatten(1, shape) for piece, (name, shape) in zip(pieces, shapes.items(), strict=True)}


def binarised(images: Tensor) -> Tensor:
    """Set pixels (N, 1, 28, 28) uint8 above 127 to 255 and others to 0."""
    return 255 * (images > 127).to(torch.uint8)


def join(modalities: Mapping[str, Tensor]) -> Tensor:
    """Join modalities {name: (N, ...)} to images (N, 1, 28, 28)."""
    return torch.cat([x.flatten(1) for x in modalities.values()], dim=1).view(-1, 1, SIZE, SIZE)


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of an image's halves or pixels, each in [0, 1], with the modalities of `SHAPES`."""
    heads = (config.n_latents,) * FAMILIES[config.posterior].n_params
    shapes = SHAPES[config.layout]
    encoder = {name: _encoder(config, heads, *shape) for name, shape in shapes.items()}
    decoder = {name: _decoder(config, *shape) for name, shape in shapes.items()}
    return VAE(
        _fusion(config, heads),
        encoder,
        decoder,
        GroupedLikelihood(**{name: _likelihood(config) for name in shapes}),
        config.n_latents,
        posterior=vmf_family(config.n_vmfs) if config.posterior == "vmf" else config.posterior,
        learn_prior=config.learn_prior,
    )


def _encoder(config: SimpleNamespace, heads: tuple[int, ...], *shape: int) -> nn.Module:
    """Build the encoder of a half (size,), or of all halves or pixels together (n, size)."""
    *n, size = shape
    if config.fusion == "unstructured":
        return Values(*n)
    hidden = [config.hidden] * config.layers
    if not n:
        return nn.Sequential(swish_mlp(size, *hidden), SplitLinearLayer(config.hidden, heads))
    last = nn.Identity() if config.fusion == "set" else SplitLinearLayer(config.hidden, heads)
    if config.layout == "pixels":
        last = nn.Sequential(last, OneOfMany(*n, gaussian=config.fusion == "poe" and len(heads) == 2))
    return _shared_network(config, *n, size, last)


def _decoder(config: SimpleNamespace, *shape: int) -> nn.Module:
    """Build the decoder of a half (size,), or of all halves or pixels together (n, size)."""
    *n, size = shape
    if n and config.decoder == "shared":
        return _shared_network(config, *n, config.n_latents, nn.Linear(config.hidden, size))
    hidden = swish_mlp(config.n_latents, *[config.hidden] * config.layers)
    last = nn.Linear(config.hidden, prod(shape))
    return nn.Sequential(hidden, last, nn.Unflatten(1, shape)) if n else nn.Sequential(hidden, last)


def _shared_network(config: SimpleNamespace, n: int, n_inputs: int, last: nn.Module) -> SharedNetwork:
    """Build a network for n halves or pixels, which embeddings tell apart."""
    first = nn.Linear(n_inputs, config.hidden)
    # tanh keeps the features' mean at 0 at first: a mean that all pixels share would dominate the sum over them
    rest = nn.Sequential(nn.Tanh(), swish_mlp(*[config.hidden] * config.layers), last)
    return SharedNetwork(n, first, rest, config.embed_dim)


def _fusion(config: SimpleNamespace, heads: tuple[int, ...]) -> str | Strategy:
    """Return the fusion's name, or build the strategy of a fusion that has its own network."""
    hidden = [config.hidden] * config.layers
    if config.fusion == "set":
        network = nn.Sequential(swish_mlp(config.hidden, config.hidden), SplitLinearLayer(config.hidden, heads))
        return SetStrategy(network)
    if config.fusion == "unstructured":
        n_inputs = N_PIXELS + n_parts(config.layout)
        layers = (ConcatLayer(), swish_mlp(n_inputs, *hidden), SplitLinearLayer(config.hidden, heads))
        return UnstructuredStrategy(nn.Sequential(*layers))
    return config.fusion


def _likelihood(config: SimpleNamespace) -> nn.Module:
    """Build the likelihood of a half, or of all halves or pixels together."""
    families = {"laplace": LaplaceLikelihood, "normal": SphericalGaussianLikelihood}
    is_bernoulli, scale = config.likelihood == "bernoulli", config.likelihood_scale or OLD_SCALE
    likelihood = BernoulliLikelihood() if is_bernoulli else families[config.likelihood](scale)
    likelihood.takes_bytes = True  # a vector of pixels
    return likelihood


class Values(nn.Module):
    """An encoder that leaves the encoding to the strategy: values (N, ...) -> the values, a tuple of one tensor.

    Args:
        n_elements: number of elements of a set; None for a plain modality.
    """

    def __init__(self, n_elements: int | None = None) -> None:
        super().__init__()
        self.n_elements = n_elements

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


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
