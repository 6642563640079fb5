"""Networks of MVAE on MNIST (Wu & Goodman 2018, appendix; layers of the authors' mnist/model.py)."""

from typing import Protocol

import torch
from torch import Tensor, nn

from common.encoders_decoders import SplitLinearLayer, swish_mlp
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GroupedLikelihood
from common.models import MVAE, MultimodalVAE

N_CLASSES = 10


class Config(Protocol):
    n_latents: int


class EachClass(nn.Sequential):
    """A network on labels, from its embedding on, that runs for each class and not for each example."""

    def forward(self, label: Tensor) -> tuple[Tensor, ...]:
        classes = torch.arange(self[0].num_embeddings, device=label.device)
        return tuple(params[label] for params in super().forward(classes))


def build(config: Config) -> MultimodalVAE:
    """The model with modalities image (B, 1, 28, 28) in [0, 1] and text (B,), the class."""
    d = config.n_latents
    return MVAE(
        encoder={
            "image": nn.Sequential(nn.Flatten(), swish_mlp(784, 512, 512), SplitLinearLayer(512, (d, d))),
            "text": EachClass(
                nn.Embedding(N_CLASSES, 512), nn.SiLU(), swish_mlp(512, 512), SplitLinearLayer(512, (d, d))
            ),
        },
        decoder={
            "image": nn.Sequential(swish_mlp(d, 512, 512, 512), nn.Linear(512, 784), nn.Unflatten(1, (1, 28, 28))),
            "text": nn.Sequential(swish_mlp(d, 512, 512, 512), nn.Linear(512, N_CLASSES)),
        },
        likelihood=GroupedLikelihood(image=BernoulliLikelihood(event_dims=3), text=CategoricalLikelihood()),
        latent_dim=d,
    )


def _layers(ours: str, *theirs: str) -> dict[str, tuple[str, ...]]:
    return {f"{ours}.{kind}": tuple(f"{layer}.{kind}" for layer in theirs) for kind in ("weight", "bias")}


# our parameters -> the authors', which are concatenated: their two heads (mu, log variance) are one layer here
AUTHORS = {
    **_layers("encoder.image.1.0", "image_encoder.fc1"),
    **_layers("encoder.image.1.2", "image_encoder.fc2"),
    **_layers("encoder.image.2.linear", "image_encoder.fc31", "image_encoder.fc32"),
    "encoder.text.0.weight": ("text_encoder.fc1.weight",),
    **_layers("encoder.text.2.0", "text_encoder.fc2"),
    **_layers("encoder.text.3.linear", "text_encoder.fc31", "text_encoder.fc32"),
    **_layers("decoder.image.0.0", "image_decoder.fc1"),
    **_layers("decoder.image.0.2", "image_decoder.fc2"),
    **_layers("decoder.image.0.4", "image_decoder.fc3"),
    **_layers("decoder.image.1", "image_decoder.fc4"),
    **_layers("decoder.text.0.0", "text_decoder.fc1"),
    **_layers("decoder.text.0.2", "text_decoder.fc2"),
    **_layers("decoder.text.0.4", "text_decoder.fc3"),
    **_layers("decoder.text.1", "text_decoder.fc4"),
}
