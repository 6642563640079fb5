"""Each objective's expectation in closed form, whatever an example has and however far off the experts are."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.data import Batch
from common.models.objectives import OBJECTIVES, make_objective
from common.variational_posteriors import JointFlowsPosterior
from tests.common.distributions.test_flows import bent
from tests.helpers.expected import Known, exact_noise, n_rows
from tests.helpers.fusions import mask_of, subsets_of, with_fusion
from tests.helpers.linear_gaussian import draw
from tests.helpers.private_latents import private_linear_gaussian

COMPLETE = ("jmvae", "student", "telbo", "jnf")  # objectives that take no incomplete examples
WITHOUT = ("elbo-importance", "set", "unstructured", "mmvae+")  # no closed form, and networks of any kind
WITH_PRIVATE = ("poe", "product", "quotient", "moe", "mopoe", "mopoe-published")
CELLS = [
    (obj, fusion)
    for obj, record in OBJECTIVES.items()
    for fusion in record.fusions
    if obj not in WITHOUT
    and fusion not in WITHOUT
    and not (obj in ("iwae", "dreg", "stl") and fusion in ("moe", "mopoe", "mopoe-published"))
]


def known_model(draws, obj, fusion):
    """A model, its W_m and s_m; its experts are too narrow or too wide."""
    if fusion in WITH_PRIVATE and obj != "mmjsd" and draws(st.booleans()):
        model, weights, scales = private_linear_gaussian(fusion)
    else:
        n = 2 if (obj, fusion) == ("ar", "joint") else draws(st.integers(2, 3))
        model, weights, scales = with_fusion(fusion, n, backwards=draws(st.booleans()))
    if fusion == "jnf":
        model.variational_posterior = JointFlowsPosterior([bent(2, by=0)] * n)
    factor = draws(st.floats(0.5, 2))
    with torch.no_grad():
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
