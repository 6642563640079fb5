"""The page on all models, from the registries and the objectives' docstrings.

python -m common.reporting.models_page > docs/models.md
"""

import inspect
import re

from common import choices, objectives
from common.objectives import registry
from common.reporting.tables import in_table

HEAD = """# Models

Every model is p(z) prod_m p(x_m|z), a posterior q(z|x_S) for each subset S of the modalities, and an objective. X are
the modalities that an example has, M is their number in the model, lambda weighs log-likelihoods and beta KLs; with all
of them at 1 values are in nats. A mixture's components q_t have the weights pi_t, which are equal. `--model` names
these; `--fusion`, `--posterior` and `--obj` combine the pieces, and a folder may have another default of `--obj`
([what exists for what](../README.md#what-exists-for-what)). `python -m common.reporting.models_page` writes this page.
"""
COLUMNS = ("model", "what it is", "latents", "a lower bound on", "learns from incomplete examples", "source")
CLASSES = {  # of the objectives that models have without --obj; elbo has another one for mixtures
    "jmvae": "JmvaeElbo",
    "jnf": "JnfElbo",
    "telbo": "TelboElbo",
    "mvtcae": "MvtcaeElbo",
    "crmvae": "CrmvaeElbo",
    "mvae": "MvaeElbo",
    "elbo": "StandardElbo",
    "elbo-one": "MmvaeElbo",
    "mmjsd": "MmjsdElbo",
    "dmvae": "DmvaeElbo",
    "iwae": "IwaeElbo",
}
SUBSETS = r"q(z|X) = \frac1{2^{|X|} - 1} \sum_{\emptyset \neq A \subseteq X} q_A, \qquad q(z|x_S) = q_S, \qquad "
POSTERIORS = {
    "poe": r"q(z|x_S) \propto p(z) \prod_{m \in S} q_m(z|x_m)",
    "product": r"q(z|x_S) \propto \prod_{m \in S} q_m(z|x_m)",
    "quotient": r"q(z|x_S) \propto p(z)^{1 - |S|} \prod_{m \in S} q(z|x_m)",
    "moe": r"q(z|x_S) = \frac1{|S|} \sum_{m \in S} q_m(z|x_m)",
    "mmvae+": r"q(u|x_S) = \frac1{|S|} \sum_{m \in S} q_m(u|x_m), \qquad "
    r"q(w_m|x_m) \text{ if } m \in S, \text{ else } p(w_m)",
    "mopoe": SUBSETS + r"q_A \propto p(z) \prod_{m \in A} q_m(z|x_m)",
    "mopoe-published": SUBSETS + r"q_A \propto p(z)^{[|A| = M]} \prod_{m \in A} q_m(z|x_m)",
    "own": r"q(z|x_S) \text{ from a network on } x_S",
    "joint": r"q(z|X) \text{ from a network on } X, \quad q(z|x_m) \text{ from one on } x_m",
    "jnf": r"q(z|X) \text{ from a network on } X, \quad q(z|x_S) \propto p(z)^{1 - |S|} \prod_{m \in S} q_m(z), "
    r"\quad q_m(z) = N(f_m(z); \mu_m, \sigma_m^2) |\det \partial f_m / \partial z|",
}
PRIVATE = r"p(z) = p(u) \prod_m p(w_m), \qquad p(x_m|z) = p(x_m|u, w_m)"
CLUSTERS = r"p(u) = \sum_c \pi_c \, p(u|c)"
AUXILIARY = (
    r"\sum_t \pi_t \log \frac1K \sum_k w_{tk}, \qquad "
    r"w = \Big[ \frac{p(u) p(w_t)}{\sum_j \pi_j q_j(u|x_j) \, q(w_t|x_t)} \Big]^\beta "
    r"\prod_m p(x_m|u, w_m)^{\lambda_m}, \quad u, w_t \sim q_t, \quad w_n \sim r_n(w_n), \quad n \neq t"
)
BOUNDS = {  # where models have another form of their objective's equation
    "cvae": r"E_{q(z|x_1, x_2)} \lambda_1 \log p(x_1|z, x_2) - \beta KL(q(z|x_1, x_2) || p(z))",
    "mmvae+": AUXILIARY,
    "cmvae": AUXILIARY,
}
NEIGHBOURS = {
    "mvae": "The product is sharp where any expert is, mmvae's mixture keeps what one expert alone believes.",
    "mvae-q": "Unlike mvae's experts its encoders give posteriors, which hold the prior already.",
    "jmvae": "Unlike mvae it has a network for the joint posterior, to which those of single modalities are drawn.",
    "jnf": "Unlike jmvae its posteriors of single modalities are flows, which are fitted to the joint one and leave it "
    "as it is; several are multiplied.",
    "vae": "It models one modality.",
    "cvae": "Unlike all others its decoder sees the second modality, which it never models.",
    "bivcca": "It is mmvae with two modalities and both halves of the objective equal.",
    "mmvae": "Every decoder decodes every expert's samples, so that each expert alone has to explain all modalities.",
    "mopoe": "Its components are mvae's posteriors of all subsets, mmvae's those of single modalities.",
    "mopoe-published": "Unlike mopoe its products of fewer than all modalities leave the prior out.",
    "mvtcae": "Unlike mvae it trains the posteriors of single modalities by their KL from the joint one, not by ELBOs.",
    "crmvae": "Unlike mvtcae it reconstructs each modality from its own posterior too.",
    "mmjsd": "Unlike mmvae its KLs are those to the geometric mean of experts and prior, and the prior is a component.",
    "telbo": "Unlike jmvae its posteriors of single modalities learn by ELBOs, which do not train the decoders.",
    "dmvae": "Unlike mvae modalities have private latents, and all are scored under every posterior.",
    "mmvae+": "Unlike mmvae modalities have private latents, which other modalities' experts never give.",
    "cmvae": "Unlike mmvae+ its shared latents fall into clusters, which are read off them.",
}


def page() -> str:
    """The page, in Markdown."""
    rows = [COLUMNS, ["---"] * len(COLUMNS)]
    for name, model in choices.MODELS.items():
        latents, incomplete = "shared and private" if model.private else "shared", "yes" if model.unpaired else "no"
        rows.append([f"`{name}`", model.summary, latents, model.bounds, incomplete, model.source])
    table = "\n".join(f"| {' | '.join(map(in_table, row))} |" for row in rows)
    return "\n".join([HEAD, table, *map(_section, choices.MODELS)])


def _section(name: str) -> str:
    """A model's equations, and what tells it from its neighbour."""
    model = choices.MODELS[name]
    obj = model.obj or registry.objectives_of(model.fusion)[0]
    form = "MmvaeElbo" if model.fusion in registry.MIXTURES and obj == "elbo" else CLASSES[obj]
    bound = BOUNDS.get(name) or equation(form)
    equations = [PRIVATE] * model.private + [CLUSTERS] * model.clusters + [POSTERIORS[model.fusion], bound]
    shown = "\n\n".join(f"$$ {x} $$" for x in equations)
    return f"\n## {name}\n\n{NEIGHBOURS[name]} `--obj {obj}`, `common.objectives.{form}`.\n\n{shown}\n"


def equation(form: str) -> str:
    """The first displayed equation in the docstring of an objective, on one line."""
    text = inspect.getdoc(getattr(objectives, form))
    return " ".join(re.search(r"\.\. math:: (.*?)(?:\n\n|\Z)", text, re.DOTALL)[1].split())


if __name__ == "__main__":
    print(page(), end="")
