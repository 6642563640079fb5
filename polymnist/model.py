"""Networks of the models on PolyMNIST (layers of the MoPoE authors' code for it, and of MMVAE+'s)."""

from functools import partial
from types import SimpleNamespace
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor, nn

from common.checkpoints import Name, NetworkOptions
from common.convolutions import ConvTranspose2d
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, LaplaceLikelihood
from common.models import VAE, MultimodalVAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from polymnist.data import modalities
from polymnist.options import MODELS

LIKELIHOOD_SCALE = 0.75
WIDTHS = {"conv": 32, "small": 16}  # channels of the first convolution, by --networks
RESNET_MAP = (256, 7, 7)
N_RESNET_FLAT = 256 * 7 * 7
SLOPE = 0.2


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    networks: Name | None = None
    n_modalities: Annotated[int, Meta(ge=2, le=10)] = 5


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of m0, m1, ... (B, 3, 28, 28), float in [0, 1]."""
    names, model, n_params = modalities(config.n_modalities), MODELS[config.model], FAMILIES[config.posterior].n_params
    shared, n_own = config.n_latents, config.n_private or 0
    encoders = {
        **{name: partial(encoder, (shared + n_own,) * n_params, width) for name, width in WIDTHS.items()},
        "resnet": partial(resnet_encoder, (shared,) * n_params, (n_own,) * n_params if n_own else ()),
    }
    encoder_of = {name: encoders[config.networks]() for name in names}
    if FUSIONS[model.fusion].joint_encoder:
        encoder_of[",".join(names)] = Stacked(encoders[config.networks](n_images=len(names)))
    decoders = {name: partial(decoder, width=width) for name, width in WIDTHS.items()} | {"resnet": resnet_decoder}
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


def encoder(heads: tuple[int, ...], width: int, n_images: int = 1) -> nn.Sequential:
    """Images (N, 3 n, 28, 28) -> the posterior's parameters, (N, D) each, by maps of width, 2 and 4 width channels."""
    d, w = heads[0], width
    return nn.Sequential(
        *(nn.Conv2d(3 * n_images, w, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(w, 2 * w, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(4 * w * 4 * 4, d), nn.ReLU(), SplitLinearLayer(d, heads)),
    )


def decoder(d: int, width: int) -> nn.Sequential:
    """z (N, D) -> location (N, 3, 28, 28) of the image, which no sigmoid bounds."""
    w = width
    return nn.Sequential(
        *(nn.Linear(d, 4 * w * 4 * 4), nn.ReLU(), nn.Unflatten(1, (4 * w, 4, 4))),
        *(ConvTranspose2d(4 * w, 2 * w, 3, 2, 1), nn.ReLU()),
        *(ConvTranspose2d(2 * w, w, 3, 2, 1, output_padding=1), nn.ReLU()),
        ConvTranspose2d(w, 3, 3, 2, 1, output_padding=1),
    )


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
