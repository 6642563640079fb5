"""The networks of the homoencoders on Omniglot (Hewitt et al. 2018, section 4), and `build`, which assembles them."""

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

from common.checkpoints import Name, NetworkOptions, Size
from common.convolutions import ConvTranspose2d
from common.distributions import DiagonalGaussian
from common.encoders_decoders import SplitLinearLayer
from vhe.framework import VHE, NormalPrior
from vhe.pixelcnn import GatedPixelCNN

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, binary_cross_entropy_with_logits, grid_sample

LATENTS = {"character": "cz", "hierarchical": "acz", "factorial": "csz"}  # latent variables by --model
INSTANCE, STYLE, ALPHABET = 16, 16, 32  # dimensions of z, s and a
WIDTH, CONTEXT = 256, 16  # units of a hidden layer; channels of the map that a code becomes


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    REINITIALISED: ClassVar = {"decoder": "decoder.images.pixels."}

    decoder: Name | None = None
    test_alphabets: list[str] | None = None
    k_shot: Size = 1


def build(config: SimpleNamespace) -> VHE:
    """Build the homoencoder of images x (B, 1, 28, 28), 0 or 1.

    Its latent variables are the code c of a character and z of an image, with p(x|c, z). A hierarchical model also has
    a for an alphabet, with the prior p(c|a). A factorial one also has s for a style, with p(x|c, s, z).
    """
    d = config.n_latents
    sizes = {"a": ALPHABET, "c": d, "s": STYLE, "z": INSTANCE}
    prior: dict[str, nn.Module] = {v: NormalPrior(v, (sizes[v],)) for v in LATENTS[config.model]}
    encoder: dict[str, nn.Module] = {"c": Posterior(d)}
    d_code = d + STYLE if config.model == "factorial" else d
    images = Images(d_code, INSTANCE, {"deconv": IndependentPixels, "pixelcnn": GatedPixelCNN}[config.decoder](CONTEXT))
    if config.model == "hierarchical":
        encoder = {"a": Posterior(ALPHABET), "c": PosteriorGivenAlphabet(d, ALPHABET)}
        prior["c"] = CharacterOfAlphabet(d)
    if config.model == "factorial":
        encoder |= {"s": Posterior(STYLE), "z": PosteriorGivenStyledCharacter(INSTANCE, d_code)}
        return VHE(encoder, StyledCharacterDecoder(images), prior)
    return VHE(encoder | {"z": PosteriorGivenCharacter(INSTANCE, d)}, CharacterDecoder(images), prior)


def shared_latents(model: VHE) -> tuple[str, ...]:
    """The latent variables that the images of a character share when they are in one style: all but z."""
    return tuple(name for name in model.latents if name != "z")


def draw_or_score(q: DiagonalGaussian, value: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the value (B, D), drawn unless it is given, and its log-density (B,), nats."""
    value = q.rsample() if value is None else value
    return value, q.log_prob(value)


def he_initialised(network: nn.Sequential) -> nn.Sequential:
    """Initialise the layers before ReLUs so that signals keep their size (He et al. 2015, arXiv 1502.01852).

    With PyTorch's default they fade, and for some epochs the decoder learns to do without the code.
    """
    for layer, after in pairwise(network):
        if isinstance(after, nn.ReLU):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # an output pixel sees each stride-th row and column of it
                fan_in = layer.weight[:, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_in))
            nn.init.zeros_(layer.bias)
    return network


class Posterior(nn.Module):
    """The encoder q(v|D) of a latent variable v: a Gaussian computed from the mean of the images' features.

    Its inputs are support sets D (B, k, 1, 28, 28). The subclasses have other latent variables as inputs too.

    Args:
        d: the dimensions of v.
        d_given: the dimensions of all other latent variables that v depends on.
    """

    def __init__(self, d: int, d_given: int = 0) -> None:
        super().__init__()
        self.features = he_initialised(
            nn.Sequential(
                *(nn.Conv2d(1, 32, 4, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
                *(nn.Conv2d(64, 128, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(128 * 4 * 4, WIDTH), nn.ReLU()),
            )
        )
        self.head = nn.Sequential(nn.Linear(WIDTH + d_given, WIDTH), nn.ReLU(), SplitLinearLayer(WIDTH, (d, d)))
        he_initialised(self.head)

    def forward(self, inputs: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs, value)

    def draw_or_score(self, inputs: Tensor, value: Tensor | None, *latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return v (B, d), drawn unless it is given, and log q(v|D, latents) (B,), nats; latents: (B, ...) each."""
        features = self.features(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2]).mean(dim=1)  # (B, WIDTH)
        mu, logvar = self.head(torch.cat([features, *latents], dim=1))
        return draw_or_score(DiagonalGaussian(mu.float(), logvar.float()), value)


class PosteriorGivenAlphabet(Posterior):
    """q(v|D, a)."""

    def forward(self, inputs: Tensor, a: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs, value, a)


class PosteriorGivenCharacter(Posterior):
    """q(v|D, c)."""

    def forward(self, inputs: Tensor, c: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs, value, c)


