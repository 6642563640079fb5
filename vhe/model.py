"""Networks of the homoencoders on Omniglot (Hewitt et al. 2018, section 4), and their assembly."""

import math
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, binary_cross_entropy_with_logits, grid_sample

from common.distributions import DiagonalGaussian
from common.encoders_decoders import SplitLinearLayer
from vhe.homoencoder import VHE, StandardNormal
from vhe.pixelcnn import GatedPixelCNN

LATENTS = {"character": "cz", "hierarchical": "acz", "factorial": "csz"}  # by --model
INSTANCE, STYLE, ALPHABET = 16, 16, 32  # dimensions of z, s and a
WIDTH, CONTEXT = 256, 16  # of hidden layers; channels of a code's map
ANEW = {"decoder": "decoder.images.pixels."}  # parameters that begin anew where --pre-trained has another decoder


class Config(Protocol):
    n_latents: int
    model: str
    decoder: str


def build(config: Config) -> VHE:
    """The homoencoder of images x (B, 1, 28, 28), 0 or 1.

    Its latent variables are the code c of a character and z of an image, p(x|c, z); in a hierarchical model also a of
    an alphabet, with a prior p(c|a); in a factorial one also s of a style, with p(x|c, s, z).
    """
    d = config.n_latents
    sizes = {"a": ALPHABET, "c": d, "s": STYLE, "z": INSTANCE}
    prior: dict[str, nn.Module] = {v: StandardNormal(v, (sizes[v],)) for v in LATENTS[config.model]}
    encoder: dict[str, nn.Module] = {"c": Posterior(d)}
    code = d + STYLE if config.model == "factorial" else d
    images = Images(code, INSTANCE, {"deconv": IndependentPixels, "pixelcnn": GatedPixelCNN}[config.decoder](CONTEXT))
    if config.model == "hierarchical":
        encoder = {"a": Posterior(ALPHABET), "c": PosteriorGivenAlphabet(d, ALPHABET)}
        prior["c"] = CharacterOfAlphabet(d)
    if config.model == "factorial":
        encoder |= {"s": Posterior(STYLE), "z": PosteriorGivenStyledCharacter(INSTANCE, code)}
        return VHE(encoder, OfStyledCharacter(images), prior)
    return VHE(encoder | {"z": PosteriorGivenCharacter(INSTANCE, d)}, OfCharacter(images), prior)


def drawn_or_scored(q: DiagonalGaussian, value: Tensor | None) -> tuple[Tensor, Tensor]:
    value = q.rsample() if value is None else value
    return value, q.log_prob(value)


