"""What the records of objectives, fusions and families say exists can be trained; the rest is refused with a reason."""

import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.data import Batch
from common.encoders_decoders import ConcatLayer, SplitLinearLayer
from common.errors import InputError, option
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS, check_fusion
from common.models.objectives import OBJECTIVES, ObjectiveRecord, check_objective, make_objective, objectives_of
from common.objectives import EnergyIwaeElbo, IwaeElbo, MmvaeElbo
from common.progress import print_once
from common.variational_strategies import SetStrategy, UnstructuredStrategy
from tests.helpers import what_exists
from tests.helpers.fusions import learns_prior
from training.model_options import ObjectiveOptions

D, N_FEATURES, HIDDEN = 4, 3, 5
OPTIONS = {"K": 3, "looser": False, "dreg": None, "approx_m": 0, "alpha": 0.1}
COMBINATIONS = list(product(FUSIONS, FAMILIES, OBJECTIVES))


def exists(fusion, family, obj):
    record = OBJECTIVES[obj]
    known = FUSIONS[fusion].exists(FAMILIES[family])
    fits = (FAMILIES[family].has_density or not record.needs_density) and (family == "gaussian" or not record.gaussian)
    return known and fusion in record.fusions and fits


EXISTING = [combination for combination in COMBINATIONS if exists(*combination)]
OTHERS = [combination for combination in COMBINATIONS if not exists(*combination)]


def checked(fusion, family, obj, known=None, **options):
    """Raise InputError as the command line does."""
    check_fusion(fusion, FAMILIES[family])
    exists = known or objectives_of(fusion)
    check_objective(obj or exists[0], exists, f"--fusion {fusion}", FAMILIES[family], ObjectiveOptions(**options))


class Joint(nn.Module):
    """An encoder of all modalities."""

    def __init__(self, heads, n):
        super().__init__()
        self.layer = SplitLinearLayer(n * N_FEATURES, heads)

    def forward(self, *xs):
        return self.layer(torch.cat(xs, dim=1))


class Values(nn.Module):
    """What an unstructured strategy encodes, a tuple of one tensor."""

    def forward(self, x):
        return (x,)


class Encoding(nn.Linear):
    """What a set strategy adds up, a tuple of one tensor."""

    def forward(self, x):
        return (super().forward(x),)


def model_of(fusion, family, names=("a", "b")):
    """A model of linear networks with every encoder that the fusion may use."""
    private = dict.fromkeys(names, 2) if FUSIONS[fusion].auxiliary else {}
    heads = (D,) * FAMILIES[family].n_params
    encoder = {name: SplitLinearLayer(N_FEATURES, heads) for name in names}
    strategy = fusion
    if fusion == "set":
        encoder = {name: Encoding(N_FEATURES, HIDDEN) for name in names}
        strategy = SetStrategy(nn.Sequential(nn.Tanh(), SplitLinearLayer(HIDDEN, heads)))
    if fusion == "unstructured":
        encoder = {name: Values() for name in names}
        n_inputs = len(names) * (N_FEATURES + 1)
        network = nn.Sequential(ConcatLayer(), nn.Linear(n_inputs, HIDDEN), nn.Tanh(), SplitLinearLayer(HIDDEN, heads))
        strategy = UnstructuredStrategy(network)
    if fusion in ("own", "joint", "jnf"):
        encoder[",".join(names)] = Joint(heads, len(names))
    return VAE(
        strategy,
        encoder,
        {name: nn.Linear(D, N_FEATURES) for name in names},
        GroupedLikelihood(**{name: SphericalGaussianLikelihood(0.7) for name in names}),
        latent_dim=D + sum(private.values()) - 2 if private else D,
        posterior=family,
        learn_prior=learns_prior(fusion, family),
        private=private,
    )


def batch_of(names=("a", "b"), missing=False, n=7):
    inputs = {name: torch.randn(n, N_FEATURES) for name in names}
    mask = torch.ones(n, len(names), dtype=torch.bool)
    mask[1, 0] = mask[2, 1] = False
    return Batch(inputs, mask if missing else None)