class PosteriorGivenStyledCharacter(Posterior):
    """q(v|D, c, s)."""

    def forward(self, inputs: Tensor, c: Tensor, s: Tensor, value: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(inputs, value, c, s)


class CharacterOfAlphabet(nn.Module):
    """The prior p(c|a), a Gaussian.

    Args:
        d: the dimensions of c.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(ALPHABET, WIDTH), nn.ReLU(), SplitLinearLayer(WIDTH, (d, d)))

    def forward(self, a: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        mu, logvar = self.network(a)
        return draw_or_score(DiagonalGaussian(mu.float(), logvar.float()), c)


def upsampling(d: int, channels: int) -> nn.Sequential:
    """Return a network that makes maps (B, channels, 28, 28) of codes (B, d)."""
    return he_initialised(
        nn.Sequential(
            *(nn.Linear(d, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7))),
            *(ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU(), ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()),
            nn.Conv2d(32, channels, 3, 1, 1),
        )
    )


class IndependentPixels(nn.Module):
    """p(x|context) with pixels that are independent given the context.

    Args:
        context_channels: the number of channels C of the context.
    """

    has_mean = True

    def __init__(self, context_channels: int) -> None:
        super().__init__()
        n = context_channels
        self.network = he_initialised(nn.Sequential(nn.Conv2d(n, n, 3, 1, 1), nn.ReLU(), nn.Conv2d(n, 1, 1)))

    def forward(self, x: Tensor | None, context: Tensor) -> Tensor:
        """Return logits (N, 1, 28, 28) given context (N, C, 28, 28); they do not depend on the images x."""
        return self.network(context)

    def sample(self, context: Tensor) -> Tensor:
        """Draw images (N, 1, 28, 28), 0 or 1, given context (N, C, 28, 28)."""
        return self(None, context).float().sigmoid().bernoulli()


class Images(nn.Module):
    """p(x|code, z): the code becomes a map, z moves the map by an affine transformation, pixels are drawn given that.

    The transformation (Jaderberg et al. 2015, arXiv 1506.02025) starts as the identity and stays near it.

    Args:
        d_code: the dimensions of the code.
        d_z: the dimensions of z.
        pixels: p(x|context), where the context is the moved map.
    """

    def __init__(self, d_code: int, d_z: int, pixels: IndependentPixels | GatedPixelCNN) -> None:
        super().__init__()
        self.map = upsampling(d_code, CONTEXT)
        self.place = nn.Linear(d_z, 6, bias=False)
        nn.init.zeros_(self.place.weight)
        self.pixels = pixels
        places = affine_grid(torch.eye(2, 3)[None], [1, 1, 28, 28], align_corners=False).view(-1, 2)
        self.register_buffer("places", torch.cat([places, torch.ones(28 * 28, 1)], dim=1), persistent=False)  # x, y, 1

    @property
    def has_mean(self) -> bool:
        """Whether the mean image given code and z is known, so that `mean` can be called."""
        return self.pixels.has_mean

    def context(self, code: Tensor, z: Tensor) -> Tensor:
        """Return the map of the code, moved as z says: (B, CONTEXT, 28, 28)."""
        change = 0.5 * self.place(z).float().tanh().view(-1, 2, 3)
        # not a product of matrices, which autocast would round; nor affine_grid, which compiles for one batch size only
        moved = self.places[:, :2] + (self.places[:, None] * change[:, None]).sum(dim=-1)  # (B, 784, 2)
        return grid_sample(self.map(code).float(), moved.view(-1, 28, 28, 2), align_corners=False)

    def logits(self, x: Tensor | None, code: Tensor, z: Tensor) -> Tensor:
        """Return the logits of the pixels (B, 1, 28, 28); a PixelCNN needs the image x for them."""
        return self.pixels(x, self.context(code, z)).float()

    def sample(self, code: Tensor, z: Tensor) -> Tensor:
        """Draw images (B, 1, 28, 28), 0 or 1."""
        return self.pixels.sample(self.context(code, z))

    def mean(self, code: Tensor, z: Tensor) -> Tensor:
        """Return the mean images (B, 1, 28, 28) of independent pixels."""
        return self.logits(None, code, z).sigmoid()


class CharacterDecoder(nn.Module):
    """The decoder p(x|c, z), whose code is c."""

    def __init__(self, images: Images) -> None:
        super().__init__()
        self.images = images

    def forward(self, c: Tensor, z: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(c, z, x)

    def draw_or_score(self, code: Tensor, z: Tensor, x: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return x (B, 1, 28, 28), drawn unless it is given, and log p(x|code, z) (B,), nats."""
        if x is None:
            x = self.images.sample(code, z)
        logits = self.images.logits(x, code, z)
        return x, -binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(dim=1)


class StyledCharacterDecoder(CharacterDecoder):
    """The decoder p(x|c, s, z), whose code is c and s."""

    def forward(self, c: Tensor, s: Tensor, z: Tensor, x: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.draw_or_score(torch.cat([c, s], dim=1), z, x)
