"""The models that --model names: a record each."""

from typing import NamedTuple


class Model(NamedTuple):
    """A model that --model names.

    fusion: how its experts are fused, a name in `FUSIONS`.
    unpaired: whether it can learn from examples that lack modalities, such as unpaired ones.
    summary: what --help says.
    source: the paper.
    bounds: what its objective is a lower bound on.
    difference: the sentence that tells it from the model most like it.
    obj: the objective without --obj; None for the first one that exists for the fusion.
    private: whether each modality has private latents.
    clusters: whether the prior of the shared latents is a mixture.
    bound: its objective in LaTeX, where it differs from the equation in the objective's docstring.
    posterior: the family of its experts without --posterior, where a script offers several.
    K: the importance samples from each expert without --K.
    first_alone: whether it models the first of two modalities alone.
    given_second: whether its decoder sees the second.
    generative: its generative model, if it is neither of the usual ones, with private latents and without.
    inference: its posterior in words, where these differ from the fusion's.
    """

    fusion: str
    unpaired: bool
    summary: str
    source: str
    bounds: str
    difference: str
    obj: str | None = None
    private: bool = False
    clusters: bool = False
    bound: str = ""
    posterior: str = "gaussian"
    K: int | None = None
    first_alone: bool = False
    given_second: bool = False
    generative: str = ""
    inference: str = ""


