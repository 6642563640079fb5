"""Networks of the translation: MultiMNIST's encoders and decoders of strings, with words for characters."""

from types import SimpleNamespace

from common.likelihoods import CategoricalLikelihood, GroupedLikelihood
from common.models import VAE, MultimodalVAE
from multimnist.model import TextDecoder, TextEncoder
from translation.data import CODES, LENGTH, start, vocabulary


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of english (B, 8) and french (B, 8), ids of words, which are independent given z."""
    d, n_words = config.n_latents, {language: len(vocabulary(language)) for language in CODES}
    return VAE(
        config.fusion,
        encoder={language: TextEncoder((d, d), n) for language, n in n_words.items()},
        decoder={language: TextDecoder(d, n, LENGTH, start(language)) for language, n in n_words.items()},
        likelihood=GroupedLikelihood(**{language: CategoricalLikelihood(event_dims=1) for language in CODES}),
        latent_dim=d,
    )
