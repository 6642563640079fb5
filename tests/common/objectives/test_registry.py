"""What the records of objectives, fusions and families say: what exists, what is refused and why, and the options."""

from itertools import product
from types import SimpleNamespace

from common.errors import InputError, option
from common.models.choices import MODELS
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS, check_fusion
from common.models.objectives import (
    OBJECTIVES,
    ObjectiveRecord,
    check_objective,
    make_objective,
    objectives_of,
    with_default,
)
from common.objectives import EnergyIwaeElbo, IwaeElbo, MmvaeElbo
from common.progress import print_once
from tests.golden.test_objectives import exists, model_of
from training.model_options import ObjectiveOptions

import pytest

OPTIONS = {"K": 3, "looser": False, "dreg": None, "approx_m": 0, "alpha": 0.1}
VALUES = {"K": 5, "looser": True, "dreg": "stop-all", "approx_m": 2, "alpha": 0.5}  # that ask for something


def checked(fusion, family, obj, **options):
    """Raise InputError as the command line does."""
    check_fusion(fusion, FAMILIES[family])
    check_objective(obj, objectives_of(fusion), f"--fusion {fusion}", FAMILIES[family], ObjectiveOptions(**options))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_exists_is_made_and_the_rest_is_refused_with_its_reason(fusion):
    for family, obj in product(FAMILIES, OBJECTIVES):
        record = OBJECTIVES[obj]
        if not FUSIONS[fusion].exists(FAMILIES[family]):
            reason = f"there is no fusion {fusion} for {family} experts, only for "
        elif fusion not in record.fusions:
            reason = f"--obj {obj} does not exist for --fusion {fusion}: choose {', '.join(objectives_of(fusion))}, or"
        elif record.gaussian and family != "gaussian":
            reason = f"--obj {obj} needs Gaussian experts, not {family} ones"
        elif record.needs_density and family == "ebm":
            reason = f"--obj {obj} needs a posterior with a density in closed form, --posterior ebm has none: choose "
        else:
            reason = None
        assert exists(fusion, FAMILIES[family], obj) == (reason is None)
        if reason:
            with pytest.raises(InputError) as error:
                checked(fusion, family, obj)
            assert str(error.value).startswith(reason) and "\n" not in str(error.value), obj
            continue
        checked(fusion, family, obj)
        model = model_of(fusion, family)
        other_forms = {("elbo", True): MmvaeElbo, ("iwae", False): EnergyIwaeElbo}
        case = FUSIONS[fusion].is_mixture if obj == "elbo" else FAMILIES[family].has_density
        form = type(make_objective(obj, model, SimpleNamespace(**OPTIONS)))
        assert form is other_forms.get((obj, case), record.form)
        posterior = model.variational_posterior
        assert posterior.has_density == (FAMILIES[family].has_density and fusion != "jnf")
        assert posterior.is_mixture == FUSIONS[fusion].is_mixture


def test_default_objectives_exist_for_every_family_of_their_fusion():
    """README.md's table says which they are (tests/repository/test_readmes.py)."""
    defaults = {fusion: objectives_of(fusion)[0] for fusion in FUSIONS}
    defaults |= {model.fusion: with_default(model)[0] for model in reversed(MODELS.values())}  # of the first model
    for fusion, obj in defaults.items():
        assert all(exists(fusion, family, obj) for family in FAMILIES.values() if FUSIONS[fusion].exists(family))


@pytest.mark.parametrize("name", VALUES)
def test_an_option_is_taken_or_refused(name, capsys):
    """K is ignored with a warning by what MMVAE's code calls elbo, and by ours."""
    for obj in OBJECTIVES:
        fusion = next(f for f in ("moe", "poe", *FUSIONS) if f in OBJECTIVES[obj].fusions)
        print_once.cache_clear()
        if name in OBJECTIVES[obj].options:
            checked(fusion, "gaussian", obj, **{name: VALUES[name]})
        elif name == "K" and obj in ("elbo", "elbo-importance"):
            checked(fusion, "gaussian", obj, K=20)
            needs = f"warning: --K needs --obj dreg, iwae, idmvae or stl (got --obj {obj}): it is ignored, as in "
            assert capsys.readouterr().err == f"{needs}MMVAE's code\n"
        else:
            with pytest.raises(InputError, match=f"^{option(name)} needs --obj [a-z, -]+ .got --obj {obj}"):
                checked(fusion, "gaussian", obj, **{name: VALUES[name]})


def test_options_reach_the_objective():
    given = SimpleNamespace(**OPTIONS | {"K": 7, "looser": True, "dreg": "stop-all", "alpha": 0.9, "approx_m": 2})
    dreg = make_objective("dreg", model_of("moe", "gaussian"), given, weights={"a": 5.0})
    assert (dreg.K, dreg.looser, dreg.gradient) == (7, True, "stop-all")
    assert dreg.weights == {"a": 5.0, "b": 1.0, "c": 1.0}
    assert make_objective("dreg", model_of("moe", "gaussian"), SimpleNamespace(**OPTIONS | {"K": None})).K == 30
    assert make_objective("mvae", model_of("poe", "gaussian"), given).K == 2
    for obj, students in (("jmvae", False), ("student", True)):
        objective = make_objective(obj, model_of("joint", "gaussian"), given)
        assert (objective.alpha, objective.students) == (0.9, students)


def test_a_record_alone_makes_an_objective(monkeypatch):
    record = ObjectiveRecord(IwaeElbo, ("poe", "set"), "my-own-bound", options={"K": 2})
    monkeypatch.setitem(OBJECTIVES, "mine", record)
    assert objectives_of("poe")[-1] == "mine" and "mine" not in objectives_of("moe")
    checked("poe", "gaussian", "mine", K=4)
    with pytest.raises(InputError, match="--K needs --obj dreg, iwae, idmvae, stl or mine .got --obj mvae"):
        checked("poe", "gaussian", "mvae", K=3)
    objective = make_objective("mine", model_of("poe", "gaussian"), ObjectiveOptions(K=4), {"b": 2.0})
    assert (objective.K, objective.weights["b"]) == (4, 2.0)
