"""Networks of the models on CelebA (layers of the authors' celeba/model.py)."""

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

from celeba.attributes import ATTRIBUTES
from common.authors_files import MVAE_IMAGE, NORM, layer
from common.convolutions import ConvTranspose2d
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import BernoulliLikelihood
from common.models import MultimodalVAE
from common.models.choices import Networks, build_pair

from torch import nn

WIDTH = 512
MODELS_BY_FUSION = {"poe": "mvae", "moe": "bivcca", "mopoe": "mopoe"}  # checkpoints older than --model name the fusion


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image (B, 3, 64, 64) in [0, 1] and attrs (B, 18), 0 or 1; --model vae has the image alone."""
    networks = Networks(
        encoder={"image": partial(image_encoder, 3), "attrs": attrs_encoder},
        features={
            "image": lambda: image_encoder(3, (1,))[:-1],
            "attrs": lambda: nn.Sequential(*hidden(len(ATTRIBUTES), WIDTH, WIDTH)),
        },
        width=WIDTH,
        decoder={"image": partial(image_decoder, 3), "attrs": attrs_decoder},
        likelihood={"image": partial(BernoulliLikelihood, event_dims=3), "attrs": BernoulliLikelihood},
        condition=lambda attrs: attrs,
        n_condition=len(ATTRIBUTES),
    )
    model = getattr(config, "model", None) or MODELS_BY_FUSION[config.fusion]
    return build_pair(
        model, networks, config.n_latents, config.posterior, config.n_private, config.n_clusters, config.rho
    )


def image_encoder(channels: int, heads: tuple[int, ...]) -> nn.Sequential:
    """Build the encoder image (N, C, 64, 64) -> parameters of its expert, (N, D) each; heads holds each D."""
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 4, 2, 1, bias=False), nn.SiLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU()),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=False), nn.BatchNorm2d(128), nn.SiLU()),
        *(nn.Conv2d(128, 256, 4, 1, 0, bias=False), nn.BatchNorm2d(256), nn.SiLU()),
        *(nn.Flatten(), nn.Linear(6400, WIDTH), nn.SiLU(), nn.Dropout(0.1)),
        SplitLinearLayer(WIDTH, heads),
    )


def image_decoder(channels: int, n_latents: int) -> nn.Sequential:
    """Build the decoder z (N, D) -> logits (N, C, 64, 64)."""
    return nn.Sequential(
        *(nn.Linear(n_latents, 6400), nn.SiLU(), nn.Unflatten(1, (256, 5, 5))),
        *(ConvTranspose2d(256, 128, 4, 1, 0, bias=False), nn.BatchNorm2d(128), nn.SiLU()),
        *(ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU()),
        *(ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU()),
        ConvTranspose2d(32, channels, 4, 2, 1, bias=False),
    )


def attrs_encoder(heads: tuple[int, ...]) -> nn.Sequential:
    """Build the encoder attrs (N, 18) -> parameters of its expert, (N, D) each; heads holds each D."""
    return nn.Sequential(*hidden(len(ATTRIBUTES), WIDTH, WIDTH), SplitLinearLayer(WIDTH, heads))


def attrs_decoder(n_latents: int) -> nn.Sequential:
    """Build the decoder z (N, D) -> logits (N, 18)."""
    return nn.Sequential(*hidden(n_latents, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, len(ATTRIBUTES)))


def hidden(*sizes: int) -> list[nn.Module]:
    """Build linear layers between the sizes, each followed by batch norm and SiLU."""
    return [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.BatchNorm1d(m), nn.SiLU())]


# our parameters -> the authors'
AUTHORS = {
    **MVAE_IMAGE,
    **layer("encoder.attrs.0", "attrs_encoder.net.0"),
    **layer("encoder.attrs.1", "attrs_encoder.net.1", kinds=NORM),
    **layer("encoder.attrs.3", "attrs_encoder.net.3"),
    **layer("encoder.attrs.4", "attrs_encoder.net.4", kinds=NORM),
    **layer("encoder.attrs.6.linear", "attrs_encoder.net.6"),
    **layer("decoder.attrs.0", "attrs_decoder.net.0"),
    **layer("decoder.attrs.1", "attrs_decoder.net.1", kinds=NORM),
    **layer("decoder.attrs.3", "attrs_decoder.net.3"),
    **layer("decoder.attrs.4", "attrs_decoder.net.4", kinds=NORM),
    **layer("decoder.attrs.6", "attrs_decoder.net.6"),
    **layer("decoder.attrs.7", "attrs_decoder.net.7", kinds=NORM),
    **layer("decoder.attrs.9", "attrs_decoder.net.9"),
}
AUTHORS_OPTIONS = {"model": "mvae", "posterior": "gaussian"}
