"""The framework of the Variational Homoencoder, against values that are known."""

import itertools
import math

from common.errors import InputError
from vhe import VHE, DataLoader, Factors, NormalPrior, Result
from vhe.framework.estimators import log_conditional

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal

SCALE, ENCODED = 0.7, 0.4  # of p(x|c) and of q(c|D)
X = torch.tensor([0.3, -0.2, 0.9, 1.4, -1.0, -1.7, -0.4, 0.1, 2.0], dtype=torch.float64)
GROUP = [0, 0, 0, 0, 1, 1, 1, 2, 2]


class Q(nn.Module):
    """q(c|D): its mean, whatever the examples' part in it may be."""

    def forward(self, inputs, c=None):
        q = Normal(0.8 * inputs.mean(dim=1), ENCODED)
        c = q.rsample() if c is None else c
        return c, q.log_prob(c)


class P(nn.Module):
    def forward(self, c, x=None):
        p = Normal(c, SCALE)
        x = p.rsample() if x is None else x
        return x, p.log_prob(x)


def groups():
    return [X[[i for i, g in enumerate(GROUP) if g == group]] for group in range(3)]


def expected_part(x, support, n):
    """E_q[log p(x|c)] - KL(q(c|D) || p(c)) / n, in closed form."""
    mu = 0.8 * support.mean()
    log_p = Normal(mu, SCALE).log_prob(x) - ENCODED**2 / (2 * SCALE**2)
    return log_p - torch.distributions.kl_divergence(Normal(mu, ENCODED), Normal(0.0 * mu, 1.0)) / n


def passes(model, n_passes, k, **options):
    """The bound's value for each example in each of many passes: (n_passes, N), in the data's order."""
    data = X.repeat(n_passes)
    labels = [group + 3 * i for i in range(n_passes) for group in GROUP]
    loader = DataLoader(data, {"c": labels}, {"c": k}, len(data), generator=torch.Generator().manual_seed(1), **options)
    batch = loader.examples[torch.arange(len(data))]
    return model.bound(batch.inputs, batch.sizes, x=batch.target).value.view(n_passes, len(X))


def assert_near(mean, draws):
    """The draws' mean is as expected, within 4 standard errors that are small."""
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.02
    assert abs(draws.mean() - mean) < 4 * error


@pytest.mark.parametrize(("k", "exclude_target"), [(1, False), (2, False), (1, True)])
def test_the_expected_bound_of_a_batch_is_that_of_all_data_over_n(k, exclude_target):
    """Algorithm 1: of a random example, with a random support set (without it) and its KL over the group's size."""
    exact = 0.0
    for x in groups():  # the bound of log p(X_i) is the mean over support sets of what follows
        for i in range(len(x)):
            sets = [d for d in itertools.combinations(range(len(x)), k) if not (exclude_target and i in d)]
            exact += sum(expected_part(x[i], x[list(d)], len(x)) for d in sets) / len(sets)
    values = passes(VHE(Q(), P()), 20_000, k, exclude_target=exclude_target)
    assert_near(exact / len(X), values.mean(dim=1))


class ExactQ(nn.Module):
    """p(c|D) of c ~ N(0, 1), x ~ N(c, SCALE)."""

    def forward(self, inputs, c=None):
        precision = 1 + inputs.shape[1] / SCALE**2
        q = Normal(inputs.sum(dim=1) / SCALE**2 / precision, precision**-0.5)
        c = q.rsample() if c is None else c
        return c, q.log_prob(c)


def log_evidence(x):
    """log p of a group, exactly."""
    covariance = torch.ones(len(x), len(x), dtype=x.dtype) + SCALE**2 * torch.eye(len(x), dtype=x.dtype)
    return torch.distributions.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)


def test_with_the_exact_posterior_of_whole_groups_the_bound_is_the_evidence():
    torch.manual_seed(0)
    x = groups()[0]
    n = 40_000
    inputs = x.expand(n, len(x), len(x)).reshape(-1, len(x))
    value = VHE(ExactQ(), P()).bound({"c": inputs}, {"c": torch.tensor(float(len(x)))}, x=x.repeat(n)).value
    assert_near(log_evidence(x), value.view(n, len(x)).sum(dim=1))


def test_the_kl_is_whole_and_its_factor_weighs_it():
    torch.manual_seed(0)
    model, x = VHE(Q(), P()), torch.randn(6, 3)
    given = {"inputs": {"c": x}, "sizes": {"c": torch.full((6,), 5.0)}, "x": x[:, 0]}
    bounds = {}
    for factor in (0.0, 1.0, 3.0):
        torch.manual_seed(1)
        bounds[factor], kl = model.score(**given, return_kl=True, kl_factor={"c": factor})
        torch.manual_seed(1)
        assert model.score(**given, kl_factor=factor) == bounds[factor]
        torch.testing.assert_close(bounds[0.0] - bounds[factor], factor * kl["c"] / 5)
    torch.manual_seed(1)
    terms = model.bound(**given).terms
    torch.testing.assert_close(terms["log p(x)"].mean(), bounds[0.0])
    assert terms["kl c"].mean() == kl["c"] > 0.1


