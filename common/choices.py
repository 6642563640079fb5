"""The choices of --model, --fusion and --posterior; nothing here imports torch, so that --help needs none."""

from typing import NamedTuple

FUSIONS = {  # those of `common.fusions.FUSIONS`
    "poe": "product of experts and prior (MVAE: Wu & Goodman 2018, arXiv 1802.05335)",
    "product": "product of experts without the prior (MVTCAE: Hwang et al. 2021, NeurIPS)",
    "quotient": "quotient of posteriors (MVAE-Q: Wu & Goodman 2018, eq. 3)",
    "moe": "mixture of experts (Wang et al. 2016, arXiv 1610.03454; MMVAE: Shi et al. 2019, arXiv 1911.03393)",
    "mmvae+": "mixture of experts whose components have private latents (MMVAE+: Palumbo et al. 2023, ICLR)",
    "mopoe": "mixture of the products of all subsets (MoPoE: Sutter et al. 2021, arXiv 2105.02470)",
    "mopoe-published": "mopoe as in its authors' code: the prior is an expert of the product of all modalities alone",
    "own": "each subset of the modalities has its own encoder (VAE, CVAE)",
    "joint": "a joint encoder, and one for each modality (JMVAE: Suzuki et al. 2016, arXiv 1611.01891)",
    "jnf": "a joint encoder, and a normalizing flow for each modality (JNF: Senellart et al. 2023, arXiv 2305.11832)",
    "set": "one posterior from the sum of the encodings (partial-VAE: Ma et al. 2019, arXiv 1809.11142)",
    "unstructured": "one posterior from one network on all values, zeros where absent, and the mask: a baseline",
}
FAMILIES = {  # those of `common.fusions.FAMILIES`
    "gaussian": "diagonal Gaussian",
    "laplace": "Laplace whose scales sum to the number of latents; mixtures and single encoders only",
    "softplus-laplace": "Laplace with softplus scales; mixtures and single encoders only",
    "softplus-normal": "Gaussian with softplus scales; mixtures and single encoders only",
    "laplace-normal": "first expert Laplace, second one Gaussian, prior Laplace; mixtures only",
    "vmf": "von Mises-Fisher, z on the unit sphere, or on several side by side",
    "ebm": "energy-based: Gaussian times a learned exp(-E), prior N(0, I); products only",
}


class Model(NamedTuple):
    """A model that --model names.

    fusion: how its experts are fused, a name in `FUSIONS`.
    unpaired: whether it can learn from unpaired examples, and from others that lack modalities.
    summary: what --help says.
    source: the paper.
    bounds: what its objective is a lower bound on.
    obj: the objective without --obj; None for the first one that exists for the fusion.
    private: whether each modality has private latents.
    clusters: whether the prior of the shared latents is a mixture.
    """

    fusion: str
    unpaired: bool
    summary: str
    source: str
    bounds: str
    obj: str | None = None
    private: bool = False
    clusters: bool = False


EVIDENCE, EVIDENCES, NOTHING = "log p(X)", "the sum of the log p(x_S)", "nothing"
WU, SUTTER = "Wu & Goodman 2018, arXiv 1802.05335", "Sutter et al. 2021, arXiv 2105.02470"
MODELS = {
    "mvae": Model("poe", True, "product of experts", WU, EVIDENCES),
    "mvae-q": Model("quotient", True, "quotient of posteriors", WU, EVIDENCES),
    "jmvae": Model(
        "joint", False, "joint encoder, and one for each modality", "Suzuki et al. 2016, arXiv 1611.01891", EVIDENCE
    ),
    "jnf": Model(
        "jnf",
        False,
        "joint encoder, and a normalizing flow for each modality",
        "Senellart et al. 2023, arXiv 2305.11832",
        EVIDENCE,
    ),
    "vae": Model("own", False, "the first modality alone", "Kingma & Welling 2014, arXiv 1312.6114", "log p(x_1)"),
    "cvae": Model("own", False, "the first modality given the second", "Sohn et al. 2015, NeurIPS", "log p(x_1|x_2)"),
    "bivcca": Model("moe", True, "mixture of experts", "Wang et al. 2016, arXiv 1610.03454", EVIDENCE),
    "mmvae": Model("moe", True, "mixture of experts", "Shi et al. 2019, arXiv 1911.03393", EVIDENCE),
    "mopoe": Model("mopoe", True, "mixture of the products of all subsets", SUTTER, EVIDENCE),
    "mopoe-published": Model("mopoe-published", True, "mopoe as in its authors' code", SUTTER, EVIDENCE, "elbo-one"),
    "mvtcae": Model(
        "product",
        True,
        "product of experts without the prior, total correlation",
        "Hwang et al. 2021, NeurIPS",
        f"{NOTHING}; with --alpha 0 log p(X)",
    ),
    "crmvae": Model(
        "product",
        True,
        "product of experts without the prior, with each one's reconstructions",
        "OpenReview Rn8u4MYgeNJ",
        NOTHING,
        "crmvae",
    ),
    "mmjsd": Model(
        "moe",
        True,
        "mixture of experts and prior, drawn to their geometric mean",
        "Sutter et al. 2020, arXiv 2006.08242",
        "log of the mean of p(X|z) over the geometric mean",
        "mmjsd",
    ),
    "telbo": Model(
        "joint",
        False,
        "joint encoder that trains the decoders, and one for each modality",
        "Vedantam et al. 2018, arXiv 1705.10762",
        "log p(X) + the sum of the log p(x_m)",
        "telbo",
    ),
    "dmvae": Model(
        "poe",
        True,
        "product of experts of shared latents; each modality has its own",
        "Lee & Pavlovic 2021, arXiv 2012.13024",
        "M + 1 times log p(X)",
        "dmvae",
        private=True,
    ),
    "mmvae+": Model(
        "mmvae+",
        True,
        "mixture of experts of shared latents; each modality has its own",
        "Palumbo et al. 2023, ICLR",
        "log p(X) if the auxiliary priors are the prior",
        "iwae",
        private=True,
    ),
    "cmvae": Model(
        "mmvae+",
        True,
        "mmvae+ with a prior of clusters",
        "Palumbo et al. 2024, ICLR",
        "log p(X) if the auxiliary priors are the prior",
        "iwae",
        private=True,
        clusters=True,
    ),
}
# those of two modalities, an image and a label or text; their mixture of experts is called bivcca
OF_PAIRS = ("mvae", "mvae-q", "jmvae", "jnf", "vae", "cvae", "bivcca", "mopoe", "mvtcae", "crmvae", "mmjsd", "telbo")