EVIDENCE, EVIDENCES, NOTHING = "log p(X)", "the sum of the log p(x_S)", "nothing"
WU, SUTTER = "Wu & Goodman 2018, arXiv 1802.05335", "Sutter et al. 2021, arXiv 2105.02470"
PRIVATE_BOUND = (
    r"\sum_t \pi_t \log \frac1K \sum_k \omega_{tk}, \qquad "
    r"\omega = \Big[ \frac{p(u) p(w_t)}{\sum_j \pi_j q_j(u|x_j) \, q(w_t|x_t)} \Big]^\beta "
    r"\prod_m p(x_m|u, w_m)^{\lambda_m}, \quad u, w_t \sim q_t, \quad w_n \sim r_n(w_n), \quad n \neq t"
)
MODELS = {
    "mvae": Model(
        fusion="poe",
        unpaired=True,
        summary="product of experts",
        source=WU,
        bounds=EVIDENCES,
        difference="A product is sharp where any expert is sharp; mmvae's mixture keeps what only one expert supports.",
    ),
    "mvae-q": Model(
        fusion="quotient",
        unpaired=True,
        summary="quotient of posteriors",
        source=WU,
        bounds=EVIDENCES,
        difference="Unlike mvae's experts, its encoders give posteriors, which hold the prior already.",
    ),
    "jmvae": Model(
        fusion="joint",
        unpaired=False,
        summary="joint encoder, and one for each modality",
        source="Suzuki et al. 2016, arXiv 1611.01891",
        bounds=EVIDENCE,
        difference="Unlike mvae, it has a network for the joint posterior, and a KL pulls the posteriors of single "
        "modalities towards it.",
    ),
    "jnf": Model(
        fusion="jnf",
        unpaired=False,
        summary="joint encoder, and a normalizing flow for each modality",
        source="Senellart et al. 2023, arXiv 2305.11832",
        bounds=EVIDENCE,
        difference="Unlike in jmvae, posteriors of single modalities are flows, which are fitted to the joint one "
        "and leave it as it is; several are multiplied.",
    ),
    "vae": Model(
        fusion="own",
        unpaired=False,
        summary="the first modality alone",
        source="Kingma & Welling 2014, arXiv 1312.6114",
        bounds="log p(x_1)",
        difference="It models one modality.",
        first_alone=True,
        generative="p(z) p(x_1|z)",
        inference="q(z|x_1) from its encoder",
    ),
    "cvae": Model(
        fusion="own",
        unpaired=False,
        summary="the first modality given the second",
        source="Sohn et al. 2015, NeurIPS",
        bounds="log p(x_1|x_2)",
        difference="Unlike in all others, the decoder sees the second modality, which it never models.",
        bound=r"E_{q(z|x_1, x_2)} \lambda_1 \log p(x_1|z, x_2) - \beta KL(q(z|x_1, x_2) || p(z))",
        first_alone=True,
        given_second=True,
        generative="p(z) p(x_1|z, x_2)",
        inference="q(z|x_1, x_2) from a joint encoder",
    ),
    "bivcca": Model(
        fusion="moe",
        unpaired=True,
        summary="mixture of experts",
        source="Wang et al. 2016, arXiv 1610.03454",
        bounds=EVIDENCE,
        difference="It is mmvae for two modalities, with BiVCCA's weight mu at 1/2.",
    ),
    "mmvae": Model(
        fusion="moe",
        unpaired=True,
        summary="mixture of experts",
        source="Shi et al. 2019, arXiv 1911.03393",
        bounds=EVIDENCE,
        difference="Every decoder decodes every expert's samples, so that each expert alone has to explain all "
        "modalities.",
    ),
    "mopoe": Model(
        fusion="mopoe",
        unpaired=True,
        summary="mixture of the products of all subsets",
        source=SUTTER,
        bounds=EVIDENCE,
        difference="Its components are mvae's posteriors of all subsets; mmvae's are posteriors of single modalities.",
    ),
    "mopoe-published": Model(
        fusion="mopoe-published",
        unpaired=True,
        summary="mopoe as in its authors' code",
        source=SUTTER,
        bounds=EVIDENCE,
        difference="Unlike in mopoe, only the product of all modalities includes the prior, and one component is drawn "
        "for each example.",
        obj="elbo-one",
    ),
    "mvtcae": Model(
        fusion="product",
        unpaired=True,
        summary="product of experts without the prior, total correlation",
        source="Hwang et al. 2021, NeurIPS",
        bounds=f"{NOTHING}; with --alpha 0 log p(X)",
        difference="Unlike mvae, it trains the posteriors of single modalities by their KL from the joint one, not "
        "by ELBOs.",
    ),
    "crmvae": Model(
        fusion="product",
        unpaired=True,
        summary="product of experts without the prior; each modality is also reconstructed from its own expert",
        source="OpenReview Rn8u4MYgeNJ",
        bounds=NOTHING,
        difference="Unlike mvtcae, it reconstructs each modality from its own posterior too.",
        obj="crmvae",
    ),
    "mmjsd": Model(
        fusion="moe",
        unpaired=True,
        summary="mixture of experts and prior, with KLs to their geometric mean",
        source="Sutter et al. 2020, arXiv 2006.08242",
        bounds="log E_f p(X|z), f the geometric mean of experts and prior",
        difference="Unlike in mmvae, the KLs are those to the geometric mean of experts and prior, and the prior is a "
        "component.",
        obj="mmjsd",
    ),
    "telbo": Model(
        fusion="joint",
        unpaired=False,
        summary="joint encoder that trains the decoders, and one for each modality",
        source="Vedantam et al. 2018, arXiv 1705.10762",
        bounds="log p(X) + the sum of the log p(x_m)",
        difference="Unlike in jmvae, posteriors of single modalities learn by ELBOs, which do not train the decoders.",
        obj="telbo",
    ),
    "dmvae": Model(
        fusion="poe",
        unpaired=True,
        summary="product of experts over shared latents; each modality also has private latents",
        source="Lee & Pavlovic 2021, arXiv 2012.13024",
        bounds="(|X| + 1) log p(X); log p(X) if |X| = 1",
        difference="Unlike in mvae, modalities have private latents, and every posterior scores all modalities.",
        obj="dmvae",
        private=True,
    ),
    "mmvae+": Model(
        fusion="mmvae+",
        unpaired=True,
        summary="mixture of experts over shared latents; each modality also has private latents",
        source="Palumbo et al. 2023, ICLR",
        bounds="log p(X) if the auxiliary priors are the prior",
        difference="Unlike in mmvae, modalities have private latents, which only their own expert gives.",
        obj="iwae",
        private=True,
        bound=PRIVATE_BOUND,
        posterior="laplace",
        K=1,
    ),
    "cmvae": Model(
        fusion="mmvae+",
        unpaired=True,
        summary="mmvae+ with a prior of clusters",
        source="Palumbo et al. 2024, ICLR",
        bounds="log p(X) if the auxiliary priors are the prior",
        difference="Unlike in mmvae+, the prior of the shared latents is a mixture of clusters.",
        obj="iwae",
        private=True,
        clusters=True,
        bound=PRIVATE_BOUND,
        posterior="laplace",
        K=1,
    ),
}
# those of two modalities, an image and a label or text; their mixture of experts is called bivcca
PAIR_MODELS = (
    *("mvae", "mvae-q", "jmvae", "jnf", "vae", "cvae", "bivcca"),
    *("mopoe", "mopoe-published", "mvtcae", "crmvae", "mmjsd", "telbo"),
)
