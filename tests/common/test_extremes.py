"""Finite parameters give finite densities, bounds and gradients in float32, up to the range that each family states.

Hypothesis draws the parameters of one to three experts, the prior's, and which modalities each example has.
"""

import itertools
from types import SimpleNamespace

from common.data import Batch, Examples
from common.errors import InputError
from common.likelihoods import (
    BernoulliLikelihood,
    BinaryLikelihood,
    CategoricalLikelihood,
    GroupedLikelihood,
    LaplaceLikelihood,
    SphericalGaussianLikelihood,
)
from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective
from common.objectives.importance import GRADIENTS
from common.variational_strategies import SetStrategy, UnstructuredStrategy
from tests.golden.test_objectives import COMPLETE, exists
from tests.helpers.fusions import learns_prior
from tests.helpers.runs import config
from training.loop import Trainer
from training.runs import Run

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

B, D, N_FEATURES = 16, 2, 1
ROWS = torch.arange(B).float()[:, None]  # what encoders see, and decoders score
NAMES = ("a", "b", "c")
LARGEST = torch.finfo(torch.float32).max
OPTIONS = {"K": 3, "looser": False, "dreg": "exact", "approx_m": 0, "alpha": 0.1}

# The largest magnitudes of each family's parameters, as `common.variational_posteriors` states them.
RANGES = {
    "gaussian": (1e9, 40.0),
    "laplace": (1e9, LARGEST),
    "softplus-laplace": (1e9, 1e9),
    "softplus-normal": (1e5, 1e5),
    "student-t": (1e9, 1e9),
    "laplace-normal": (1e9, 1e9),
    "vmf": (1e18,),
    "ebm": (1e9, 80.0),
}
FLOWS = (1e3, 20.0)  # the range of --fusion jnf, hoelder and helvae
BESIDE_STANDARD_NORMAL = RANGES | {"gaussian": (1e9, 80.0)}  # with no density of another learned distribution
# objectives with KLs between posteriors
COMPARING = ("ar", "jmvae", "student", "mvtcae", "crmvae", "mmjsd", "mmvm", "mmvm-mixture")
RATIOS = dict.fromkeys(FAMILIES, (1e3, 10.0)) | {"vmf": (5.0,)}  # of densities, which are all that elbo-importance has
PRIORS = {"gaussian": 40.0, "laplace": 10.0, "laplace-normal": 10.0}
PRIORS |= {"softplus-laplace": 1e9, "softplus-normal": 1e5, "student-t": 1e9}


class Table(nn.Module):
    """An encoder whose outputs are its parameters: x (N, 1), the row -> a tuple of (N, D).

    Args:
        params: each (B, D).
        joined: give them as one tensor, which a set's or an unstructured strategy takes.
    """

    def __init__(self, params, joined):
        super().__init__()
        self.params, self.joined = nn.ParameterList(nn.Parameter(p.clone()) for p in params), joined

    def forward(self, x, *others):
        out = tuple(p[x[:, 0].long()] for p in self.params)
        return (torch.cat(out, dim=1),) if self.joined else out


class Apart(nn.Module):
    """The network of a set's or an unstructured strategy that takes the parameters of its experts' sum apart."""

    def __init__(self, n_params):
        super().__init__()
        self.n_params = n_params

    def forward(self, h):
        if isinstance(h, tuple):
            h = h[0].unflatten(-1, (-1, self.n_params * D)).sum(dim=1)
        return h.chunk(self.n_params, dim=-1)


def model_of(fusion, family, params, learn_prior=True):
    """The model whose experts have these parameters, {name: tuple of (B, D)}."""
    single_network = {"set": SetStrategy, "unstructured": UnstructuredStrategy}.get(fusion)
    if single_network:
        params = {name: tuple(p / len(params) for p in experts) for name, experts in params.items()}
    private = {next(iter(params)): 1} if FUSIONS[fusion].auxiliary else {}
    n_seen = {name: 1 if private and name not in private else D for name in params}
    encoder = {
        name: Table(tuple(p[:, : n_seen[name]] for p in experts), bool(single_network))
        for name, experts in params.items()
    }
    if fusion in ("own", "joint", "jnf"):
        for n in [len(params)] if fusion == "jnf" else range(2, len(params) + 1):
            encoder |= {",".join(names): Table(params[names[0]], False) for names in itertools.combinations(params, n)}
    return VAE(
        single_network(Apart(FAMILIES[family].n_params)) if single_network else fusion,
        encoder,
        {name: nn.Linear(n_seen[name], N_FEATURES) for name in params},
        GroupedLikelihood(**{name: SphericalGaussianLikelihood(0.7) for name in params}),
        latent_dim=D,
        posterior=family,
        learn_prior=learn_prior and learns_prior(fusion, family),
        private=private,
    )


@st.composite
def tensors(draw, shape, limit):
    """A float32 tensor of at most four different values in [-limit, limit], in random order."""
    limit = torch.tensor(limit).item()  # the nearest float32
    values = draw(
        st.lists(st.sampled_from([limit, -limit, 0.0]) | st.floats(-limit, limit, width=32), min_size=1, max_size=4)
    )
    order = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    return torch.tensor(values)[torch.randint(len(values), shape, generator=order)]