def trained(objective):
    return [x for x in objective.parameters() if x.requires_grad]


def assert_trains(objective, batch, beta=0.7):
    objective.train()
    objective.zero_grad()
    loss, bound = objective.loss(batch, beta)
    assert bound.value.shape == (7,) and bound.value.isfinite().all() and loss.isfinite()
    assert all(term.shape == (7,) and term.isfinite().all() for term in bound.terms.values())
    additions = Counter()
    hooks = [x.register_post_accumulate_grad_hook(lambda x: additions.update([x])) for x in trained(objective)]
    loss.backward()
    assert set(additions.values()) == {1}, "several processes would add up a part of a gradient"
    for hook in hooks:
        hook.remove()
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), f"{name} has no gradient"


@pytest.mark.slow
@pytest.mark.parametrize(("fusion", "family", "obj"), EXISTING)
def test_what_exists_trains_every_parameter(fusion, family, obj):
    checked(fusion, family, obj)
    objective = make_objective(obj, model_of(fusion, family), SimpleNamespace(**OPTIONS))
    other_forms = {("elbo", True): MmvaeElbo, ("iwae", False): EnergyIwaeElbo}
    case = FUSIONS[fusion].is_mixture if obj == "elbo" else FAMILIES[family].has_density
    assert type(objective) is other_forms.get((obj, case), OBJECTIVES[obj].form)
    if fusion not in ("own", "joint"):  # their other encoders get nothing from complete examples
        assert_trains(objective, batch_of())
    assert_trains(objective, batch_of(missing=fusion not in ("joint", "jnf")))


@pytest.mark.parametrize(("fusion", "family"), list(dict.fromkeys((f, p) for f, p, _ in EXISTING)))
def test_what_exists_knows_its_posterior(fusion, family):
    """What the records say of a family and a fusion is what the model's posterior says."""
    posterior = model_of(fusion, family).variational_posterior
    assert posterior.has_density == (FAMILIES[family].has_density and fusion != "jnf")
    assert posterior.is_mixture == FUSIONS[fusion].is_mixture


@pytest.mark.parametrize(("fusion", "family"), list(dict.fromkeys((f, p) for f, p, _ in OTHERS)))
def test_what_does_not_exist_is_refused_with_its_reason(fusion, family):
    for obj in [o for f, p, o in OTHERS if (f, p) == (fusion, family)]:
        record = OBJECTIVES[obj]
        if not FUSIONS[fusion].exists(FAMILIES[family]):
            reason = f"there is no fusion {fusion} for {family} experts, only for "
        elif fusion not in record.fusions:
            reason = f"--obj {obj} does not exist for --fusion {fusion}: choose {', '.join(objectives_of(fusion))}, or"
        elif record.gaussian:
            reason = f"--obj {obj} needs Gaussian experts, not {family} ones"
        else:
            reason = f"--obj {obj} needs a posterior with a density in closed form, --posterior {family} has none"
        with pytest.raises(InputError) as error:
            checked(fusion, family, obj)
        assert str(error.value).startswith(reason) and "\n" not in str(error.value), obj


@pytest.mark.parametrize("fusion", [fusion for fusion in FUSIONS if FUSIONS[fusion].strategy])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fusion_that_does_not_exist_is_not_built(fusion, family):
    if FUSIONS[fusion].exists(FAMILIES[family]):
        assert model_of(fusion, family).modalities == ("a", "b")
    else:
        reason = f"there is no fusion {fusion} for {family} experts, only for "
        with pytest.raises(InputError, match=re.escape(reason)):
            model_of(fusion, family)


@pytest.mark.parametrize("fusion", ["set", "unstructured"])
def test_a_fusion_with_a_network_must_be_given_it(fusion):
    with pytest.raises(InputError, match=f"the fusion {fusion} has its own network: give VAE the strategy"):
        VAE(fusion, {}, {}, GroupedLikelihood(), latent_dim=D)


