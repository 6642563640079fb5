"""Networks of the models on MNIST-SVHN (layers of the MMVAE authors' models/vae_mnist.py and vae_svhn.py)."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from common.authors_files import LEARNED_PRIOR, Depth, MmvaeArgs, layer
from common.checkpoints import Name, NetworkOptions
from common.convolutions import ConvTranspose2d, FromPixel
from common.encoders_decoders import SplitLinearLayer
from common.likelihoods import GroupedLikelihood, LaplaceLikelihood
from common.models import VAE, MultimodalVAE
from common.models.choices import JointEncoder
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from mnist_svhn.options import FAMILY_OF, MODELS

from torch import Tensor, nn

N_MNIST, N_SVHN = 28 * 28, 3 * 32 * 32
N_HIDDEN, N_SVHN_FLAT = 400, 128 * 4 * 4
LIKELIHOOD_SCALE = 0.75


class Options(NetworkOptions):
    """The options that a checkpoint's file is checked for."""

    FIXED = (*NetworkOptions.FIXED, "prior_and_posterior")

    num_hidden_layers: Depth = 1
    prior_and_posterior: Name | None = None


def build(config: SimpleNamespace) -> MultimodalVAE:
    """Model of mnist (B, 1, 28, 28) and svhn (B, 3, 32, 32), both in [0, 1], or of one of them."""
    d, h = config.n_latents, config.num_hidden_layers
    family = FAMILY_OF[config.prior_and_posterior]
    names = (config.model,) if config.model in ("mnist", "svhn") else ("mnist", "svhn")
    n_own = dict(zip(names, config.n_private or (0,) * len(names), strict=True))
    heads = {name: (d + n_own[name],) * FAMILIES[family].n_params for name in names}
    features = {"mnist": lambda: mnist_features(h), "svhn": svhn_features}
    widths = {"mnist": N_HIDDEN, "svhn": N_SVHN_FLAT}
    encoders = {name: features[name]().append(SplitLinearLayer(widths[name], heads[name])) for name in names}
    if FUSIONS[MODELS[config.model].fusion].joint_encoder:
        svhn = nn.Sequential(*svhn_features(), nn.Linear(N_SVHN_FLAT, N_HIDDEN), nn.ReLU())
        encoders["mnist,svhn"] = JointEncoder({"mnist": mnist_features(h), "svhn": svhn}, N_HIDDEN, heads["mnist"])
    decoder = {"mnist": lambda: mnist_decoder(d + n_own["mnist"], h), "svhn": lambda: svhn_decoder(d + n_own["svhn"])}
    weights = {"mnist": config.llik_scaling or N_SVHN / N_MNIST, "svhn": 1.0} if len(names) > 1 else {}
    return VAE(
        MODELS[config.model].fusion,
        encoder=encoders,
        decoder={name: decoder[name]() for name in names},
        likelihood=GroupedLikelihood(**{name: LaplaceLikelihood(LIKELIHOOD_SCALE, event_dims=3) for name in names}),
        latent_dim=d + sum(n_own.values()),
        weights=weights,
        posterior=family,
        learn_prior=config.learn_prior,
        private=n_own if config.n_private else None,
        n_clusters=config.n_clusters,
        rho=config.rho,
    )


class Clamp(nn.Module):
    """Clamps probabilities to [1e-6, 1 - 1e-6], as the authors do."""

    def forward(self, x: Tensor) -> Tensor:
        """The clamped probabilities, in the shape of x."""
        return x.clamp(1e-6, 1 - 1e-6)


def mnist_features(n_hidden_layers: int) -> nn.Sequential:
    """Image (N, 1, 28, 28) -> features (N, N_HIDDEN)."""
    return nn.Sequential(nn.Flatten(), *hidden_layers(N_MNIST, n_hidden_layers))


def mnist_decoder(n_latents: int, n_hidden_layers: int) -> nn.Sequential:
    """z (N, D) -> mean (N, 1, 28, 28) of the image, in [0, 1]."""
    return nn.Sequential(
        *hidden_layers(n_latents, n_hidden_layers),
        *(nn.Linear(N_HIDDEN, N_MNIST), nn.Sigmoid(), Clamp(), nn.Unflatten(1, (1, 28, 28))),
    )


def hidden_layers(n_inputs: int, n: int) -> list[nn.Module]:
    """n linear layers with N_HIDDEN outputs, each followed by a ReLU."""
    sizes = [n_inputs] + n * [N_HIDDEN]
    return [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]


def svhn_features() -> nn.Sequential:
    """Image (N, 3, 32, 32) -> features (N, N_SVHN_FLAT)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU()),
        nn.Flatten(),
    )


def svhn_decoder(n_latents: int) -> nn.Sequential:
    """z (N, D) -> mean (N, 3, 32, 32) of the image, in [0, 1]."""
    return nn.Sequential(
        *(nn.Unflatten(1, (n_latents, 1, 1)), FromPixel(n_latents, 128, 4), nn.ReLU()),
        *(ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU()),
        *(ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()),
        *(ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid()),
    )


def authors(args: MmvaeArgs) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """Our config from the authors' options (args.json), and which of their parameters each of ours consists of.

    Returns:
        the config, and {our parameter: names of their parameters, to be concatenated}.
    """
    n = args.num_hidden_layers
    ours = {"num_hidden_layers": n, "model": "mmvae", "prior_and_posterior": "laplace"}
    return args.config() | ours, _authors_parameters(n)


def _authors_parameters(n: int) -> dict[str, tuple[str, ...]]:
    """{our parameter: names of the authors' parameters, to be concatenated}, with n hidden layers."""
    layers = {
        **{f"encoder.mnist.{2 * i + 1}": (f"vaes.0.enc.enc.{i}.0",) for i in range(n)},
        f"encoder.mnist.{2 * n + 1}.linear": ("vaes.0.enc.fc21", "vaes.0.enc.fc22"),
        **{f"decoder.mnist.{2 * i}": (f"vaes.0.dec.dec.{i}.0",) for i in range(n)},
        f"decoder.mnist.{2 * n}": ("vaes.0.dec.fc3",),
        **{f"encoder.svhn.{i}": (f"vaes.1.enc.enc.{i}",) for i in (0, 2, 4)},
        "encoder.svhn.7.linear": ("vaes.1.enc.c1", "vaes.1.enc.c2"),
        **{f"decoder.svhn.{i + 1}": (f"vaes.1.dec.dec.{i}",) for i in (0, 2, 4, 6)},
    }
    names = {name: theirs for ours, given in layers.items() for name, theirs in layer(ours, *given).items()}
    return names | LEARNED_PRIOR