@st.composite
def cases(draw, fusion, family, obj):
    """An objective of a model with parameters in its family's range, and a batch."""
    n = 2 if family == "laplace-normal" else draw(st.integers(2 if fusion == "jnf" else 1, 3))
    learn_prior = learns_prior(fusion, family) and draw(st.booleans())
    ranges = RANGES if learn_prior or obj in COMPARING else BESIDE_STANDARD_NORMAL
    limits = (
        FLOWS if fusion in ("jnf", "hoelder", "helvae") else (RATIOS if obj == "elbo-importance" else ranges)[family]
    )
    params = {name: tuple(draw(tensors((B, D), limit)) for limit in limits) for name in NAMES[:n]}
    model = model_of(fusion, family, params, learn_prior)
    if learn_prior and family in PRIORS and obj != "elbo-importance":
        model.prior.scale.data = draw(tensors((D,), PRIORS[family]))
    options = OPTIONS | {"looser": draw(st.booleans()), "approx_m": int(n == 3)}
    options["dreg"] = draw(st.sampled_from(GRADIENTS)) if obj == "dreg" else None
    mask = None if obj in COMPLETE or draw(st.booleans()) else draw(tensors((B, n), 1.0)) >= 0
    return make_objective(obj, model, SimpleNamespace(**options)), Batch(dict.fromkeys(params, ROWS), mask)


def assert_finite(objective, batch):
    """The bound, its terms, every gradient, and samples, moments and log-densities of the posterior."""
    torch.manual_seed(0)
    loss, bound = objective.train().loss(batch, 0.7)
    assert bound.value.isfinite().all() and loss.isfinite(), bound
    assert all(term.isfinite().all() for term in bound.terms.values()), bound
    loss.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), (name, parameter, parameter.grad)
    with torch.no_grad():
        q = objective.model.posterior(batch)
        z = q.sample((3,))
        assert all(x.isfinite().all() for x in (q.mean, q.variance, z, q.log_prob(z)))


@pytest.mark.parametrize("fusion", FUSIONS)
@given(st.data())
def test_parameters_in_range_give_finite_bounds_and_gradients(fusion, data):
    objectives = [obj for obj in OBJECTIVES if obj != "idmvae"]  # it encodes what it decodes, which no table can
    known = [(name, obj) for name, family in FAMILIES.items() for obj in objectives if exists(fusion, family, obj)]
    assert_finite(*data.draw(cases(fusion, *data.draw(st.sampled_from(known)))))


def objective_of(model, obj):
    return make_objective(obj, model, SimpleNamespace(**OPTIONS))


@pytest.mark.parametrize("fusion", ["poe", "quotient", "mopoe"])
def test_experts_of_any_width_in_products(fusion):
    """A product is no wider than the prior."""
    params, obj = dict.fromkeys(NAMES, (torch.ones(B, D), torch.full((B, D), LARGEST))), "dreg"
    assert_finite(objective_of(model_of(fusion, "gaussian", params), obj), Batch(dict.fromkeys(NAMES, ROWS)))


@pytest.mark.parametrize(("family", "prior"), [("gaussian", 0.0), ("ebm", 0.0), ("laplace", 30.0)])
def test_beyond_the_range_training_stops(tmp_path, family, prior):
    """Where the prior's scales are far apart the bound is finite, and its gradient overflows."""
    location, *scale = (torch.full((B, D), 1e9 if prior else LARGEST) for _ in range(FAMILIES[family].n_params))
    fusion = "moe" if FAMILIES[family].has_density else "poe"
    model = model_of(fusion, family, dict.fromkeys("ab", (location, *map(torch.zeros_like, scale))))
    objective, inputs = objective_of(model, "elbo"), {"a": ROWS, "b": ROWS}
    if prior:
        model.prior.scale.data = torch.tensor([-prior, prior])
        assert objective.bound(inputs).value.isfinite().all()
    options = config(tmp_path, epochs=1, batch_size=B)
    with pytest.raises(InputError, match="not finite .*: try a smaller --lr"):
        Trainer(model, objective, Examples(inputs), None, options, Run("any", options)).fit()


IMAGES, N_VALUES = (B, 3, 4, 4), 48
LIKELIHOODS = {  # the module, the largest output of the decoder by what it states, its shape, and values
    "bernoulli": (BernoulliLikelihood(3), 1e38 / N_VALUES, IMAGES, torch.rand(IMAGES)),
    "laplace": (LaplaceLikelihood(0.75, 3), 0.75e38 / N_VALUES, IMAGES, torch.randn(IMAGES)),
    "normal": (SphericalGaussianLikelihood(0.75, 3), 0.75 * (1e38 / N_VALUES) ** 0.5, IMAGES, torch.randn(IMAGES)),
    "class": (CategoricalLikelihood(), 1e38, (B, 10), torch.randint(10, (B,))),
    "string": (CategoricalLikelihood(1), 1e38 / 32, (B, 32, 27), torch.randint(27, (B, 32))),
    "binary": (BinaryLikelihood(), LARGEST, (B,), torch.randint(2, (B,))),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
@given(st.data())
def test_outputs_in_range_give_finite_likelihoods_and_gradients(name, data):
    likelihood, limit, shape, values = LIKELIHOODS[name]
    output = data.draw(tensors(shape, limit)).requires_grad_()
    p = likelihood(output)
    log_p = p.log_prob(values)
    log_p.sum().backward()
    assert log_p.shape == (B,)
    assert all(x.isfinite().all() for x in (log_p, output.grad, likelihood.point(p)))


@pytest.mark.parametrize("name", ["bernoulli", "normal", "string"])
def test_likelihoods_that_overflow_are_no_finite_numbers(name):
    likelihood, _, shape, values = LIKELIHOODS[name]
    output = torch.full(shape, LARGEST)
    output[..., ::2] *= -1
    assert not likelihood(output).log_prob(values).isfinite().any()