class Discrete(nn.Module):
    """A categorical variable whose logits are a table's, by the values of the variables given."""

    def __init__(self, *shape):
        super().__init__()
        self.logits = nn.Parameter(torch.randn(*shape, dtype=torch.float64))

    def of(self, rows, value, learned_by_samples):
        q = Categorical(logits=self.logits[rows])
        value = q.sample() if value is None else value
        return Result(value, **{f"{'reinforce' if learned_by_samples else 'reparam'}_log_prob": q.log_prob(value)})


class DiscreteQ(Discrete):
    """The encoder of a variable that depends on no other one."""

    def forward(self, inputs, value=None):
        return self.of(inputs[:, 0], value, True)


class DiscreteQw(Discrete):
    def forward(self, inputs, c, w=None):
        return self.of((inputs[:, 0], c), w, True)


class DiscreteP(Discrete):
    """The prior of a variable that depends on no other one."""

    def forward(self, batch_size, value=None):
        return self.of([0] * (batch_size or len(value)), value, False)


class DiscretePw(Discrete):
    def forward(self, c, w=None):
        return self.of(c, w, False)


class DiscretePx(Discrete):
    def forward(self, c, w, v, x=None):
        return self.of((c, w, v), x, False)


def discrete_model(n_c, encoder_of_w):
    """Three discrete variables: the second depends on the first in the prior, the third on neither."""
    encoder = {"w": encoder_of_w, "v": DiscreteQ(4, 2), "c": DiscreteQ(4, n_c)}
    prior = {"c": DiscreteP(1, n_c), "w": DiscretePw(n_c, 2), "v": DiscreteP(1, 2)}
    return VHE(encoder, DiscretePx(n_c, 2, 2, 4), prior)


SIZES = {"c": 5.0, "w": 2.0, "v": 1.0}


@pytest.mark.parametrize("kl_factor", [{"c": 1.0, "w": 1.0, "v": 1.0}, {"c": 0.5, "w": 3.0, "v": 0.0}])
@pytest.mark.parametrize("encoder_of_w", [DiscreteQw(4, 2, 2), DiscreteQ(4, 2)])
def test_reinforce_over_all_draws_of_two_examples(monkeypatch, encoder_of_w, kl_factor):
    """Without noise: each pair of draws by its probability. The baseline is the other example's reward."""
    torch.manual_seed(0)
    model = discrete_model(2, encoder_of_w)
    inputs, x = {"c": torch.tensor([[3], [0]]), "w": torch.tensor([[1], [2]]), "v": torch.tensor([[2], [2]])}, [1, 2]
    draws = list(itertools.product(range(2), repeat=3))
    bounds, log_q = [], []  # of both examples for each draw
    for draw in draws:
        values = dict(zip("cwv", torch.tensor(draw)[:, None].expand(3, 2), strict=True))
        q = {name: model.q(name, inputs[name], values, values[name]).log_prob for name in "cwv"}
        kl = {name: q[name] - model.p(name, values, values[name]).log_prob for name in "cwv"}
        log_q.append(sum(q.values()))
        weighted = sum(kl_factor[name] * kl[name] / SIZES[name] for name in "cwv")
        bounds.append(model.p("x", values, torch.tensor(x)).log_prob - weighted)
    log_q, bounds = torch.stack(log_q), torch.stack(bounds)
    parameters = list(model.parameters())
    exact = torch.autograd.grad((log_q.exp() * bounds).sum(), parameters, retain_graph=True)
    estimate = [torch.zeros_like(p) for p in parameters]
    for i, j in itertools.product(range(len(draws)), repeat=2):
        drawn = dict(zip("cwv", zip(draws[i], draws[j], strict=True), strict=True))
        in_order = iter([torch.tensor(drawn[name]) for name in model.latents])
        monkeypatch.setattr(Categorical, "sample", lambda self, in_order=in_order: next(in_order))
        value = model.bound(inputs, SIZES, kl_factor, x=torch.tensor(x)).value
        probability = (log_q[i, 0] + log_q[j, 1]).exp().detach()
        for total, gradient in zip(estimate, torch.autograd.grad(probability * value.sum(), parameters), strict=True):
            total += gradient
    torch.testing.assert_close(estimate, list(exact))


