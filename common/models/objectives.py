"""The objectives by name: a record says what the objective is, for which fusions it exists and which options it takes.

The command line, its checks and --help, the README's table and the tests read the records. A new objective needs its
module, its name in `common.objectives`, and a record here.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from common import objectives
from common.errors import option, require
from common.models.choices import MODELS, Model
from common.models.families import Family
from common.multimodal_vae import MultimodalVAE
from common.objectives import MultimodalObjective
from common.progress import print_once

OPTIONS = {  # {an option of objectives: its values that ask for nothing; all objectives take one sample}
    "K": (None, 1),
    "looser": (None, False),
    "dreg": (None,),
    "approx_m": (0,),
    "alpha": (None,),
}
WITHOUT_K = ("elbo", "elbo-importance")  # MMVAE's code takes and ignores --K with its elbo
ARGUMENTS = {"dreg": "gradient", "approx_m": "K"}  # what the classes call these options
NONE = MappingProxyType({})
SAMPLES = {"K": 30, "looser": True}  # as in MMVAE's paper (Shi et al. 2019); its script has K = 20
PRODUCTS, MIXTURES = ("poe", "product", "quotient"), ("moe", "mopoe", "mopoe-published", "mwb")
POOLED = ("helvae", "wb")  # one Gaussian for every subset, which is no product
LEARN_WEIGHTS = ("hoelder", "code")  # mixtures whose weights have gradients, which DReG and a drawn component ignore
SINGLE_NETWORKS = ("set", "unstructured")  # one network gives the posterior of every subset
WEIGHTED = (*PRODUCTS, *POOLED, *MIXTURES, "mmvae+", "own", *SINGLE_NETWORKS)  # have importance-weighted bounds


class ObjectiveRecord(NamedTuple):
    """An objective.

    form: its class, whose docstring has its equation; `form_of` has those of elbo and iwae for some posteriors.
    fusions: those of `common.models.fusions.FUSIONS` that it exists for. For others it would leave parts untrained, or
        needs a posterior that they do not have.
    summary: what --help says.
    options: those of OPTIONS that it takes, with their defaults.
    fixed: further arguments of its class.
    needs_density: whether it needs a posterior with a density or KL in closed form.
    gaussian: whether it needs Gaussian experts.
    """

    form: type[MultimodalObjective]
    fusions: tuple[str, ...]
    summary: str
    options: Mapping[str, Any] = NONE
    fixed: Mapping[str, Any] = NONE
    needs_density: bool = True
    gaussian: bool = False


OBJECTIVES = {  # the first one that exists for a fusion is its default
    "jmvae": ObjectiveRecord(
        objectives.JmvaeElbo,
        ("joint",),
        "joint ELBO; the posteriors of single modalities are pulled towards the joint one",
        options={"alpha": 0.1},
    ),
    "student": ObjectiveRecord(
        objectives.JmvaeElbo,
        ("joint",),
        "joint ELBO; the posteriors of single modalities are distilled from the joint one",
        options={"alpha": 0.1},
        fixed={"students": True},
    ),
    "telbo": ObjectiveRecord(
        objectives.TelboElbo,
        ("joint",),
        "joint ELBO, which trains the decoders, and the ELBO of each modality, which trains its encoder",
        needs_density=False,
    ),
    "jnf": ObjectiveRecord(
        objectives.JnfElbo,
        ("jnf",),
        "joint ELBO; the flows of single modalities are fitted to samples of the joint posterior",
    ),
    "mvtcae": ObjectiveRecord(
        objectives.MvtcaeElbo,
        ("product",),
        "MVTCAE's total correlation and conditional bottlenecks, a bound only for --alpha 0",
        options={"alpha": 5 / 6},
    ),
    "crmvae": ObjectiveRecord(
        objectives.CrmvaeElbo,
        ("product",),
        "CRMVAE's reconstructions from the joint posterior and from each modality's own, no bound",
    ),
    "mvae": ObjectiveRecord(
        objectives.MvaeElbo,
        (*PRODUCTS, *POOLED, *SINGLE_NETWORKS),
        "ELBO of all modalities, of each one, and of --approx-m random subsets",
        options={"approx_m": 0},
        needs_density=False,
    ),
    "elbo": ObjectiveRecord(
        objectives.StandardElbo,
        (*PRODUCTS, *POOLED, *MIXTURES, *LEARN_WEIGHTS, "own", *SINGLE_NETWORKS),
        "ELBO of all modalities; for a mixture the mean over its components",
        needs_density=False,
    ),
    "elbo-one": ObjectiveRecord(
        objectives.MmvaeElbo,
        MIXTURES,
        "elbo with one component drawn for each example, the only one that is decoded",
        fixed={"draw_one": True},
        needs_density=False,
    ),
    "mmjsd": ObjectiveRecord(
        objectives.MmjsdElbo,
        ("moe",),
        "mmJSD's mixture of experts and prior, with KLs to their geometric mean; no bound on log p(X)",
        gaussian=True,
    ),
    "code": ObjectiveRecord(
        objectives.CodeElbo,
        ("code",),
        "mean over the subsets, by learned weights, of the ELBO with a subset's posterior; the weights' entropy",
    ),
    "mmvm": ObjectiveRecord(
        objectives.MmvmElbo,
        ("moe",),
        "each modality from its own expert, with KLs between the experts; no bound on log p(X)",
        options={"alpha": 0.0},
        gaussian=True,
    ),
    "mmvm-mixture": ObjectiveRecord(
        objectives.MmvmElbo,
        ("moe",),
        "mmvm with KLs from the experts to their mixture, by samples, as in its paper",
        options={"alpha": 0.0},
        fixed={"to_mixture": True},
    ),
    "dmvae": ObjectiveRecord(
        objectives.DmvaeElbo,
        (*PRODUCTS, *POOLED),
        "ELBO of all modalities with the posterior of all, and with that of each one",
    ),
    "ar": ObjectiveRecord(
        objectives.ArElbo,
        (*PRODUCTS, *POOLED, "joint", "set", "unstructured"),
        "chain rule over the modalities in a random order, no bound",
    ),
    "elbo-importance": ObjectiveRecord(
        objectives.ReweightedElbo, ("moe",), "what MMVAE's code calls elbo; its weights collapse"
    ),
    "dreg": ObjectiveRecord(
        objectives.DregIwaeElbo,
        WEIGHTED,
        "importance-weighted bound with the doubly reparameterised gradient",
        options=SAMPLES | {"dreg": "exact"},
    ),
    "iwae": ObjectiveRecord(
        objectives.IwaeElbo,
        (*WEIGHTED, *LEARN_WEIGHTS),
        "importance-weighted bound with its own gradient",
        options=SAMPLES,
        needs_density=False,
    ),
    "idmvae": ObjectiveRecord(
        objectives.IdmvaeElbo,
        ("mmvae+",),
        "iwae, InfoNCE between shared latents, and latents of swapped examples that come back",
        options=SAMPLES,
    ),
    "stl": ObjectiveRecord(
        objectives.StlElbo,
        WEIGHTED,
        "importance-weighted bound without the score of q, biased for K > 1",
        options=SAMPLES,
    ),
}


def objectives_of(fusion: str) -> tuple[str, ...]:
    """Names of the objectives that exist for a fusion."""
    return tuple(name for name, record in OBJECTIVES.items() if fusion in record.fusions)


def with_default(model: Model) -> tuple[str, ...]:
    """Names of the objectives that exist for a model, its default first."""
    exists = objectives_of(model.fusion)
    return tuple(sorted(exists, key=lambda name: name != (model.obj or exists[0])))


def decodes_own_latents(config: Mapping[str, Any]) -> bool:
    """Whether a run with these options decodes each modality from its own latents, as those of mmvm."""
    named = MODELS.get(config.get("model"))
    obj = config.get("obj") or (named and named.obj)
    return obj in [name for name, record in OBJECTIVES.items() if record.form is objectives.MmvmElbo]


def check_objective(obj: str, exists: Sequence[str], model: str, family: Family, options: Any) -> None:  # noqa: ANN401
    """Refuse an objective, or an option of it, that does not exist for a model.

    Args:
        exists: the objectives that exist for the model.
        model: the option that names the model ("--model mvae").
        family: that of its experts.
        options: a config with the options of objectives.

    Raises:
        InputError: says what exists. A K that --obj elbo ignores takes a warning.
    """
    record = OBJECTIVES[obj]
    require(obj in exists, f"--obj {obj} does not exist for {model}: choose {', '.join(exists)}, or another model")
    fits = not record.gaussian or family.is_gaussian
    require(fits, f"--obj {obj} needs Gaussian experts, not {family.name} ones: choose these, or another model")
    known = ", ".join(name for name in exists if not OBJECTIVES[name].needs_density)
    lacking = f"a posterior with a density in closed form, --posterior {family.name} has none"
    require(family.has_density or not record.needs_density, f"--obj {obj} needs {lacking}: choose {known}")
    for name, unset in OPTIONS.items():
        takers = [other for other, record in OBJECTIVES.items() if name in record.options]
        one_of = " or ".join(filter(None, (", ".join(takers[:-1]), takers[-1])))
        refused = f"{option(name)} needs --obj {one_of} (got --obj {obj})"
        if name == "K" and obj in WITHOUT_K and options.K not in unset:
            print_once(f"warning: {refused}: it is ignored, as in MMVAE's code")
        else:
            require(obj in takers or getattr(options, name) in unset, refused)


def form_of(obj: str, is_mixture: bool, has_density: bool = True) -> type[MultimodalObjective]:
    """The class of an objective, for a posterior that is a mixture or has no density."""
    if obj == "elbo" and is_mixture:
        return objectives.MmvaeElbo
    return objectives.EnergyIwaeElbo if obj == "iwae" and not has_density else OBJECTIVES[obj].form


def make_objective(
    obj: str,
    model: MultimodalVAE,
    options: Any,  # noqa: ANN401 (any config with the options of the record)
    weights: Mapping[str, float] | None = None,
) -> MultimodalObjective:
    """The objective with a name, for a model, with the options that its record names."""
    record, posterior = OBJECTIVES[obj], model.variational_posterior
    form, arguments = form_of(obj, posterior.is_mixture, posterior.has_density), dict(record.fixed)
    for name, default in record.options.items():
        given = getattr(options, name)
        arguments[ARGUMENTS.get(name, name)] = default if given is None else given
    if form is objectives.EnergyIwaeElbo:
        del arguments["looser"]  # its proposals are no mixture
    return form(model, weights=weights, **arguments)
