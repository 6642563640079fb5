"""Networks of the six tables and the class: a hidden layer each, and Gaussian likelihoods of standardised values."""

from types import SimpleNamespace

from common.checkpoints import NetworkOptions
from common.data.scales import Scales
from common.encoders_decoders import SplitLinearLayer, swish_mlp
from common.likelihoods import CategoricalLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE, MultimodalVAE
from common.models.choices import MODELS
from mfeat.data import N_CLASSES

from torch import nn

WIDTH = 256
SCALE = 0.5  # standard deviation of p(x|z), where a column of the training examples has 1


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    scales: Scales | None = None


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of the tables in config.scales, (B, columns), and of digit (B,), the class."""
    d, columns = config.n_latents, {name: len(x) for name, x in config.scales.items()}
    encoder = {name: nn.Sequential(swish_mlp(n, WIDTH), SplitLinearLayer(WIDTH, (d, d))) for name, n in columns.items()}
    encoder["digit"] = nn.Sequential(nn.Embedding(N_CLASSES, WIDTH), nn.SiLU(), SplitLinearLayer(WIDTH, (d, d)))
    outputs = columns | {"digit": N_CLASSES}
    return VAE(
        MODELS[config.model].fusion,
        encoder=encoder,
        decoder={name: nn.Sequential(swish_mlp(d, WIDTH), nn.Linear(WIDTH, n)) for name, n in outputs.items()},
        likelihood=GroupedLikelihood(
            **{name: SphericalGaussianLikelihood(SCALE) for name in columns}, digit=CategoricalLikelihood()
        ),
        latent_dim=d,
    )
