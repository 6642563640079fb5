"""The models that --model names, a record each, and building those of two modalities from their networks.

docs/models.md has their equations and papers.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from common.encoders_decoders import SplitLinearLayer, swish_mlp
from common.errors import require
from common.likelihoods import GroupedLikelihood
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS, VAE
from common.multimodal_vae import MultimodalVAE

import torch
from torch import Tensor, nn


class Model(NamedTuple):
    """A model that --model names.

    fusion: how its experts are fused, a name in `common.models.fusions.FUSIONS`.
    summary: what --help says.
    obj: the objective without --obj; None for the first one that exists for the fusion.
    private: whether each modality has private latents.
    clusters: whether the prior of the shared latents is a mixture.
    posterior: the family of its experts without --posterior, where a script offers several.
    K: the importance samples from each expert without --K.
    given_second: whether the decoder of the first of two modalities sees the second.
    """

    fusion: str
    summary: str
    obj: str | None = None
    private: bool = False
    clusters: bool = False
    posterior: str = "gaussian"
    K: int | None = None
    given_second: bool = False

    @property
    def unpaired(self) -> bool:
        """Whether it can learn from examples that lack modalities, such as unpaired ones."""
        return not self.first_alone and not FUSIONS[self.fusion].joint_encoder

    @property
    def first_alone(self) -> bool:
        """Whether it models the first of two modalities alone."""
        return self.fusion == "own"


# experts of a mixture that have private latents, as in MMVAE+'s and CMVAE's code
PLUS = {"obj": "iwae", "private": True, "posterior": "laplace", "K": 1}
MODELS = {
    "mvae": Model("poe", "product of experts"),
    "mvae-q": Model("quotient", "quotient of posteriors"),
    "jmvae": Model("joint", "joint encoder, and one for each modality"),
    "jnf": Model("jnf", "joint encoder, and a normalizing flow for each modality"),
    "vae": Model("own", "the first modality alone"),
    "cvae": Model("own", "the first modality given the second", given_second=True),
    "bivcca": Model("moe", "mixture of experts"),
    "mmvae": Model("moe", "mixture of experts"),
    "mopoe": Model("mopoe", "mixture of the products of all subsets"),
    "mopoe-published": Model("mopoe-published", "mopoe as in its authors' code", obj="elbo-one"),
    "mvtcae": Model("product", "product of experts without the prior, total correlation"),
    "crmvae": Model(
        "product",
        "product of experts without the prior; each modality is also reconstructed from its own expert",
        obj="crmvae",
    ),
    "mmjsd": Model("moe", "mixture of experts and prior, with KLs to their geometric mean", obj="mmjsd"),
    "telbo": Model("joint", "joint encoder that trains the decoders, and one for each modality", obj="telbo"),
    "dmvae": Model(
        "poe", "product of experts over shared latents; each modality also has private latents", "dmvae", private=True
    ),
    "mmvae+": Model("mmvae+", "mixture of experts over shared latents; each modality also has private latents", **PLUS),
    "cmvae": Model("mmvae+", "mmvae+ with a prior of clusters", clusters=True, **PLUS),
    "idmvae": Model("mmvae+", "mmvae+ whose shared and private latents are told apart", **PLUS | {"obj": "idmvae"}),
    "hoelder": Model("hoelder", "mixture of the experts and of the normalised products of pairs"),
    "helvae": Model("helvae", "one Gaussian with the mean and variances of hoelder's mixture", obj="elbo"),
    "wb": Model("wb", "Wasserstein barycentre of the experts", obj="elbo"),
    "mwb": Model("mwb", "mixture of the Wasserstein barycentres of all subsets"),
    "code": Model("code", "mixture of all subsets' dependent experts, with learned weights", obj="code"),
    "mmvm": Model("moe", "each modality is decoded from its own latents, which are drawn together", obj="mmvm"),
}
# those of two modalities, an image and a label or text; their mixture of experts is called bivcca
PAIR_MODELS = (
    *("mvae", "mvae-q", "jmvae", "jnf", "vae", "cvae", "bivcca", "mopoe", "mopoe-published", "mvtcae", "crmvae"),
    *("mmjsd", "telbo"),
)


class Networks(NamedTuple):
    """The networks of two modalities: a VAE has the first alone, a CVAE models the first given the second.

    encoder: {name: builds x (N, ...) -> parameters of its expert, (N, D) each, from the D of each}.
    features: {name: builds x (N, ...) -> features (N, width)}, for encoders that see both.
    width: of the features.
    decoder: {name: builds z (N, n_inputs) -> parameters of p(x|z), from n_inputs}.
    likelihood: {name: builds the likelihood}.
    condition: values of the second (N, ...) -> what a CVAE's decoder sees of them, (N, C) float.
    n_condition: C.
    """

    encoder: Mapping[str, Callable[[tuple[int, ...]], nn.Module]]
    features: Mapping[str, Callable[[], nn.Module]]
    width: int
    decoder: Mapping[str, Callable[[int], nn.Module]]
    likelihood: Mapping[str, Callable[[], nn.Module]]
    condition: Callable[[Tensor], Tensor]
    n_condition: int


class JointEncoder(nn.Module):
    """Encoder of q(z|x_1, x_2): the features of both, one hidden layer, a head for each parameter."""

    def __init__(self, features: Mapping[str, nn.Module], width: int, heads: tuple[int, ...]) -> None:
        super().__init__()
        taken = {"head", "names"} & set(features)
        require(not taken, f"a joint encoder has a {', '.join(taken)} of its own: give the modality another name")
        for name, network in features.items():
            self.add_module(name, network)
        self.names = tuple(features)
        self.head = nn.Sequential(swish_mlp(2 * width, width), SplitLinearLayer(width, heads))

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        features = [getattr(self, name)(x) for name, x in zip(self.names, values, strict=True)]
        return self.head(torch.cat(features, dim=1))


class PriorExpert(nn.Module):
    """Encoder (N, ...) -> parameters of the prior, zeros (N, D): in a CVAE z is independent of the condition."""

    def __init__(self, heads: tuple[int, ...]) -> None:
        super().__init__()
        self.n_params = len(heads)
        self.register_buffer("zeros", torch.zeros(heads[0]), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.zeros.expand(len(x), -1),) * self.n_params


class ConditionedDecoder(nn.Sequential):
    """A decoder of z (N, D) and a condition (N, ...): its layers get z and the condition's encoding side by side."""

    def __init__(self, decoder: nn.Sequential, condition: Callable[[Tensor], Tensor]) -> None:
        super().__init__(*decoder)
        self.condition = condition

    def forward(self, z: Tensor, condition: Tensor) -> Tensor:
        return super().forward(torch.cat([z, self.condition(condition).to(z)], dim=1))