def he(network: nn.Sequential) -> nn.Sequential:
    """Begin with signals that keep their size through the ReLUs (He et al. 2015, arXiv 1502.01852).

    By torch's own start they fade, and the decoder learns for epochs without the code.
    """
    for layer, after in pairwise(network):
        if isinstance(after, nn.ReLU):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # each output pixel sees the kernel's every other row and column
                fan_in = layer.weight[:, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            nn.init.zeros_(layer.bias)
    return network


class Posterior(nn.Module):
    """q(v|D, ...) of a support set D (B, k, 1, 28, 28): a Gaussian of the mean of its images' features.

    Args:
        d: dimensions of v.
        given: those of the latent variables that it depends on.
    """

    def __init__(self, d: int, given: int = 0) -> None:
        super().__init__()
        self.features = he(
            nn.Sequential(
                *(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
                *(nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128 * 4 * 4, WIDTH), nn.ReLU()),
            )
        )
        self.head = nn.Sequential(nn.Linear(WIDTH + given, WIDTH), nn.ReLU(), SplitLinearLayer(WIDTH, (d, d)))
        he(self.head)

    def forward(self, inputs: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.given(inputs, value)

    def given(self, inputs: Tensor, value: Tensor | None, *latents: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2]).mean(dim=1)  # (B, WIDTH)
        mu, logvar = self.head(torch.cat([features, *latents], dim=1))
        return drawn_or_scored(DiagonalGaussian(mu.float(), logvar.float()), value)


class PosteriorGivenAlphabet(Posterior):
    def forward(self, inputs: Tensor, a: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.given(inputs, value, a)


class PosteriorGivenCharacter(Posterior):
    def forward(self, inputs: Tensor, c: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.given(inputs, value, c)


class PosteriorGivenStyledCharacter(Posterior):
    def forward(self, inputs: Tensor, c: Tensor, s: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.given(inputs, value, c, s)


class CharacterOfAlphabet(nn.Module):
    """p(c|a), a Gaussian."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(ALPHABET, WIDTH), nn.ReLU(), SplitLinearLayer(WIDTH, (d, d)))

    def forward(self, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mu, logvar = self.network(a)
        return drawn_or_scored(DiagonalGaussian(mu.float(), logvar.float()), c)


def upsampling(d: int, channels: int) -> nn.Sequential:
    """(B, d) -> (B, channels, 28, 28)."""
    return he(
        nn.Sequential(
            *(nn.Linear(d, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
            *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()),
            nn.Conv2d(32, channels, 3, 1, 1),
        )
    )


class IndependentPixels(nn.Module):
    """p(x|context) of pixels that are independent given it."""

    def __init__(self, context_channels: int) -> None:
        super().__init__()
        n = context_channels
        self.network = he(nn.Sequential(nn.Conv2d(n, n, 3, 1, 1), nn.ReLU(), nn.Conv2d(n, 1, 1)))

    def forward(self, x: Tensor | None, context: Tensor) -> Tensor:
        return self.network(context)

    def sample(self, context: Tensor) -> Tensor:
        return self(None, context).float().sigmoid().bernoulli()


class Images(nn.Module):
    """p(x|code, z): of pixels given a map of the code, which z places by an affine transformation.

    The transformation (Jaderberg et al. 2015, arXiv 1506.02025) begins as the identity and stays near it.

    Args:
        code, z: their dimensions.
        pixels: p(x|context).
    """

    def __init__(self, code: int, z: int, pixels: IndependentPixels | GatedPixelCNN) -> None:
        super().__init__()
        self.map = upsampling(code, CONTEXT)
        self.place = nn.Linear(z, 6, bias=False)
        nn.init.zeros_(self.place.weight)
        self.pixels = pixels
        places = affine_grid(torch.eye(2, 3)[None], [1, 1, 28, 28], align_corners=False).view(-1, 2)
        self.register_buffer("places", torch.cat([places, torch.ones(28 * 28, 1)], dim=1), persistent=False)  # x, y, 1

    def context(self, code: Tensor, z: Tensor) -> Tensor:
        """(B, CONTEXT, 28, 28)"""
        change = 0.5 * self.place(z).float().tanh().view(-1, 2, 3)
        # no product of matrices, which autocast would round; affine_grid cannot be compiled for batches of any size
        moved = self.places[:, :2] + (self.places[:, None] * change[:, None]).sum(dim=-1)  # (B, 784, 2)
        return grid_sample(self.map(code).float(), moved.view(-1, 28, 28, 2), align_corners=False)

    def logits(self, x: Tensor | None, code: Tensor, z: Tensor) -> Tensor:
        return self.pixels(x, self.context(code, z)).float()

    def sample(self, code: Tensor, z: Tensor) -> Tensor:
        return self.pixels.sample(self.context(code, z))

    def mean(self, code: Tensor, z: Tensor) -> Tensor:
        """Of pixels that are independent."""
        return self.logits(None, code, z).sigmoid()


class OfCharacter(nn.Module):
    """p(x|c, z)."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.images = images

    def forward(self, c: Tensor, z: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of_code(c, z, x)

    def of_code(self, code: Tensor, z: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
        if x is None:
            x = self.images.sample(code, z)
        logits = self.images.logits(x, code, z)
        return x, -binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)


class OfStyledCharacter(OfCharacter):
    """p(x|c, s, z)."""

    def forward(self, c: Tensor, s: Tensor, z: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.of_code(torch.cat([c, s], dim=1), z, x)
