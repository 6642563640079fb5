"""Modalities that lack some of their values: what is scored, what encoders see, and exact posteriors."""

import itertools
from types import SimpleNamespace

from common.data import Batch, Examples
from common.data.splits import unpair
from common.encoders_decoders import (
    SharedNetwork,
    SplitLinearLayer,
    SqueezeLayer,
    StackedDecoder,
    StackedLinear,
    WithMissing,
)
from common.errors import InputError
from common.estimators import importance_estimates, log_marginal
from common.likelihoods import (
    BernoulliLikelihood,
    BinaryLikelihood,
    CategoricalLikelihood,
    FunctionLikelihood,
    GroupedLikelihood,
    LaplaceLikelihood,
    SphericalGaussianLikelihood,
    log_prob,
)
from common.model_data import check_present, modelled
from common.models import VAE
from common.objectives import IwaeElbo, MvaeElbo, StandardElbo
from mnist.model import build

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, Categorical, Independent, Laplace, LogNormal, MultivariateNormal, Normal

W = {"a": torch.tensor([1.0, -0.5, 2.0]).double(), "b": torch.tensor([0.3, -1.5]).double()}
SHIFT, SCALE = 0.2, 0.7
PATTERNS = torch.tensor(list(itertools.product([True, False], repeat=5)))  # (32, 5), which cells are there