def test_log_likelihoods_of_discrete_variables_agree_with_enumeration():
    torch.manual_seed(0)
    model = discrete_model(2, DiscreteQw(4, 2, 2))
    p_c, p_w, p_v = (model.prior[name].logits.softmax(dim=-1) for name in "cwv")
    p_x = torch.einsum("c,cw,v,cwvx->x", p_c[0], p_w, p_v[0], model.decoder.logits.softmax(dim=-1))
    found = log_conditional(model, torch.arange(4), None, 20_000)
    torch.testing.assert_close(found, p_x.log(), rtol=0, atol=0.05)


def test_reinforce_leaves_out_what_a_variable_has_no_part_in():
    model = discrete_model(3, DiscreteQw(4, 3, 2))
    log_p, weighted = torch.zeros(2), {"c": torch.ones(2), "w": torch.full((2,), 10.0), "v": torch.full((2,), 100.0)}
    assert [model._reward(name, log_p, weighted)[0].item() for name in "cwv"] == [-11, -10, -100]


class Given(nn.Module):
    """A unit normal around the sum of what is given."""

    def of(self, mean, value):
        p = Normal(mean, 1.0)
        value = p.rsample() if value is None else value
        return value, p.log_prob(value)


class Qz(Given):
    def forward(self, inputs, c, z=None):
        return self.of(inputs.mean(dim=1) + c, z)


class Qc(Given):
    def forward(self, inputs, c=None):
        return self.of(100 + inputs.mean(dim=1), c)


class Pz(Given):
    def forward(self, c, z=None):
        return self.of(c + 1000, z)


class Px(Given):
    def forward(self, c, z, x=None):
        return self.of(c + z, x)


def test_modules_in_any_form_have_their_dependencies_from_their_arguments():
    class Q(Given):
        def forward(self, inputs, value=None):
            return self.of(inputs.mean(dim=1), value)

    x = torch.randn(4, 2)
    forms = [Factors([Qc(), Qz()]), {"c": Q(), "z": Qz()}, Factors(c=Q(), z=Qz()), Factors(Qc(), z=Qz()), [Qz(), Qc()]]
    for encoder in forms:
        model = VHE(encoder=encoder, decoder=Px(), prior=Pz())
        assert model.latents == ("c", "z") and model.observed == "x" and type(model.prior["c"]) is NormalPrior
        with pytest.raises(InputError, match="the size of c is not known before the first score"):
            model.sample(batch_size=2)
        score, kl = model.score({"c": x, "z": x}, {"c": 4, "z": 1}, return_kl=True, x=x[:, 0])
        assert score.isfinite() and list(kl) == ["c", "z"] and kl.c is kl["c"]
        sampled = model.sample(batch_size=3)
        assert set(sampled) == {"c", "z", "x"} and sampled.z is sampled["z"] and sampled.z.mean() > 900
    with pytest.raises(AttributeError, match="no y: there are"):
        _ = sampled.y
    assert NormalPrior("c", (3,))(batch_size=5)[0].shape == (5, 3)


def test_sampling_takes_encoders_where_there_are_inputs_and_priors_elsewhere():
    model, data = VHE([Qc(), Qz()], Px(), [Pz()]), torch.zeros(500, 1)
    model.score({"c": data, "z": data}, {"c": 1, "z": 1}, x=data[:, 0])

    def means(**given):
        return [round(x.mean().item(), 0) for x in (model.sample(**given)[name] for name in "czx")]

    assert means(batch_size=500) == [0, 1000, 1000]
    assert means(inputs={"c": data}) == [100, 1100, 1200]
    assert means(inputs={"z": data}) == [0, 0, 0]
    assert means(inputs={"c": data, "z": data}) == [100, 100, 200]


class PriorOfOne(nn.Module):
    """As the original's README has a prior: nothing says how many values to draw."""

    def __init__(self, *size):
        super().__init__()
        self.size = size

    def forward(self, c=None):
        p = Normal(torch.full(self.size, 7.0), 0.1)
        c = p.sample() if c is None else c
        return Result(c, reinforce_log_prob=p.log_prob(c))


def test_a_prior_of_one_value_is_drawn_from_as_often_as_needed():
    model = VHE(Qc(), P(), PriorOfOne(1))
    assert model.score({"c": torch.zeros(4, 2)}, {"c": 1}, x=torch.zeros(4)).isfinite()
    c = model.sample(batch_size=300).c
    assert c.shape == (300,) and len(c.unique()) > 290 and abs(c.mean() - 7) < 0.05
    result = model.p("c", {}, n=300)
    assert result.reparam_log_prob is None
    torch.testing.assert_close(result.log_prob, Normal(7.0, 0.1).log_prob(result.value))
    for size in ((), (2,)):
        with pytest.raises(InputError, match=r"PriorOfOne depends on nothing: its forward should draw one value of c"):
            VHE(Qc(), P(), PriorOfOne(*size)).sample(batch_size=2)


