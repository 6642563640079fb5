"""Each objective's expectation in closed form, whatever an example has and however far off the experts are."""

from types import SimpleNamespace

from common.data import Batch
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective
from common.objectives import MvaeElbo
from common.variational_posteriors import JointFlowsPosterior
from tests.common.distributions.test_flows import bent
from tests.golden.test_objectives import ALL_SHARED, WITH_PRIVATE
from tests.helpers.expected import Known, exact_noise, n_rows
from tests.helpers.fusions import mask_of, subsets_of, with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p
from tests.helpers.objectives import gradients_agree
from tests.helpers.private_latents import private_linear_gaussian

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

COMPLETE = ("jmvae", "student", "telbo", "jnf")  # objectives that take no incomplete examples
WITHOUT = (
    "elbo-importance",
    "mmvm-mixture",
    "set",
    "unstructured",
    "mmvae+",
)  # no closed form, and networks of any kind
CELLS = [
    (obj, fusion)
    for obj, record in OBJECTIVES.items()
    for fusion in record.fusions
    if obj not in WITHOUT
    and fusion not in WITHOUT
    and not (obj in ("iwae", "dreg", "stl") and FUSIONS[fusion].is_mixture)
]


def known_model(draws, obj, fusion):
    """A model, its W_m and s_m; its experts are too narrow or too wide."""
    if fusion in WITH_PRIVATE and obj not in ALL_SHARED and draws(st.booleans()):
        model, weights, scales = private_linear_gaussian(fusion)
    else:
        n = 2 if (obj, fusion) == ("ar", "joint") else draws(st.integers(2, 3))
        model, weights, scales = with_fusion(fusion, n, backwards=draws(st.booleans()))
    if fusion == "jnf":
        model.variational_posterior = JointFlowsPosterior([bent(2, by=0)] * n)
    factor = draws(st.floats(0.5, 2))
    with torch.no_grad():
        if fusion == "code":
            model.variational_strategy.logits += torch.randn_like(model.variational_strategy.logits)
        for name, p in model.encoder.named_parameters():
            if name.endswith("log_precision"):
                p += torch.tensor(factor).log()
            elif name.endswith("precision"):
                p *= factor
    return model, weights, scales


@pytest.mark.parametrize(("obj", "fusion"), CELLS)
@given(st.data())
def test_the_mean_of_a_bound_is_its_closed_form(obj, fusion, data):
    """Two examples with their own modalities alternate in a batch; iwae, dreg and stl are the ELBO with one sample."""
    torch.manual_seed(0)  # of each example, so that Hypothesis can repeat it
    model, weights, scales = known_model(data.draw, obj, fusion)
    names, everything, d = model.modalities, tuple(weights), model.latent_dim
    one_of = st.just(everything) if obj in COMPLETE else st.sampled_from([(), *subsets_of(everything)])
    patterns = data.draw(st.lists(one_of, min_size=2, max_size=2))
    lambdas = {name: data.draw(st.floats(0, 3)) for name in names}
    beta, alpha = data.draw(st.floats(0, 2)), data.draw(st.floats(0, 1))
    options = {"K": 1, "looser": True, "dreg": None, "approx_m": 0, "alpha": alpha}
    objective = make_objective(obj, model, SimpleNamespace(**options), lambdas)
    two = draw(weights, scales, 2)
    batch = {name: x.repeat(n_rows(d), 1) for name, x in two.items()}
    mask = mask_of(patterns, names).repeat(n_rows(d), 1)
    if data.draw(st.booleans()):
        batch = {name: x.masked_fill(~mask[:, [names.index(name)]], torch.nan) for name, x in batch.items()}
    else:
        batch = Batch(batch, None if mask.all() and data.draw(st.booleans()) else mask)
    with exact_noise(d, 2), torch.no_grad():
        found = objective.bound(batch, beta).value.view(-1, 2).mean(dim=0)
    for i, pattern in enumerate(patterns):
        known = Known(model, fusion, weights, scales, {name: x[i : i + 1] for name, x in two.items()})
        torch.testing.assert_close(found[i], known.expected(obj, pattern, lambdas, beta, alpha), rtol=1e-9, atol=1e-9)