class Exact(nn.Module):
    """Values beside which of them are there, (N, 2 d) -> the Gaussian in z that their likelihood is."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        values, observed = x.chunk(2, dim=1)
        precision = (observed * self.w.square()).sum(dim=1, keepdim=True) / SCALE**2
        return (observed * self.w * (values - SHIFT)).sum(dim=1, keepdim=True) / SCALE**2 / precision, -precision.log()


class Linear(nn.Module):
    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w.clone())

    def forward(self, z):
        return z * self.w + SHIFT


def exact_model():
    encoder, decoder = ({name: make(w) for name, w in W.items()} for make in (lambda w: WithMissing(Exact(w)), Linear))
    return VAE("poe", encoder, decoder, GroupedLikelihood(**{m: SphericalGaussianLikelihood(SCALE) for m in W}), 1)


def incomplete():
    """An example of each pattern of missing cells, and the same cells in one tensor, (32, 5)."""
    x = torch.randn(32, 5, dtype=torch.float64)
    with_nan = x.masked_fill(~PATTERNS, torch.nan)
    return {"a": with_nan[:, :3], "b": with_nan[:, 3:]}, x


def test_every_pattern_of_missing_cells_has_its_posterior_and_its_log_likelihood():
    model, (inputs, x), w = exact_model().double(), incomplete(), torch.cat(list(W.values()))
    precision = 1 + (PATTERNS * w.square()).sum(dim=1) / SCALE**2
    mean = (PATTERNS * w * (x - SHIFT)).sum(dim=1) / SCALE**2 / precision
    q = model.posterior(inputs)
    torch.testing.assert_close(q.mean.squeeze(1), mean)
    torch.testing.assert_close(q.variance.squeeze(1), 1 / precision)

    covariance = w[:, None] * w + SCALE**2 * torch.eye(5)
    expected = [
        MultivariateNormal(torch.full((len(i),), SHIFT).double(), covariance[i][:, i]).log_prob(row[i]) if len(i) else 0
        for row, i in zip(x, (p.nonzero().squeeze(1) for p in PATTERNS), strict=True)
    ]
    expected = torch.tensor(expected)
    has_both = PATTERNS[:, :3].any(dim=1) & PATTERNS[:, 3:].any(dim=1)
    both = {name: values[has_both] for name, values in inputs.items()}
    torch.testing.assert_close(log_marginal(model, both, ("a", "b"), n_samples=3), expected[has_both])
    for batch in (inputs, Batch(inputs), Examples(inputs)[:], modelled(None, Examples(inputs), model)[:]):
        torch.testing.assert_close(IwaeElbo(model, K=3).bound(batch).value, expected)
    given_a = importance_estimates(model, Batch(both), [("a", "b")], ("a",), 20_000)[0].value
    torch.testing.assert_close(given_a.mean(), expected[has_both].mean(), rtol=0, atol=0.05)

    filled = model.reconstruct(both)
    torch.testing.assert_close(filled["a"], mean[has_both, None] * W["a"] + SHIFT)


def test_a_cell_that_every_example_lacks_has_no_gradient():
    model, (inputs, _) = exact_model().double(), incomplete()
    inputs["a"][:, 1] = torch.nan
    for objective in (StandardElbo(model), MvaeElbo(model), IwaeElbo(model, K=2)):
        model.zero_grad()
        objective.backward(inputs, 1.0, 32)
        gradient = model.decoder["a"].w.grad
        assert gradient[1] == 0 and (gradient[[0, 2]] != 0).all()


@pytest.mark.parametrize(
    ("likelihood", "log_p"),
    [
        (BernoulliLikelihood(2), lambda o, x: Bernoulli(logits=o, validate_args=False).log_prob(x)),
        (LaplaceLikelihood(0.3, 2), lambda o, x: Laplace(o, 0.3).log_prob(x)),
        (SphericalGaussianLikelihood(0.3, 2), lambda o, x: Normal(o, 0.3).log_prob(x)),
        (CategoricalLikelihood(2), lambda o, x: Categorical(logits=o).log_prob(x)),
        (FunctionLikelihood(lambda o, x: -(o - x).abs(), 2), lambda o, x: -(o - x).abs()),
    ],
)
def test_independent_values_count_where_they_are_there(likelihood, log_p):
    classes = isinstance(likelihood, CategoricalLikelihood)
    x = torch.randint(5, (4, 3, 2)) if classes else torch.rand(4, 3, 2)
    output, observed = torch.randn(4, 3, 2, *([5] * classes)), torch.rand(4, 3, 2) < 0.5
    expected = (log_p(output, x) * observed).sum(dim=(1, 2))
    torch.testing.assert_close(log_prob("a", likelihood(output), x, 1, observed), expected)


@pytest.mark.parametrize(
    "p",
    [
        MultivariateNormal(torch.zeros(4, 3), torch.eye(3)),
        Independent(MultivariateNormal(torch.zeros(4, 2, 3), torch.eye(3)), 1),
    ],
)
def test_values_that_depend_on_each_other_are_refused(p):
    x = torch.zeros(p.batch_shape + p.event_shape)
    with pytest.raises(
        InputError, match=r"a lacks some of its values, and \w+ has no density of the others alone: mask"
    ):
        log_prob("a", p, x, 1, torch.ones_like(x).bool())


class Seen(nn.Module):
    """Remembers what it is given."""

    def forward(self, *inputs):
        self.inputs = inputs
        return inputs[0].flatten(1)[:, :2], inputs[0].flatten(1)[:, 2:4]


def test_what_encoders_see():
    plain, asks, several = Seen(), Seen(), Seen()
    encoder = {"a": plain, "b": WithMissing(asks), "a,b": WithMissing(several)}
    decoder = {name: nn.Linear(2, 4) for name in "ab"}
    model = VAE("joint", encoder, decoder, GroupedLikelihood(**{m: SphericalGaussianLikelihood(1.0) for m in "ab"}), 2)
    a, b = torch.arange(1.0, 13).view(3, 4), torch.arange(1.0, 13).view(3, 4)
    a[0, 1] = b[1, 0] = torch.nan
    a[2] = torch.nan
    model.posterior({"a": a, "b": b})
    assert plain.inputs[0].tolist() == [[1, 0, 3, 4], [5, 6, 7, 8]]
    assert asks.inputs[0].tolist() == [[*b[0], 1, 1, 1, 1], [0, *b[1, 1:], 0, 1, 1, 1], [*b[2], 1, 1, 1, 1]]
    assert [x.shape for x in several.inputs] == [(2, 8), (2, 8)]
    assert several.inputs[0].tolist() == [[1, 0, 3, 4, 1, 0, 1, 1], [5, 6, 7, 8, 1, 1, 1, 1]]

    image = torch.rand(2, 3, 5, 5)
    assert WithMissing(nn.Conv2d(6, 4, 3))(image, image > 0.5).shape == (2, 4, 3, 3)
    of_set = WithMissing(SharedNetwork(4, nn.Linear(6, 8), SplitLinearLayer(8, (2, 2))))
    assert of_set.n_elements == 4 and of_set(torch.rand(5, 4, 3), torch.ones(5, 4, 3).bool())[0].shape == (5, 4, 2)


def test_examples_know_what_they_lack(capsys):
    """An image lacks a pixel, a text all, a text with a mask a character; the uint8 images of MNIST never do."""
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian"))
    image, text = torch.rand(5, 1, 28, 28), torch.tensor([3, -1, 2, 0, 1])
    image[0, 0, 3, 4], image[2] = torch.nan, torch.nan
    examples = modelled(None, Examples({"image": image, "text": text}), model)
    assert examples.mask.tolist() == [[True, True], [True, False], [False, True], [True, True], [True, True]]
    assert examples.incomplete == ("image",)
    assert "1 of 5 examples lack some values of image: their other values are scored" in capsys.readouterr().err
    batch, seen = examples[:2], model.observe({"image": image[:2], "text": text[:2]})
    assert batch.modalities["image"][0, 0, 3, 4] == 0 and list(batch.observed) == ["image"]
    assert torch.equal(batch.observed["image"], seen.observed["image"]) and torch.equal(batch.mask, seen.mask)
    for i in (0, 1):
        torch.manual_seed(0)
        value = StandardElbo(model).bound(batch[[i]]).value
        torch.manual_seed(0)
        torch.testing.assert_close(StandardElbo(model).bound(seen[[i]]).value, value)

    rows = unpair(examples, 0.5, seed=0)
    assert rows.incomplete == ("image",) and not rows.mask[2, -2:, 0].any()
    rows = torch.tensor([[0, 2], [3, 4], [3, 0]])
    paired = modelled(None, Examples({"image": image, "text": text.abs()}, {"image": rows, "text": rows}), model)
    assert paired.mask[..., 0].tolist() == [[True, False], [True, True], [True, True]] and paired.mask[..., 1].all()
    bytes_of = modelled(None, Examples({"image": (image.nan_to_num() * 255).byte(), "text": text.abs()}), model)
    assert bytes_of.incomplete == () and bytes_of.mask is None
    with pytest.raises(InputError, match="no example has image: NaN, -1, and False in a mask, are for what is"):
        check_present(modelled(None, Examples({"image": image * torch.nan, "text": text}), model), model)


def test_values_without_a_density_at_zero_have_finite_gradients():
    def density(output, x):
        return LogNormal(output, 1.0, validate_args=False).log_prob(x)

    output = torch.randn(4, 3, requires_grad=True)
    x = torch.rand(4, 3)
    observed = torch.tensor([[True, False, True]] * 4)
    log_prob("a", FunctionLikelihood(density)(output), x.masked_fill(~observed, 0), 1, observed).sum().backward()
    assert output.grad.isfinite().all() and (output.grad[:, 1] == 0).all()


def test_rows_without_any_value_have_no_gradient():
    """A captured step decodes rows that lack a modality too."""
    output = torch.randn(4, 3, requires_grad=True)
    likelihood, nothing = FunctionLikelihood(lambda o, x: -(o - x).square()), torch.zeros(4, 3, dtype=torch.bool)
    log_p = log_prob("a", likelihood(output), torch.zeros(4, 3), 1, nothing)
    log_p.sum().backward()
    assert (log_p == 0).all() and (output.grad == 0).all()


def test_what_a_decoder_sees_beside_z_lacks_no_value():
    decoder = {"a|b": Beside(), "b": nn.Linear(2, 3)}
    likelihood = GroupedLikelihood(**{m: SphericalGaussianLikelihood(1.0) for m in "ab"})
    encoder = {"a": SplitLinearLayer(4, (2, 2)), "b": SplitLinearLayer(3, (2, 2))}
    model, x = VAE("poe", encoder, decoder, likelihood, 2), {"a": torch.rand(5, 4), "b": torch.rand(5, 3)}
    x["a"][0, 0] = x["b"][1] = torch.nan
    assert StandardElbo(model).bound(x).value.isfinite().all()
    x["b"][2, 0] = torch.nan
    with pytest.raises(
        InputError, match="b lacks some of its values, and the decoder of a sees it: mask b in these ex"
    ):
        StandardElbo(model).bound(x)


class Beside(nn.Module):
    def forward(self, z, b):
        return torch.cat([z, b[:, :2]], dim=1)


def test_a_stack_of_classes_beside_an_incomplete_modality():
    encoder = {name: nn.Sequential(nn.Embedding(2, 4), SplitLinearLayer(4, (2, 2))) for name in "ab"}
    decoder = {"t": nn.Linear(2, 3), "a,b": StackedDecoder(nn.Sequential(StackedLinear(2, 2, 1), SqueezeLayer(-1)))}
    likelihood = GroupedLikelihood(t=SphericalGaussianLikelihood(1.0), a=BinaryLikelihood(), b=BinaryLikelihood())
    model = VAE("poe", encoder | {"t": SplitLinearLayer(3, (2, 2))}, decoder, likelihood, 2)
    x = {"a": torch.randint(2, (5,)), "b": torch.randint(2, (5,)), "t": torch.rand(5, 3)}
    x["t"][0, 0] = torch.nan
    terms = StandardElbo(model).bound(x).terms
    assert all((terms[f"joint/{name}"] != 0).all() for name in "abt")


def test_a_derived_modality_lacks_what_its_function_makes():
    a, _ = incomplete()
    examples = Examples({"a": a["a"].float()}, derived={"b": ("a", lambda x: x[:, :2] + x[:, 2:])})
    model = exact_model()
    for p in model.parameters():
        p.data = p.data.float()
    found, seen = modelled(None, examples, model)[:], model.observe(examples[:])
    assert found.mask.equal(seen.mask) and not found.mask[:, 1].equal(found.mask[:, 0])
    there = found.mask[:, 1]
    assert found.observed["b"][there].equal(seen.observed["b"][there])