@pytest.mark.parametrize(("fusion", "family"), list(dict.fromkeys((f, p) for f, p, _ in EXISTING)))
def test_the_default_objective_exists(fusion, family):
    checked(fusion, family, None)
    assert exists(fusion, family, objectives_of(fusion)[0])


@pytest.mark.parametrize("fusion", ["poe", "quotient", "set", "unstructured"])
def test_random_subsets_of_three_modalities(fusion):
    names = ("a", "b", "c")
    objective = make_objective(
        "mvae", model_of(fusion, "gaussian", names), SimpleNamespace(**OPTIONS | {"approx_m": 2})
    )
    for missing in (False, True):
        assert_trains(objective, batch_of(names, missing))
        assert any(name.startswith("subset") for name in objective.bound(batch_of(names, missing)).terms)


# "own" and "joint" would need seven encoders
@pytest.mark.parametrize(
    ("fusion", "obj"), [(f, obj) for f, p, obj in EXISTING if p == "gaussian" and f not in ("own", "joint")]
)
def test_three_modalities(fusion, obj):
    names = ("a", "b", "c")
    assert_trains(make_objective(obj, model_of(fusion, "gaussian", names), SimpleNamespace(**OPTIONS)), batch_of(names))


VALUES = {
    "K": 5,
    "looser": True,
    "dreg": "stop-all",
    "approx_m": 2,
    "alpha": 0.5,
}  # that ask for something


@pytest.mark.parametrize(("name", "obj"), list(product(VALUES, OBJECTIVES)))
def test_an_option_is_taken_or_refused(name, obj, capsys):
    """K is ignored with a warning by what MMVAE's code calls elbo, and by ours."""
    fusion = next(f for f in ("moe", "poe", "joint", "product", "jnf") if f in OBJECTIVES[obj].fusions)
    if name in OBJECTIVES[obj].options:
        checked(fusion, "gaussian", obj, **{name: VALUES[name]})
        model = model_of(fusion, "gaussian", ("a", "b", "c") if name == "approx_m" else ("a", "b"))
        given = SimpleNamespace(**OPTIONS | {name: VALUES[name]})
        assert_trains(make_objective(obj, model, given), batch_of(model.modalities))
    elif name == "K" and obj.startswith("elbo") and obj != "elbo-one":
        print_once.cache_clear()
        checked(fusion, "gaussian", obj, K=20)
        needs = f"warning: --K needs --obj dreg, iwae or stl (got --obj {obj}): it is ignored, as in MMVAE's code\n"
        assert capsys.readouterr().err == needs
    else:
        with pytest.raises(InputError, match=f"^{option(name)} needs --obj [a-z, -]+ .got --obj {obj}"):
            checked(fusion, "gaussian", obj, **{name: VALUES[name]})


def test_options_reach_the_objective():
    model = model_of("moe", "gaussian")
    given = SimpleNamespace(**OPTIONS | {"K": 7, "looser": True, "dreg": "stop-all"})
    dreg = make_objective("dreg", model, given, weights={"a": 5.0})
    assert (dreg.K, dreg.looser, dreg.gradient, dreg.weights) == (7, True, "stop-all", {"a": 5.0, "b": 1.0})
    assert make_objective("dreg", model, SimpleNamespace(**OPTIONS | {"K": None})).K == 30
    joint = model_of("joint", "gaussian")
    for obj, students in (("jmvae", False), ("student", True)):
        objective = make_objective(obj, joint, SimpleNamespace(**OPTIONS | {"alpha": 0.9}))
        assert (objective.alpha, objective.students) == (0.9, students)


def test_records_say_what():
    for name, record in OBJECTIVES.items():
        assert record.summary and record.fusions, name
        assert set(record.fusions) <= set(FUSIONS), name
        assert not record.summary.endswith(".")
    assert all(objectives_of(fusion) for fusion in FUSIONS)


