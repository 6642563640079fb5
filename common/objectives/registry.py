"""The objectives by name: a record says what the objective is, for which fusions it exists and which options it takes.

The command line, its checks and --help, the README's table and the tests read the records. A new objective needs its
module, its name in `common.objectives`, and a record here. The classes are imported when an objective is made.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from common import objectives
from common.errors import option, require
from common.models.choices import Model

if TYPE_CHECKING:
    from common.models.families import Family
    from common.multimodal_vae import MultimodalVAE
    from common.objectives import Objective

JMVAE_ALPHA, MVTCAE_ALPHA = 0.1, 5 / 6  # defaults of --alpha
IMPORTANCE_SAMPLES = 30  # default of --K (Shi et al. 2019; their script: 20)
PRODUCTS, MIXTURES = ("poe", "product", "quotient"), ("moe", "mopoe", "mopoe-published")
SINGLE_NETWORKS = ("set", "unstructured")  # one network gives the posterior of every subset
WEIGHTED = (*PRODUCTS, *MIXTURES, "mmvae+", "own", *SINGLE_NETWORKS)  # have importance-weighted bounds


class ObjectiveRecord(NamedTuple):
    """An objective.

    form: its class in `common.objectives`, whose docstring has its equation; elbo has another one for mixtures.
    make: model, options, weights {name: lambda} -> the objective.
    fusions: those of `common.models.fusions.FUSIONS` that it exists for.
    options: the options of `training.objective_options.ObjectiveOptions` that it takes.
    needs_density: whether it needs a posterior with a density or KL in closed form.
    gaussian: whether it needs Gaussian experts.
    summary: what --help says.
    max_alpha: the largest value of --alpha.
    why: completes the sentence "--obj NAME ..." of the error for other fusions, as in "would leave the posteriors of
        single modalities untrained".
    """

    form: str
    make: Callable[["MultimodalVAE", Any, Mapping[str, float] | None], "Objective"]
    fusions: tuple[str, ...]
    options: tuple[str, ...]
    needs_density: bool
    summary: str
    why: str
    gaussian: bool = False
    max_alpha: float = math.inf


def _samples(options: Any) -> int:  # noqa: ANN401 (any config with the options)
    return options.K or IMPORTANCE_SAMPLES


def _alpha(options: Any, default: float) -> float:  # noqa: ANN401 (any config with the options)
    return default if options.alpha is None else options.alpha


def _elbo(model: "MultimodalVAE", o: Any, weights: Mapping[str, float] | None) -> "Objective":  # noqa: ANN401
    is_mixture = model.variational_posterior.is_mixture
    return (objectives.MmvaeElbo if is_mixture else objectives.StandardElbo)(model, weights)


def _iwae(model: "MultimodalVAE", o: Any, weights: Mapping[str, float] | None) -> "Objective":  # noqa: ANN401
    if not model.variational_posterior.has_density:
        return objectives.EnergyIwaeElbo(model, _samples(o), weights)
    return objectives.IwaeElbo(model, _samples(o), bool(o.looser), weights)


SINGLES_UNTRAINED = "would leave the posteriors of single modalities untrained"
OBJECTIVES = {  # the first one that exists for a fusion is its default
    "jmvae": ObjectiveRecord(
        form="JmvaeElbo",
        make=lambda model, o, weights: objectives.JmvaeElbo(model, _alpha(o, JMVAE_ALPHA), weights),
        fusions=("joint",),
        options=("alpha",),
        needs_density=True,
        summary="joint ELBO; the posteriors of single modalities are pulled towards the joint one",
        why="needs a joint encoder and an encoder for each modality",
    ),
    "student": ObjectiveRecord(
        form="JmvaeElbo",
        make=lambda model, o, weights: objectives.JmvaeElbo(model, _alpha(o, JMVAE_ALPHA), weights, students=True),
        fusions=("joint",),
        options=("alpha",),
        needs_density=True,
        summary="joint ELBO; the posteriors of single modalities are distilled from the joint one",
        why="needs a joint encoder and an encoder for each modality",
    ),
    "telbo": ObjectiveRecord(
        form="TelboElbo",
        make=lambda model, o, weights: objectives.TelboElbo(model, weights),
        fusions=("joint",),
        options=(),
        needs_density=False,
        summary="joint ELBO, which trains the decoders, and the ELBO of each modality, which trains its encoder",
        why="needs a joint encoder and an encoder for each modality",
    ),
    "jnf": ObjectiveRecord(
        form="JnfElbo",
        make=lambda model, o, weights: objectives.JnfElbo(model, weights),
        fusions=("jnf",),
        options=(),
        needs_density=True,
        summary="joint ELBO; the flows of single modalities are fitted to samples of the joint posterior",
        why="needs a joint encoder and a flow for each modality",
    ),
    "mvtcae": ObjectiveRecord(
        form="MvtcaeElbo",
        make=lambda model, o, weights: objectives.MvtcaeElbo(model, _alpha(o, MVTCAE_ALPHA), weights),
        fusions=("product",),
        options=("alpha",),
        needs_density=True,
        summary="MVTCAE's total correlation and conditional bottlenecks, a bound only for --alpha 0",
        why="needs the product of experts without the prior",
        max_alpha=1,
    ),
    "crmvae": ObjectiveRecord(
        form="CrmvaeElbo",
        make=lambda model, o, weights: objectives.CrmvaeElbo(model, weights),
        fusions=("product",),
        options=(),
        needs_density=True,
        summary="CRMVAE's reconstructions from the joint posterior and from each modality's own, no bound",
        why="needs the product of experts without the prior",
    ),
    "mvae": ObjectiveRecord(
        form="MvaeElbo",
        make=lambda model, o, weights: objectives.MvaeElbo(model, o.approx_m, weights),
        fusions=(*PRODUCTS, *SINGLE_NETWORKS),
        options=("approx_m",),
        needs_density=False,
        summary="ELBO of all modalities, of each one, and of --approx-m random subsets",
        why=f"needs a posterior of every subset that is no mixture, as {', '.join((*PRODUCTS, *SINGLE_NETWORKS))} have",
    ),
    "elbo": ObjectiveRecord(
        form="StandardElbo",
        make=_elbo,
        fusions=(*PRODUCTS, *MIXTURES, "own", *SINGLE_NETWORKS),
        options=(),
        needs_density=False,
        summary="ELBO of all modalities; for a mixture the mean over its components",
        why="would leave posteriors of single modalities or auxiliary priors untrained",
    ),
    "elbo-one": ObjectiveRecord(
        form="MmvaeElbo",
        make=lambda model, o, weights: objectives.MmvaeElbo(model, weights, draw_one=True),
        fusions=MIXTURES,
        options=(),
        needs_density=False,
        summary="elbo with one component drawn for each example, the only one that is decoded",
        why="needs a mixture (moe, mopoe, mopoe-published)",
    ),
    "mmjsd": ObjectiveRecord(
        form="MmjsdElbo",
        make=lambda model, o, weights: objectives.MmjsdElbo(model, weights),
        fusions=("moe",),
        options=(),
        needs_density=True,
        summary="mmJSD's mixture of experts and prior, with KLs to their geometric mean; no bound on log p(X)",
        why="needs a mixture of experts (moe)",
        gaussian=True,
    ),
    "dmvae": ObjectiveRecord(
        form="DmvaeElbo",
        make=lambda model, o, weights: objectives.DmvaeElbo(model, weights),
        fusions=PRODUCTS,
        options=(),
        needs_density=True,
        summary="ELBO of all modalities with the posterior of all, and with that of each one",
        why="is defined for products of experts (poe, product, quotient)",
    ),
    "ar": ObjectiveRecord(
        form="ArElbo",
        make=lambda model, o, weights: objectives.ArElbo(model, weights),
        fusions=(*PRODUCTS, "joint", "set", "unstructured"),
        options=(),
        needs_density=True,
        summary="chain rule over the modalities in a random order, no bound",
        why="needs a posterior of every subset of the modalities, and KLs in closed form between these",
    ),
    "elbo-importance": ObjectiveRecord(
        form="ReweightedElbo",
        make=lambda model, o, weights: objectives.ReweightedElbo(model, weights),
        fusions=("moe",),
        options=(),
        needs_density=True,
        summary="what MMVAE's code calls elbo; its weights collapse",
        why="needs a mixture with one expert for each modality (moe)",
    ),
    "dreg": ObjectiveRecord(
        form="DregIwaeElbo",
        make=lambda model, o, weights: objectives.DregIwaeElbo(
            model, _samples(o), bool(o.looser), weights, o.dreg or "exact"
        ),
        fusions=WEIGHTED,
        options=("K", "looser", "dreg"),
        needs_density=True,
        summary="importance-weighted bound with the doubly reparameterised gradient",
        why=SINGLES_UNTRAINED,
    ),
    "iwae": ObjectiveRecord(
        form="IwaeElbo",
        make=_iwae,
        fusions=WEIGHTED,
        options=("K", "looser"),
        needs_density=False,
        summary="importance-weighted bound with its own gradient",
        why=SINGLES_UNTRAINED,
    ),
    "stl": ObjectiveRecord(
        form="StlElbo",
        make=lambda model, o, weights: objectives.StlElbo(model, _samples(o), bool(o.looser), weights),
        fusions=WEIGHTED,
        options=("K", "looser"),
        needs_density=True,
        summary="importance-weighted bound without the score of q, biased for K > 1",
        why=SINGLES_UNTRAINED,
    ),
}


def objectives_of(fusion: str) -> tuple[str, ...]:
    """Names of the objectives that exist for a fusion, the default first."""
    return tuple(name for name, record in OBJECTIVES.items() if fusion in record.fusions)


def with_default(name: str | None, exists: Sequence[str]) -> tuple[str, ...]:
    """The objectives that exist, the one with this name first; None leaves their order."""
    return tuple(exists) if name is None else (name, *(other for other in exists if other != name))


def default_of(model: Model) -> str:
    """The name of a model's objective without --obj."""
    return with_default(model.obj, objectives_of(model.fusion))[0]


