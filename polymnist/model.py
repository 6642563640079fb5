"""Networks of the models on PolyMNIST (layers of the MoPoE authors' code for it, and of MMVAE+'s)."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Annotated

from common.checkpoints import Name, NetworkOptions
from common.convolutions import ConvTranspose2d
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, LaplaceLikelihood
from common.models import VAE, MultimodalVAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from polymnist.data import modalities
from polymnist.options import MODELS

import torch
from msgspec import Meta
from torch import Tensor, nn

LIKELIHOOD_SCALE = 0.75
WIDTHS = {"conv": 32, "small": 16}  # channels of the first convolution, by --networks
RESNET_MAP = (256, 7, 7)
N_RESNET_FLAT = 256 * 7 * 7
SLOPE = 0.2


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    networks: Name | None = None
    n_modalities: Annotated[int, Meta(ge=2, le=10)] = 5
    quadrant: bool = False


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of m0, m1, ... (B, 3, 28, 28), float in [0, 1]; (B, 3, 64, 64) with --quadrant."""
    names, model, n_params = modalities(config.n_modalities), MODELS[config.model], FAMILIES[config.posterior].n_params
    shared, n_own, depth = config.n_latents, config.n_private or 0, 4 if config.quadrant else 3
    encoders = {
        **{name: partial(encoder, (shared + n_own,) * n_params, width, depth) for name, width in WIDTHS.items()},
        "resnet": partial(resnet_encoder, (shared,) * n_params, (n_own,) * n_params if n_own else ()),
    }
    encoder_of = {name: encoders[config.networks]() for name in names}
    if FUSIONS[model.fusion].joint_encoder:
        encoder_of[",".join(names)] = Stacked(encoders[config.networks](n_images=len(names)))
    decoders = {name: partial(decoder, width=width, depth=depth) for name, width in WIDTHS.items()}
    decoders["resnet"] = resnet_decoder
    return VAE(
        model.fusion,
        encoder=encoder_of,
        decoder={name: decoders[config.networks](shared + n_own) for name in names},
        likelihood=GroupedLikelihood(**{name: LaplaceLikelihood(LIKELIHOOD_SCALE, event_dims=3) for name in names}),
        latent_dim=shared + n_own * len(names),
        posterior=config.posterior,
        private=dict.fromkeys(names, n_own) if n_own else None,
        n_clusters=config.n_clusters,
        rho=config.rho,
    )


def encoder(heads: tuple[int, ...], width: int, depth: int, n_images: int = 1) -> nn.Sequential:
    """Images (N, 3 n, H, W) -> the posterior's parameters, (N, D) each, by maps of width, 2 width, ... channels.

    Args:
        depth: number of convolutions, 3 for 28 x 28 pixels and 4 for 64 x 64: the last map has 4 x 4.
    """
    d, channels = heads[0], (3 * n_images, *(width * 2**i for i in range(depth)))
    layers = [layer for a, b in pairwise(channels) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())]
    layers += [nn.Flatten(), nn.Linear(channels[-1] * 4 * 4, d), nn.ReLU()]
    return nn.Sequential(*layers, SplitLinearLayer(d, heads))


def decoder(d: int, width: int, depth: int) -> nn.Sequential:
    """z (N, D) -> location (N, 3, H, W) of the image, which no sigmoid bounds; `encoder` says what depth is."""
    channels = (*(width * 2**i for i in reversed(range(depth))), 3)
    layers = [nn.Linear(d, channels[0] * 4 * 4), nn.ReLU(), nn.Unflatten(1, (channels[0], 4, 4))]
    for i, (a, b) in enumerate(pairwise(channels)):
        doubles = depth > 3 or i > 0  # else 4 x 4 pixels become 7 x 7
        layers += [ConvTranspose2d(a, b, 3, 2, 1, output_padding=int(doubles)), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Block(nn.Module):
    """A residual block, (N, a, H, W) -> (N, b, H, W)."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        hidden = min(a, b)
        self.residual = nn.Sequential(
            *(nn.LeakyReLU(SLOPE), nn.Conv2d(a, hidden, 3, 1, 1)),
            *(nn.LeakyReLU(SLOPE), nn.Conv2d(hidden, b, 3, 1, 1)),
        )
        self.shortcut = nn.Identity() if a == b else nn.Conv2d(a, b, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + 0.1 * self.residual(x)


class Stacked(nn.Sequential):
    """A network on n images (N, 3, 28, 28), which sees all their channels."""

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return super().forward(torch.cat(images, dim=1))


class SideBySide(nn.ModuleList):
    """Networks x -> parameters of the shared latents, and of the private ones, joined: (N, D) each."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.cat(params, dim=1) for params in zip(*(network(x) for network in self), strict=True))


def resnet_encoder(shared: tuple[int, ...], own: tuple[int, ...], n_images: int = 1) -> nn.Module:
    """Images (N, 3 n, 28, 28) -> the posterior's parameters, (N, D) each: a network for each part of the latents."""

    def network(heads: tuple[int, ...]) -> nn.Sequential:
        return nn.Sequential(
            *(nn.Conv2d(3 * n_images, 64, 3, 1, 1), Block(64, 64), nn.AvgPool2d(3, 2, 1)),
            *(Block(64, 128), nn.AvgPool2d(3, 2, 1)),
            *(Block(128, 256), nn.Flatten(), SplitLinearLayer(N_RESNET_FLAT, heads)),
        )

    return SideBySide([network(shared), network(own)]) if own else network(shared)


def resnet_decoder(d: int) -> nn.Sequential:
    """z (N, D) -> location (N, 3, 28, 28) of the image, which no sigmoid bounds."""
    return nn.Sequential(
        *(nn.Linear(d, N_RESNET_FLAT), nn.Unflatten(1, RESNET_MAP)),
        *(Block(256, 128), nn.Upsample(scale_factor=2)),
        *(Block(128, 64), nn.Upsample(scale_factor=2)),
        *(Block(64, 64), nn.LeakyReLU(SLOPE), nn.Conv2d(64, 3, 3, 1, 1)),
    )
