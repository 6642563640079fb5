"""Networks of the models on MNIST (Wu & Goodman 2018, appendix; layers of the authors' mnist/model.py)."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

from common.authors_files import layer
from common.encoders_decoders import SplitLinearLayer, swish_mlp
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood
from common.models import MultimodalVAE
from common.models.choices import Networks, build_pair

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

N_CLASSES = 10
WIDTH = 512


class EachClass(nn.Sequential):
    """A network on labels (N,), an embedding first, that runs once for each class instead of for each example."""

    def forward(self, label: Tensor) -> tuple[Tensor, ...]:
        classes = torch.arange(self[0].num_embeddings, device=label.device)
        # the gradients of indexing would be summed in an arbitrary order by several CPU threads
        return tuple(nn.functional.embedding(label, params) for params in super().forward(classes))


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image (B, 1, 28, 28) in [0, 1] and text (B,), the class; --model vae has the image alone."""
    return assemble(config, image_features, image_decoder)


def image_features() -> nn.Sequential:
    """Build the network image (N, 1, 28, 28) -> features (N, 512)."""
    return nn.Sequential(nn.Flatten(), swish_mlp(784, WIDTH, WIDTH))


def image_decoder(n_inputs: int) -> nn.Sequential:
    """Build the network (N, n_inputs) -> logits (N, 1, 28, 28)."""
    return nn.Sequential(swish_mlp(n_inputs, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, 784), nn.Unflatten(1, (1, 28, 28)))


def assemble(
    config: SimpleNamespace, image_features: Callable[[], nn.Sequential], image_decoder: Callable[[int], nn.Sequential]
) -> MultimodalVAE:
    """Build the model config.model from image networks; the networks of the label are always the same.

    Args:
        image_features: builds the network image (N, 1, H, W) -> features (N, 512).
        image_decoder: builds the network (N, n_inputs) -> logits (N, 1, H, W), given n_inputs.
    """
    networks = Networks(
        encoder={
            "image": lambda heads: nn.Sequential(*image_features(), SplitLinearLayer(WIDTH, heads)),
            "text": lambda heads: EachClass(*text_features(), SplitLinearLayer(WIDTH, heads)),
        },
        features={"image": image_features, "text": text_features},
        width=WIDTH,
        decoder={"image": image_decoder, "text": text_decoder},
        likelihood={"image": partial(BernoulliLikelihood, event_dims=3), "text": CategoricalLikelihood},
        condition=partial(one_hot, num_classes=N_CLASSES),
        n_condition=N_CLASSES,
    )
    return build_pair(config.model, networks, config.n_latents, config.posterior)


def text_decoder(n_inputs: int) -> nn.Sequential:
    """Build the network (N, n_inputs) -> logits (N, 10)."""
    return nn.Sequential(swish_mlp(n_inputs, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, N_CLASSES))


def text_features() -> nn.Sequential:
    """Build the network labels (N,) -> features (N, 512)."""
    return nn.Sequential(nn.Embedding(N_CLASSES, WIDTH), nn.SiLU(), swish_mlp(WIDTH, WIDTH))


# our parameters -> the authors'; their two heads (mu, log variance) are one layer here
AUTHORS = {
    **layer("encoder.image.1.0", "image_encoder.fc1"),
    **layer("encoder.image.1.2", "image_encoder.fc2"),
    **layer("encoder.image.2.linear", "image_encoder.fc31", "image_encoder.fc32"),
    "encoder.text.0.weight": ("text_encoder.fc1.weight",),
    **layer("encoder.text.2.0", "text_encoder.fc2"),
    **layer("encoder.text.3.linear", "text_encoder.fc31", "text_encoder.fc32"),
    **layer("decoder.image.0.0", "image_decoder.fc1"),
    **layer("decoder.image.0.2", "image_decoder.fc2"),
    **layer("decoder.image.0.4", "image_decoder.fc3"),
    **layer("decoder.image.1", "image_decoder.fc4"),
    **layer("decoder.text.0.0", "text_decoder.fc1"),
    **layer("decoder.text.0.2", "text_decoder.fc2"),
    **layer("decoder.text.0.4", "text_decoder.fc3"),
    **layer("decoder.text.1", "text_decoder.fc4"),
}
AUTHORS_OPTIONS = {"model": "mvae", "posterior": "gaussian"}