def build_pair(
    model: str,
    networks: Networks,
    latent_dim: int,
    posterior: str,
    n_private: int | None = None,
    n_clusters: int | None = None,
    rho: float | None = None,
) -> MultimodalVAE:
    """Build a model of two modalities.

    Args:
        model: a name in MODELS.
        latent_dim: the number of latents that both share.
        posterior: a name in FAMILIES.
        n_private: the number of latents that belong to the first modality alone, for models that have such.
        n_clusters: of the prior, for models whose prior is a mixture.
        rho: correlation of the experts, for code.

    Raises:
        InputError: the model's fusion does not exist for the family.
    """
    record, n_params = MODELS[model], FAMILIES[posterior].n_params
    first, second = networks.decoder
    heads, private = (latent_dim,) * n_params, {first: n_private} if n_private else {}

    def joint_encoder() -> nn.Module:
        features = {name: build() for name, build in networks.features.items()}
        return JointEncoder(features, networks.width, heads)

    if record.given_second:
        encoder = {f"{first},{second}": joint_encoder(), second: PriorExpert(heads)}
        conditioned = networks.decoder[first](latent_dim + networks.n_condition)
        decoder = {f"{first}|{second}": ConditionedDecoder(conditioned, networks.condition)}
    elif record.first_alone:
        encoder = {first: networks.encoder[first](heads)}
        decoder = {first: networks.decoder[first](latent_dim)}
    else:
        n_latents = {name: latent_dim + private.get(name, 0) for name in networks.decoder}
        encoder = {name: build((n_latents[name],) * n_params) for name, build in networks.encoder.items()}
        if FUSIONS[record.fusion].joint_encoder:
            encoder[f"{first},{second}"] = joint_encoder()
        decoder = {name: build(n_latents[name]) for name, build in networks.decoder.items()}
    likelihood = {name: build() for name, build in networks.likelihood.items()}
    return VAE(
        record.fusion,
        encoder,
        decoder,
        GroupedLikelihood(**likelihood),
        latent_dim=latent_dim + sum(private.values()),
        posterior=posterior,
        private=private,
        n_clusters=n_clusters,
        rho=rho,
    )
