"""Networks of MVAE on six views of a face; each view has celeba's image networks."""

from types import SimpleNamespace

from celeba.model import image_decoder, image_encoder
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood
from common.models import VAE, MultimodalVAE
from common.models.families import FAMILIES

CHANNELS = {"image": 3, "gray": 1, "edge": 1, "mask": 1, "obscured": 3, "watermark": 3}


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image, gray, edge, mask, obscured and watermark, (B, 3 or 1, 64, 64) each, in [0, 1]."""
    d = config.n_latents
    heads = (d,) * FAMILIES[config.posterior].n_params
    return VAE(
        config.fusion,
        encoder={name: image_encoder(channels, heads) for name, channels in CHANNELS.items()},
        decoder={name: image_decoder(channels, d) for name, channels in CHANNELS.items()},
        likelihood=GroupedLikelihood(**{name: BernoulliLikelihood(event_dims=3) for name in CHANNELS}),
        latent_dim=d,
        posterior=config.posterior,
    )
