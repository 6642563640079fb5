"""The page on all models, and README.md's tables of what exists for what, from the registries and the docstrings.

python -m reports.models_page > docs/models.md
"""

import inspect
import re

from common import objectives
from common.models.choices import MODELS, Model
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.objectives.registry import OBJECTIVES, form_of, objectives_of, with_default
from reports.tables import markdown

HEAD = """# Models

A model consists of p(z) prod_m p(x_m|z), a posterior q(z|x_S) for each subset S of the modalities, and an objective. X
are the modalities that an example has; the model has M. The weights lambda_m multiply log-likelihoods, beta multiplies
KLs. If all are 1, values are in nats and the bounds hold. K is the number of random subsets in mvae's objective
(`--approx-m`), and of samples of each component in importance-weighted bounds, which with K > 1 hold only for beta = 1.
A mixture has components q_t with equal weights pi_t. Where modalities have private latents w_m, u are those that they
share. `--model` takes one of the names below; `--fusion`, `--posterior`
and `--obj` combine the pieces
([which go together](../README.md#objectives-and-posterior-families-of-each-fusion)). The default of `--obj` differs in
some folders. `python -m reports.models_page` prints this page.

`vae` infers from the first modality, `cvae` from both, `jmvae` and `telbo` from one modality or from all; every other
model infers from any subset.

Where p(z) stands in the product or quotient of a posterior (`mvae`, `mvae-q`, `jnf`, `mopoe`, `mopoe-published`,
`dmvae`), it is N(0, I), as in the papers, and for von Mises-Fisher experts uniform: these models have no learned prior.
A decoder whose first layer is linear absorbs the scales of a Gaussian prior, so that learned ones add nothing.

Three models are not here. MHVAE (Dorent et al. 2023, arXiv 2309.08747) has a hierarchy of feature maps with networks as
conditional priors p(z_l|z_{l+1}); the pieces here share one z and one prior. Nexus (Vasco et al. 2022) encodes messages
of the modalities' latents. Its objective bounds nothing, and the `multivae` package, whose version drops no message by
default, could not reproduce its figures. SBM-VAE (OpenReview JbuP6UV3Fk) trains a score model on the latents of
separate VAEs.
"""
COLUMNS = (
    *("model", "generative model", "posterior", "objective", "a lower bound on"),
    *("learns from incomplete examples", "source"),
)
PRIVATE = r"p(z) = p(u) \prod_m p(w_m), \qquad p(x_m|z) = p(x_m|u, w_m)"
PRIVATE_POSTERIORS = r"q(z|x_S) = q(u|x_S) \prod_m \{ q(w_m|x_m) \text{ if } m \in S, \text{ else } p(w_m) \}"
CLUSTERS = r"p(u) = \sum_c \pi_c \, p(u|c)"


def page() -> str:
    """The page, in Markdown."""
    rows = []
    for name, model in MODELS.items():
        obj, incomplete = with_default(model)[0], "yes" if model.unpaired else "no"
        goal = f"`{obj}`: {OBJECTIVES[obj].summary}"
        rows.append([f"`{name}`", *pieces(model), goal, model.bounds, incomplete, model.source])
    return "\n".join([HEAD, markdown(COLUMNS, rows), *map(_section, MODELS)])


def pieces(model: Model) -> tuple[str, str]:
    """The generative model, and the posterior in words."""
    private = "p(u) prod_m p(w_m) p(x_m|u, w_m)" + ", p(u) a mixture" * model.clusters
    generative = model.generative or (private if model.private else "p(z) prod_m p(x_m|z)")
    posterior = FUSIONS[model.fusion].summary.split(" (")[0]  # without the source, which the model's row has
    return generative, model.inference or posterior


def _section(name: str) -> str:
    """A model's equations, and what tells it from the model most like it."""
    model = MODELS[name]
    obj = with_default(model)[0]
    form = form_of(obj, FUSIONS[model.fusion].is_mixture).__name__
    bound = model.bound or equation(form)
    posterior = FUSIONS[model.fusion].equation
    if model.private:  # the fusion is that of the shared latents
        posterior = posterior.replace("z", "u")
    equations = [PRIVATE] * model.private + [CLUSTERS] * model.clusters
    equations += [PRIVATE_POSTERIORS] * model.private + [posterior, bound]
    shown = "\n\n".join(f"$$ {x} $$" for x in equations)
    return f"\n## {name}\n\n{model.difference} `--obj {obj}`, `common.objectives.{form}`.\n\n{shown}\n"


def equation(form: str) -> str:
    """The first displayed equation in the docstring of an objective, on one line."""
    text = inspect.getdoc(getattr(objectives, form))
    return " ".join(re.search(r"\.\. math:: (.*?)(?:\n\n|\Z)", text, re.DOTALL)[1].split())


def fusions_table() -> str:
    """Which fusion exists for which posterior family, in Markdown."""
    rows = []
    for name, fusion in FUSIONS.items():
        cells = ["yes" if fusion.exists(family) else "" for family in FAMILIES.values()]
        rows.append([f"`{name}`", *cells, fusion.summary])
    return markdown(["`--fusion`", *(f"`{family}`" for family in FAMILIES), "what it is"], rows)


def objectives_table() -> str:
    """Which objective exists for which fusion, in Markdown; "default" is that of its first model without --obj."""
    first = {fusion: objectives_of(fusion)[0] for fusion in FUSIONS}
    first |= {model.fusion: with_default(model)[0] for model in reversed(MODELS.values())}
    head = ["`--obj`", *(f"`{fusion}`" for fusion in FUSIONS), "`--posterior ebm`", "what it maximises"]
    rows = []
    for name, record in OBJECTIVES.items():
        cells = ["yes" if fusion in record.fusions else "" for fusion in FUSIONS]
        cells = ["default" if name == first[x] else cell for x, cell in zip(FUSIONS, cells, strict=True)]
        energy_based = "poe" in record.fusions and not record.needs_density
        rows.append([f"`{name}`", *cells, "yes" if energy_based else "", record.summary])
    return markdown(head, rows)


if __name__ == "__main__":
    print(page(), end="")