@given(st.data())
def test_random_subsets_count_once_in_an_example_that_lacks_a_modality(data):
    """Cut to what it has they may be equal; a complete example has a term for each draw."""
    torch.manual_seed(0)
    model, weights, scales = with_fusion("poe", 4)
    names, everything = model.modalities, subsets_of(model.modalities)
    drawn = data.draw(st.lists(st.sampled_from([s for s in everything if 1 < len(s) < 4]), min_size=2, max_size=3))
    patterns = [data.draw(st.sampled_from(everything)), names]
    lambdas, two = dict.fromkeys(names, 0.7), draw(weights, scales, 2)
    with exact_noise(D, 2), torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.objectives.elbo.random_subsets", lambda *args: mask_of(drawn, names))
        mask = mask_of(patterns, names).repeat(n_rows(D), 1)
        batch = Batch({name: x.repeat(n_rows(D), 1) for name, x in two.items()}, mask)
        found = MvaeElbo(model, len(drawn), lambdas).bound(batch, 0.3).value.view(-1, 2).mean(dim=0)
    for i, pattern in enumerate(patterns):
        known = Known(model, "poe", weights, scales, {name: x[i : i + 1] for name, x in two.items()})
        terms = [tuple(name for name in s if name in pattern) for s in [*((name,) for name in names), names, *drawn]]
        terms = terms if pattern == names else {term for term in terms if term}
        torch.testing.assert_close(found[i], sum(known.elbo(term, lambdas, 0.3) for term in terms))


EXACT = ("poe", "quotient", "own", "jnf")  # with these experts q(z|x_S) is p(z|x_S)


@pytest.mark.parametrize(
    ("fusion", "private"),
    [
        *((fusion, False) for fusion in (*EXACT, "product", "moe", "mopoe", "mopoe-published")),
        *((fusion, True) for fusion in WITH_PRIVATE if fusion != "quotient"),  # whose experts have to be posteriors
    ],
)
def test_the_closed_forms_are_log_p_where_the_posteriors_are_exact(fusion, private):
    """And below it where they are not."""
    model, weights, scales = private_linear_gaussian(fusion) if private else with_fusion(fusion, 3)
    one, names = draw(weights, scales, 1), tuple(weights)
    known, ones = Known(model, fusion, weights, scales, one), dict.fromkeys(names, 1.0)
    log_p = {pattern: exact_log_p(weights, scales, one, pattern)[0] for pattern in subsets_of(names)}
    for pattern in subsets_of(names) if fusion != "jnf" else [("a",), names]:
        elbo = known.expected("elbo", pattern, ones, 1.0, None)
        if fusion in EXACT or (fusion == "mopoe" and len(pattern) == 1):
            torch.testing.assert_close(elbo, log_p[pattern])
        else:
            assert elbo < log_p[pattern]
        if fusion in ("poe", "own"):
            torch.testing.assert_close(known.expected("ar", pattern, ones, 1.0, None), log_p[pattern])
            several = [log_p[(name,)] for name in pattern] + [log_p[pattern]] * (len(pattern) > 1)
            torch.testing.assert_close(known.expected("mvae", pattern, ones, 1.0, None), sum(several))
        if fusion in WITH_PRIVATE:
            terms = 1 + len(pattern) * (len(pattern) > 1)
            assert known.expected("dmvae", pattern, ones, 1.0, None) < terms * log_p[pattern] + 1e-9


@pytest.mark.parametrize(
    ("obj", "fusion"),
    [
        *(cell for cell in CELLS if cell[0] not in ("student", "dreg", "stl", "jnf")),
        *(("iwae", "moe"), ("iwae", "mopoe"), pytest.param("jnf", "jnf", marks=pytest.mark.slow)),
    ],
)
def test_gradients_against_finite_differences(obj, fusion):
    """Of objectives whose gradient is that of their value; TELBO's by its encoders, JNF's by what its flows train."""
    model, weights, scales = with_fusion(fusion)
    if (obj, fusion) in (("dmvae", "poe"), ("crmvae", "product"), ("elbo", "moe")):
        model, weights, scales = private_linear_gaussian(fusion, names=("a", "b"))
    if fusion == "jnf":
        model.variational_posterior = JointFlowsPosterior([bent(D, seed, 0.5) for seed in range(2)])
    with torch.no_grad():  # posteriors that are off, where gradients are large
        for name, p in model.encoder.named_parameters():
            p += 0.3 * torch.rand_like(p) if name.endswith("precision") else 0
    inputs = draw(weights, scales, 3)
    if obj not in COMPLETE:
        inputs["b"][0] = torch.nan
    options = {"K": 2, "looser": False, "dreg": None, "approx_m": 0, "alpha": 0.7}
    names = {"telbo": "encoder", "jnf": ("variational_posterior", "encoder.a.", "encoder.b.")}.get(obj, "")
    assert gradients_agree(make_objective(obj, model, SimpleNamespace(**options), {"a": 2.0}), inputs, names)
