"""Networks of the models on MNIST (Wu & Goodman 2018, appendix; layers of the authors' mnist/model.py)."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from common.choices import MODELS
from common.encoders_decoders import SplitLinearLayer, swish_mlp
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood, GroupedLikelihood
from common.models import FAMILIES, VAE, MultimodalVAE

N_CLASSES = 10
WIDTH = 512


class Config(Protocol):
    """The options that determine the networks."""

    n_latents: int
    model: str
    posterior: str


class EachClass(nn.Sequential):
    """A network on labels (N,), an embedding first, that runs once for each class instead of for each example."""

    def forward(self, label: Tensor) -> tuple[Tensor, ...]:
        classes = torch.arange(self[0].num_embeddings, device=label.device)
        # the gradients of indexing would be summed in an arbitrary order by several CPU threads
        return tuple(nn.functional.embedding(label, params) for params in super().forward(classes))


class JointEncoder(nn.Module):
    """Encoder of q(z|image, text): the features of image and text, one hidden layer, a head for each parameter."""

    def __init__(self, image: nn.Module, text: nn.Module, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.head = nn.Sequential(swish_mlp(2 * WIDTH, WIDTH), SplitLinearLayer(WIDTH, heads))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, ...]:
        return self.head(torch.cat([self.image(image), self.text(text)], dim=1))


class PriorExpert(nn.Module):
    """Encoder (N, ...) -> parameters of the prior, zeros (N, D): in a CVAE z is independent of the label."""

    def __init__(self, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.n_params = len(heads)
        self.register_buffer("zeros", torch.zeros(heads[0]), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.zeros.expand(len(x), -1),) * self.n_params


class LabelConditionedDecoder(nn.Sequential):
    """A decoder of z (N, D) and a label (N,): its layers get z and the one-hot label concatenated."""

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return super().forward(torch.cat([z, one_hot(label, N_CLASSES).to(z)], dim=1))


def build(config: Config) -> MultimodalVAE:
    """Build the model of image (B, 1, 28, 28) in [0, 1] and text (B,), the class; --model vae has the image alone."""
    return assemble(config, image_features, image_decoder)


def image_features() -> nn.Sequential:
    """Build the network image (N, 1, 28, 28) -> features (N, 512)."""
    return nn.Sequential(nn.Flatten(), swish_mlp(784, WIDTH, WIDTH))


def image_decoder(n_inputs: int) -> nn.Sequential:
    """Build the network (N, n_inputs) -> logits (N, 1, 28, 28)."""
    return nn.Sequential(swish_mlp(n_inputs, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, 784), nn.Unflatten(1, (1, 28, 28)))


def assemble(
    config: Config, image_features: Callable[[], nn.Sequential], image_decoder: Callable[[int], nn.Sequential]
) -> MultimodalVAE:
    """Build the model config.model from image networks; the networks of the label are always the same.

    Args:
        image_features: builds the network image (N, 1, H, W) -> features (N, 512).
        image_decoder: builds the network (N, n_inputs) -> logits (N, 1, H, W), given n_inputs.
    """
    d = config.n_latents
    heads = (d,) * FAMILIES[config.posterior].n_params

    def image_encoder() -> nn.Module:
        return nn.Sequential(*image_features(), SplitLinearLayer(WIDTH, heads))

    def text_encoder() -> nn.Module:
        return EachClass(*text_features(), SplitLinearLayer(WIDTH, heads))

    def text_decoder() -> nn.Module:
        return nn.Sequential(swish_mlp(d, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, N_CLASSES))

    if config.model == "vae":
        encoder, decoder = {"image": image_encoder()}, {"image": image_decoder(d)}
    elif config.model == "cvae":
        encoder = {"image,text": JointEncoder(image_features(), text_features(), heads), "text": PriorExpert(heads)}
        decoder = {"image|text": LabelConditionedDecoder(*image_decoder(d + N_CLASSES))}
    else:
        encoder = {"image": image_encoder(), "text": text_encoder()}
        if config.model == "jmvae":
            encoder["image,text"] = JointEncoder(image_features(), text_features(), heads)
        decoder = {"image": image_decoder(d), "text": text_decoder()}
    return VAE(
        MODELS[config.model].fusion,
        encoder,
        decoder,
        GroupedLikelihood(image=BernoulliLikelihood(event_dims=3), text=CategoricalLikelihood()),
        latent_dim=d,
        posterior=config.posterior,
    )


def text_features() -> nn.Sequential:
    """Build the network labels (N,) -> features (N, 512)."""
    return nn.Sequential(nn.Embedding(N_CLASSES, WIDTH), nn.SiLU(), swish_mlp(WIDTH, WIDTH))


def layers(ours: str, *theirs: str) -> dict[str, tuple[str, ...]]:
    """Map weight and bias of our layer to those of the authors' layers, which are concatenated in ours."""
    return {f"{ours}.{kind}": tuple(f"{layer}.{kind}" for layer in theirs) for kind in ("weight", "bias")}


# our parameters -> the authors'; their two heads (mu, log variance) are one layer here
AUTHORS = {
    **layers("encoder.image.1.0", "image_encoder.fc1"),
    **layers("encoder.image.1.2", "image_encoder.fc2"),
    **layers("encoder.image.2.linear", "image_encoder.fc31", "image_encoder.fc32"),
    "encoder.text.0.weight": ("text_encoder.fc1.weight",),
    **layers("encoder.text.2.0", "text_encoder.fc2"),
    **layers("encoder.text.3.linear", "text_encoder.fc31", "text_encoder.fc32"),
    **layers("decoder.image.0.0", "image_decoder.fc1"),
    **layers("decoder.image.0.2", "image_decoder.fc2"),
    **layers("decoder.image.0.4", "image_decoder.fc3"),
    **layers("decoder.image.1", "image_decoder.fc4"),
    **layers("decoder.text.0.0", "text_decoder.fc1"),
    **layers("decoder.text.0.2", "text_decoder.fc2"),
    **layers("decoder.text.0.4", "text_decoder.fc3"),
    **layers("decoder.text.1", "text_decoder.fc4"),
}
AUTHORS_OPTIONS = {"model": "mvae", "posterior": "gaussian"}