def test_every_option_is_taken_by_an_objective():
    of_objectives = {field.name for field in fields(ObjectiveOptions)} - {"obj"}
    taken = {name for record in OBJECTIVES.values() for name in record.options}
    assert taken == of_objectives == set(VALUES)


# A new objective


MINE = ObjectiveRecord(IwaeElbo, ("poe", "set"), "my-own-bound", options={"K": 2})


def test_a_record_alone_makes_an_objective(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "mine", MINE)
    assert objectives_of("poe")[-1] == "mine" and "mine" not in objectives_of("moe")
    table = what_exists.objectives_table()
    assert "| `mine` | yes |" in table and "| my-own-bound |" in table
    checked("poe", "gaussian", "mine", K=4)
    with pytest.raises(InputError, match="--obj mine does not exist for --fusion moe: choose elbo"):
        checked("moe", "gaussian", "mine")
    with pytest.raises(InputError, match="--obj mine needs a posterior with a density"):
        checked("poe", "ebm", "mine")
    with pytest.raises(InputError, match="--approx-m needs --obj mvae .got --obj mine"):
        checked("poe", "gaussian", "mine", approx_m=1)
    with pytest.raises(InputError, match="--K needs --obj dreg, iwae, stl or mine .got --obj mvae"):
        checked("poe", "gaussian", "mvae", K=3)
    objective = make_objective("mine", model_of("poe", "gaussian"), ObjectiveOptions(K=4), {"b": 2.0})
    assert (objective.K, objective.weights) == (4, {"a": 1.0, "b": 2.0})
    assert_trains(objective, batch_of())


HELP = """
from common.models.objectives import OBJECTIVES, ObjectiveRecord
from common.objectives import IwaeElbo
OBJECTIVES["mine"] = ObjectiveRecord(IwaeElbo, ("poe",), "my-own-bound", options={"K": 2})
from training.command_line import parse
from mnist import halves
print(parse(halves.Command, "", ["train", "--obj", "mine"]).obj)
parse(halves.Command, "", ["train", "--help"])
"""


@pytest.mark.slow
def test_a_record_alone_reaches_the_command_line():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine\n") and "my-own-bound" in done.stdout


# The table


def test_energy_based_posteriors_have_the_objectives_that_take_no_density():
    allowed = []
    for obj in OBJECTIVES:
        try:
            checked("poe", "ebm", obj, tuple(OBJECTIVES))
            allowed.append(obj)
        except InputError as error:
            known = "--posterior ebm has none: choose telbo, mvae, elbo, elbo-one, iwae"
            assert known in str(error) or "needs Gaussian experts, not ebm ones" in str(error)  # noqa: PT017
    assert allowed == ["telbo", "mvae", "elbo", "elbo-one", "iwae"]


DEFAULTS = {  # of the first model with each fusion
    "poe": "mvae",
    "product": "mvtcae",
    "quotient": "mvae",
    "moe": "elbo",
    "mmvae+": "iwae",
    "mopoe": "elbo",
    "mopoe-published": "elbo-one",
    "own": "elbo",
    "joint": "jmvae",
    "jnf": "jnf",
    "set": "mvae",
    "unstructured": "mvae",
}


def test_the_table_says_what_exists():
    head, line, *rows = what_exists.objectives_table().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *rows)]
    assert cells[0][1:-2] == [f"`{fusion}`" for fusion in FUSIONS] and set(line) == set("|-")
    assert [row[0] for row in cells[1:]] == [f"`{name}`" for name in OBJECTIVES]
    for (name, record), row in zip(OBJECTIVES.items(), cells[1:], strict=True):
        for fusion, cell in zip(FUSIONS, row[1:-2], strict=True):
            assert cell == ("default" if DEFAULTS[fusion] == name else "yes" if fusion in record.fusions else "")
        assert row[-1] == record.summary
        assert (row[-2] == "yes") == exists("poe", "ebm", name)
