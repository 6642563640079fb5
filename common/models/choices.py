"""The models that --model names: a record each. docs/models.md has their equations."""

from typing import NamedTuple


class Model(NamedTuple):
    """A model that --model names.

    fusion: how its experts are fused, a name in `common.models.fusions.FUSIONS`.
    summary: what --help says.
    unpaired: whether it can learn from examples that lack modalities, such as unpaired ones.
    obj: the objective without --obj; None for the first one that exists for the fusion.
    private: whether each modality has private latents.
    clusters: whether the prior of the shared latents is a mixture.
    posterior: the family of its experts without --posterior, where a script offers several.
    K: the importance samples from each expert without --K.
    first_alone: whether it models the first of two modalities alone.
    given_second: whether its decoder sees the second.
    """

    fusion: str
    summary: str
    unpaired: bool
    obj: str | None = None
    private: bool = False
    clusters: bool = False
    posterior: str = "gaussian"
    K: int | None = None
    first_alone: bool = False
    given_second: bool = False


MODELS = {
    # Wu & Goodman 2018, arXiv 1802.05335
    "mvae": Model("poe", "product of experts", unpaired=True),
    # Wu & Goodman 2018, arXiv 1802.05335
    "mvae-q": Model("quotient", "quotient of posteriors", unpaired=True),
    # Suzuki et al. 2016, arXiv 1611.01891
    "jmvae": Model("joint", "joint encoder, and one for each modality", unpaired=False),
    # Senellart et al. 2023, arXiv 2305.11832
    "jnf": Model("jnf", "joint encoder, and a normalizing flow for each modality", unpaired=False),
    # Kingma & Welling 2014, arXiv 1312.6114
    "vae": Model("own", "the first modality alone", unpaired=False, first_alone=True),
    # Sohn et al. 2015, NeurIPS
    "cvae": Model("own", "the first modality given the second", unpaired=False, first_alone=True, given_second=True),
    # Wang et al. 2016, arXiv 1610.03454
    "bivcca": Model("moe", "mixture of experts", unpaired=True),
    # Shi et al. 2019, arXiv 1911.03393
    "mmvae": Model("moe", "mixture of experts", unpaired=True),
    # Sutter et al. 2021, arXiv 2105.02470
    "mopoe": Model("mopoe", "mixture of the products of all subsets", unpaired=True),
    # Sutter et al. 2021, arXiv 2105.02470
    "mopoe-published": Model("mopoe-published", "mopoe as in its authors' code", unpaired=True, obj="elbo-one"),
    # Hwang et al. 2021, NeurIPS
    "mvtcae": Model("product", "product of experts without the prior, total correlation", unpaired=True),
    # OpenReview Rn8u4MYgeNJ
    "crmvae": Model(
        "product",
        "product of experts without the prior; each modality is also reconstructed from its own expert",
        unpaired=True,
        obj="crmvae",
    ),
    # Sutter et al. 2020, arXiv 2006.08242
    "mmjsd": Model("moe", "mixture of experts and prior, with KLs to their geometric mean", unpaired=True, obj="mmjsd"),
    # Vedantam et al. 2018, arXiv 1705.10762
    "telbo": Model(
        "joint", "joint encoder that trains the decoders, and one for each modality", unpaired=False, obj="telbo"
    ),
    # Lee & Pavlovic 2021, arXiv 2012.13024
    "dmvae": Model(
        "poe",
        "product of experts over shared latents; each modality also has private latents",
        unpaired=True,
        obj="dmvae",
        private=True,
    ),
    # Palumbo et al. 2023, ICLR
    "mmvae+": Model(
        "mmvae+",
        "mixture of experts over shared latents; each modality also has private latents",
        unpaired=True,
        obj="iwae",
        private=True,
        posterior="laplace",
        K=1,
    ),
    # Palumbo et al. 2024, ICLR
    "cmvae": Model(
        "mmvae+",
        "mmvae+ with a prior of clusters",
        unpaired=True,
        obj="iwae",
        private=True,
        clusters=True,
        posterior="laplace",
        K=1,
    ),
}
# those of two modalities, an image and a label or text; their mixture of experts is called bivcca
PAIR_MODELS = (
    *("mvae", "mvae-q", "jmvae", "jnf", "vae", "cvae", "bivcca"),
    *("mopoe", "mopoe-published", "mvtcae", "crmvae", "mmjsd", "telbo"),
)
