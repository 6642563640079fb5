"""Networks of the models on FashionMNIST (layers of the authors' fashionmnist/model.py); mnist has the label's."""

from types import SimpleNamespace

from common.authors_files import layer
from common.convolutions import ConvTranspose2d
from common.encoders_decoders import swish_mlp
from common.models import MultimodalVAE
from mnist.model import WIDTH, assemble

from torch import nn


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image (B, 1, 28, 28) in [0, 1] and text (B,), the class; --model vae has the image alone."""
    return assemble(config, image_features, image_decoder)


def image_features() -> nn.Sequential:
    """Build the network image (N, 1, 28, 28) -> features (N, 512)."""
    return nn.Sequential(
        nn.Conv2d(1, 64, 4, 2, 1, bias=False),
        nn.SiLU(),
        nn.Conv2d(64, 128, 4, 2, 1, bias=False),
        nn.SiLU(),
        nn.Flatten(),
        swish_mlp(6272, WIDTH),
    )


def image_decoder(n_inputs: int) -> nn.Sequential:
    """Build the network (N, n_inputs) -> logits (N, 1, 28, 28)."""
    return nn.Sequential(
        swish_mlp(n_inputs, WIDTH, 6272),
        nn.Unflatten(1, (128, 7, 7)),
        ConvTranspose2d(128, 64, 4, 2, 1, bias=False),
        nn.SiLU(),
        ConvTranspose2d(64, 1, 4, 2, 1, bias=False),
    )


# our parameters -> the authors'
AUTHORS = {
    "encoder.image.0.weight": ("image_encoder.features.0.weight",),
    "encoder.image.2.weight": ("image_encoder.features.2.weight",),
    **layer("encoder.image.5.0", "image_encoder.classifier.0"),
    **layer("encoder.image.6.linear", "image_encoder.classifier.2"),
    "encoder.text.0.weight": ("text_encoder.net.0.weight",),
    **layer("encoder.text.2.0", "text_encoder.net.2"),
    **layer("encoder.text.3.linear", "text_encoder.net.4"),
    **layer("decoder.image.0.0", "image_decoder.upsampler.0"),
    **layer("decoder.image.0.2", "image_decoder.upsampler.2"),
    "decoder.image.2.weight": ("image_decoder.hallucinate.0.weight",),
    "decoder.image.4.weight": ("image_decoder.hallucinate.2.weight",),
    **layer("decoder.text.0.0", "text_decoder.net.0"),
    **layer("decoder.text.0.2", "text_decoder.net.2"),
    **layer("decoder.text.0.4", "text_decoder.net.4"),
    **layer("decoder.text.1", "text_decoder.net.6"),
}
AUTHORS_OPTIONS = {"model": "mvae", "posterior": "gaussian"}