def with_option(name: str) -> tuple[str, ...]:
    """Names of the objectives that take an option."""
    return tuple(obj for obj, record in OBJECTIVES.items() if name in record.options)


def check_objective(obj: str, exists: tuple[str, ...], model: str, family: "Family") -> None:
    """Refuse an objective that does not exist for a model.

    Args:
        exists: the objectives that exist for the model.
        model: the option that names the model ("--model mvae").
        family: that of its experts.

    Raises:
        InputError: says why, and which objectives exist.
    """
    record = OBJECTIVES[obj]
    require(obj in exists, f"--obj {obj} {record.why}: {model} has {', '.join(exists)}")
    fits = not record.gaussian or family.is_gaussian
    require(fits, f"--obj {obj} needs Gaussian experts, not {family.name} ones: choose these, or another --obj")
    known = ", ".join(name for name in exists if not OBJECTIVES[name].needs_density)
    lacking = f"a posterior with a density in closed form, --posterior {family.name} has none"
    require(family.has_density or not record.needs_density, f"--obj {obj} needs {lacking}: choose {known}")


def check_options(obj: str, given: Sequence[str]) -> None:
    """Refuse options that the objective does not take.

    Args:
        given: names of the objectives' options that the user set.
    """
    for name in given:
        *takers, last = with_option(name)
        known = f"{', '.join(takers)} or {last}" if takers else last
        require(obj in (*takers, last), f"{option(name)} needs --obj {known} (got --obj {obj})")


def make_objective(
    obj: str,
    model: "MultimodalVAE",
    options: Any,  # noqa: ANN401 (any config with the options of the record)
    weights: Mapping[str, float] | None = None,
) -> "Objective":
    """The objective with a name, for a model, with the options that its record names."""
    return OBJECTIVES[obj].make(model, options, weights)
