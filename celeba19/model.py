"""Networks of MVAE on CelebA with an expert for each attribute (layers of the authors' celeba19/model.py)."""

from types import SimpleNamespace

from celeba.attributes import ATTRIBUTES
from celeba.model import WIDTH, image_decoder, image_encoder
from common.authors_files import MVAE_IMAGE
from common.encoders_decoders import SqueezeLayer, StackedDecoder, StackedLinear
from common.likelihoods import BernoulliLikelihood, BinaryLikelihood, GroupedLikelihood
from common.models import VAE, MultimodalVAE
from common.models.families import FAMILIES

import torch
from torch import Tensor, nn

N = len(ATTRIBUTES)


class AttributeEncoders(nn.Module):
    """The encoders of all 18 attributes, computed at once: (N, 18), 0 or 1 -> parameters (N, 18, D) each.

    They run once for each of the two values instead of for each example.
    """

    n_elements = N

    def __init__(self, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(N, 2, WIDTH))
        self.hidden, self.heads = StackedLinear(N, WIDTH, WIDTH), StackedLinear(N, WIDTH, sum(heads))
        self.out_features = heads

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        h = nn.functional.silu(self.hidden(nn.functional.silu(self.embedding)))
        params_by_value = self.heads(h).flatten(0, 1)  # (18 * 2, sum of heads)
        # the gradients of indexing would be summed in an arbitrary order by several CPU threads
        params = nn.functional.embedding(x.long() + 2 * torch.arange(N, device=x.device), params_by_value)
        return params.split(self.out_features, dim=-1)


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Build the model of image (B, 3, 64, 64) in [0, 1] and each attribute (B,), 0 or 1."""
    d = config.n_latents
    heads = (d,) * FAMILIES[config.posterior].n_params
    attributes = ",".join(ATTRIBUTES)
    return VAE(
        config.fusion,
        encoder={"image": image_encoder(3, heads), attributes: AttributeEncoders(heads)},
        decoder={"image": image_decoder(3, d), attributes: StackedDecoder(attribute_decoders(d))},
        likelihood=GroupedLikelihood(
            image=BernoulliLikelihood(event_dims=3), **{name: BinaryLikelihood() for name in ATTRIBUTES}
        ),
        latent_dim=d,
        posterior=config.posterior,
    )


def attribute_decoders(n_latents: int) -> nn.Sequential:
    """Build the decoders of all attributes: z (N, D) or (18, N, D) -> logits (18, N)."""
    return nn.Sequential(
        *(StackedLinear(N, n_latents, WIDTH), nn.SiLU()),
        *(StackedLinear(N, WIDTH, WIDTH), nn.SiLU()),
        *(StackedLinear(N, WIDTH, WIDTH), nn.SiLU()),
        *(StackedLinear(N, WIDTH, 1), SqueezeLayer(-1)),
    )


def stacked(ours: str, theirs: str) -> dict[str, tuple[str, ...]]:
    """Map our stacked layer to the authors' layers of the 18 attributes; theirs has {} for the attribute's number."""
    return {f"{ours}.{kind}": tuple(f"{theirs.format(i)}.{kind}" for i in range(N)) for kind in ("weight", "bias")}


KEY = ",".join(ATTRIBUTES)
# our parameters -> the authors'; those of the 18 attributes are stacked in one here
AUTHORS = {
    **MVAE_IMAGE,
    f"encoder.{KEY}.embedding": tuple(f"attr_encoders.{i}.net.0.weight" for i in range(N)),
    **stacked(f"encoder.{KEY}.hidden", "attr_encoders.{}.net.2"),
    **stacked(f"encoder.{KEY}.heads", "attr_encoders.{}.net.4"),
    **stacked(f"decoder.{KEY}.network.0", "attr_decoders.{}.net.0"),
    **stacked(f"decoder.{KEY}.network.2", "attr_decoders.{}.net.2"),
    **stacked(f"decoder.{KEY}.network.4", "attr_decoders.{}.net.4"),
    **stacked(f"decoder.{KEY}.network.6", "attr_decoders.{}.net.6"),
}
AUTHORS_OPTIONS = {"fusion": "poe", "posterior": "gaussian"}
