"""Networks of the models on PolyMNIST (layers of the MoPoE authors' code for it)."""

from typing import Protocol

from torch import nn

from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, LaplaceLikelihood
from common.models import FAMILIES, VAE, MultimodalVAE
from polymnist.data import modalities
from polymnist.options import FUSIONS

LIKELIHOOD_SCALE = 0.75
MAP = (128, 4, 4)  # the last feature map
N_FLAT = 128 * 4 * 4


class Config(Protocol):
    """The options that `build` reads."""

    model: str
    n_latents: int
    n_modalities: int
    posterior: str


def build(config: Config) -> MultimodalVAE:
    """Build the model of m0, m1, ... (B, 3, 28, 28), float in [0, 1]."""
    d, names = config.n_latents, modalities(config.n_modalities)
    heads = (d,) * FAMILIES[config.posterior].n_params
    return VAE(
        FUSIONS[config.model],
        encoder={name: encoder(heads) for name in names},
        decoder={name: decoder(d) for name in names},
        likelihood=GroupedLikelihood(**{name: LaplaceLikelihood(LIKELIHOOD_SCALE, event_dims=3) for name in names}),
        latent_dim=d,
        posterior=config.posterior,
    )


def encoder(heads: tuple[int, ...]) -> nn.Sequential:
    """Image (N, 3, 28, 28) -> the expert's parameters, (N, D) each."""
    d = heads[0]
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(N_FLAT, d), nn.ReLU(), SplitLinearLayer(d, heads)),
    )


def decoder(d: int) -> nn.Sequential:
    """z (N, D) -> location (N, 3, 28, 28) of the image, which no sigmoid bounds."""
    return nn.Sequential(
        *(nn.Linear(d, N_FLAT), nn.ReLU(), nn.Unflatten(1, MAP)),
        *(nn.ConvTranspose2d(128, 64, 3, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 3, 2, 1, output_padding=1), nn.ReLU()),
        nn.ConvTranspose2d(32, 3, 3, 2, 1, output_padding=1),
    )