class WordQ(Q):
    def forward(self, inputs, c=None):
        assert all(type(word) is str for support in inputs for word in support)
        return super().forward(torch.tensor([[float(len(word)) for word in support] for support in inputs]), c)


class WordP(P):
    def forward(self, c, x=None):
        if x is None:
            lengths, log_p = super().forward(c)
            return ["a" * round(length.item()) for length in lengths.clamp(min=0)], log_p
        return x, super().forward(c, torch.tensor([float(len(word)) for word in x]))[1]


def test_examples_of_any_kind_are_scored_and_sampled():
    """Words, of which the modules see the lengths, have the bound of these lengths."""
    words = ["a" * n for n in (2, 3, 1, 4, 1, 7, 3, 9, 8)]
    scores = []
    for data, model in ((words, VHE(WordQ(), WordP())), ([float(len(w)) for w in words], VHE(Q(), P()))):
        torch.manual_seed(0)
        (batch,) = DataLoader(data, {"c": GROUP}, {"c": 2}, batch_size=9)
        scores.append(model.score(batch.inputs, batch.sizes, x=batch.target))
    torch.testing.assert_close(*scores)
    model = VHE(WordQ(), WordP())
    sampled = model.sample(inputs={"c": [["aaaaa", "aaaaaaa"]] * 200})
    assert len(sampled.x) == 200 and sum(map(len, sampled.x)) / 200 == pytest.approx(0.8 * 6, abs=0.3)


def test_a_default_prior_keeps_its_size_in_checkpoints():
    model, copy = VHE(Q(), P()), VHE(Q(), P())
    model.score({"c": torch.zeros(3, 1)}, {"c": 1}, x=torch.zeros(3))
    assert set(model.state_dict()) == {"prior.c._extra_state"}
    copy.load_state_dict(model.state_dict())
    assert copy.sample(batch_size=7)["x"].shape == (7,)


def test_a_variable_of_any_shape_has_one_log_probability_an_example():
    value = torch.randn(4, 3, 2, dtype=torch.float64)
    expected = Normal(0.0, 1.0).log_prob(value).sum(dim=(1, 2))
    torch.testing.assert_close(NormalPrior("c")(value=value)[1], expected)


class WithoutInputs(Given):
    def forward(self, c=None):
        return self.of(0.0, c)


class QcGivenZ(Given):
    def forward(self, inputs, z, c=None):
        return self.of(z, c)


class PcGivenZ(Given):
    def forward(self, z, c=None):
        return self.of(z, c)


class PerDimension(Given):
    def forward(self, inputs, c=None):
        c = inputs.mean(dim=1)
        return c, c


@pytest.mark.parametrize(
    ("encoder", "decoder", "prior", "message"),
    [
        (WithoutInputs(), P(), None, r"WithoutInputs.forward\(c=None\) takes no support sets"),
        ([QcGivenZ(), Qz()], Px(), None, "the encoders depend on each other in a circle: [cz] -> [cz] -> [cz]"),
        ([Qc(), Qz()], Px(), [PcGivenZ(), Pz()], "the priors depend on each other in a circle"),
        ([Qc(), Q()], P(), None, "two modules have the variable c"),
        (Qc(), P(), Pz(), "z has a prior but no encoder"),
        ({"type": Q()}, P(), None, "a variable cannot be called 'type', no name or one of Factors' own: rename"),
    ],
)
def test_models_that_cannot_be(encoder, decoder, prior, message):
    with pytest.raises(InputError, match=message):
        VHE(encoder, decoder, prior)


X4, SIZE = torch.zeros(4, 2), {"c": 1.0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.score({}, SIZE, x=X4[:, 0]), r"inputs must be given for c \(got nothing\)"),
        (
            lambda model: model.score({"c": X4}, SIZE, y=X4[:, 0]),
            r"observed variable must be given for x \(got y\)",
        ),
        (lambda model: model.score({"c": X4}, SIZE, kl_factor={"b": 1}, x=X4[:, 0]), "kl_factor names b: the latent"),
        (lambda model: model.score({"c": X4[:1]}, SIZE, x=X4[:, 0]), "inputs has 1 support sets of c for 4 examples"),
        (lambda model: model.sample({"c": X4}, batch_size=3), "give inputs of one batch size"),
        (lambda model: model.sample({"b": X4}), "inputs names b: the latent variables are c"),
        (
            lambda _: VHE(PerDimension(), P()).score({"c": X4[..., None]}, SIZE, x=X4[:, 0]),
            r"PerDimension returned log-probabilities of shape \(4, 1\) for 4 values of c: they should be \(4,\)",
        ),
    ],
)
def test_what_cannot_be_scored_or_sampled_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(VHE(Q(), P()))
