"""The vectorised layout: a modality that is a set of like elements is as many modalities in the list layout."""

from common.data import Batch
from common.data.batches import Columns
from common.encoders_decoders import SharedNetwork, SplitLinearLayer
from common.errors import InputError
from common.estimators import importance_estimates, log_marginal
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood
from common.models import MVAE, VAE
from common.objectives import (
    ArElbo,
    CodeElbo,
    CrmvaeElbo,
    DregIwaeElbo,
    IwaeElbo,
    MmvaeElbo,
    MvaeElbo,
    MvtcaeElbo,
)

import pytest
import torch
from torch import nn

N, D, SIZE, HIDDEN = 5, 3, 2, 8
NAMES = [str(i) for i in range(N)]


class OneOf(nn.Module):
    """What a shared encoder says of its i-th element alone: (N, d) -> (N, D) each."""

    def __init__(self, shared, i):
        super().__init__()
        self.shared, self.i = shared, i

    def forward(self, x):
        return self.shared.rest(self.shared.first(x) * self.shared.scale[self.i] + self.shared.shift[self.i])


def networks(n=N):
    encoder = SharedNetwork(n, nn.Linear(SIZE, HIDDEN), nn.Sequential(nn.SiLU(), SplitLinearLayer(HIDDEN, (D, D))))
    decoder = SharedNetwork(n, nn.Linear(D, HIDDEN), nn.Sequential(nn.SiLU(), nn.Linear(HIDDEN, SIZE)))
    return encoder.double(), decoder.double()


def both(fusion="poe"):
    """A model in the vectorised layout and the same in the list layout, with the same parameters."""
    encoder, decoder = networks()
    vectorised = VAE(fusion, {"x": encoder}, {"x": decoder}, GroupedLikelihood(x=BernoulliLikelihood()), D)
    as_list = VAE(
        fusion,
        {name: OneOf(encoder, i) for i, name in enumerate(NAMES)},
        {",".join(NAMES): decoder},
        GroupedLikelihood(*[BernoulliLikelihood() for _ in NAMES]),
        D,
    )
    return vectorised.double(), as_list.double()


def example(n=4, missing=True):
    x = torch.rand(n, N, SIZE, dtype=torch.float64)
    if missing:
        x[0, 1], x[1, :3], x[2] = torch.nan, torch.nan, torch.nan
        x[3, 4] = torch.nan
    return x


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(
    ("fusion", "objective"),
    [
        ("poe", lambda model: MvaeElbo(model, K=2, generator=torch.Generator().manual_seed(3))),
        ("poe", ArElbo),
        ("poe", lambda model: IwaeElbo(model, K=3)),
        ("moe", MmvaeElbo),
        ("moe", lambda model: DregIwaeElbo(model, K=3, looser=True)),
        ("code", CodeElbo),
        ("product", MvtcaeElbo),
        ("product", CrmvaeElbo),
    ],
)
def test_bounds_and_gradients_are_those_of_the_list_layout(fusion, objective, missing):
    vectorised, as_list = both(fusion)
    x = example(missing=missing)
    results = []
    for model, inputs in ((vectorised, {"x": x}), (as_list, list(x.unbind(dim=1)))):
        goal = objective(model)
        torch.manual_seed(0)
        value = goal.bound(inputs).value
        torch.manual_seed(0)
        goal.backward(inputs, 1.0, len(x))
        shared = vectorised.encoder["x"]
        results.append((value, shared.scale.grad.clone(), shared.first.weight.grad.clone()))
        goal.zero_grad()
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)
    assert results[0][1].abs().sum() > 0


@pytest.mark.parametrize(
    ("fusion", "objective"), [("product", MvtcaeElbo), ("product", CrmvaeElbo), ("code", CodeElbo)]
)
def test_what_has_terms_or_weights_by_element_refuses_large_sets(fusion, objective):
    encoder, decoder = networks(11)
    with pytest.raises(InputError, match=r"at most 10 (elements, not {'x': 11}|modalities \(got 11\)): take "):
        objective(VAE(fusion, {"x": encoder}, {"x": decoder}, GroupedLikelihood(x=BernoulliLikelihood()), D).double())


def test_the_probability_of_no_element_is_1():
    vectorised, _ = both()
    x = example()  # the third example has no element
    (none,) = importance_estimates(vectorised, {"x": x}, [("x",)], (), 60, tolerance=0.1)
    assert (none.value[2], none.variance[2]) == (0, 0) and (none.value[:2] < 0).all()


def test_the_terms_of_a_set():
    vectorised, _ = both()
    goal = MvaeElbo(vectorised, K=2)
    assert len(goal.subsets()) == N + 1
    terms = goal.bound({"x": example()}).terms
    assert {"joint/x", "joint/kl", "x[0]/x", "x[4]/kl", "subset1/x", "subset2/kl"} <= set(terms)


def test_likelihoods_of_elements_share_samples():
    vectorised, as_list = both()
    x = example(missing=False)
    observed = torch.rand(len(x), N) < 0.5
    everything = torch.ones_like(observed)
    torch.manual_seed(0)
    whole, part = importance_estimates(vectorised, {"x": x}, [everything, observed], everything, 200)
    torch.manual_seed(0)
    assert torch.equal(log_marginal(vectorised, {"x": x}, ["x"], n_samples=200), whole.value)
    torch.manual_seed(0)
    listed = list(x.unbind(dim=1))
    torch.testing.assert_close(log_marginal(as_list, listed, NAMES, n_samples=200), whole.value)
    torch.manual_seed(0)
    names = [NAMES[i] for i in observed[1].nonzero().flatten()]
    given = importance_estimates(as_list, listed, [names], NAMES, 200)[0].value
    torch.testing.assert_close(given[1], part.value[1])
    missing = x.masked_fill(~observed[..., None], torch.nan)
    q = vectorised.posterior({"x": missing})
    torch.testing.assert_close(q.mean, vectorised.posterior(Batch({"x": x}, observed)).mean)
    assert missing.isnan().any(), "the caller's tensor is left as it is"
    with pytest.raises(InputError, match=r"x is a set of 5 elements .*\(B, 5, ...\) \(got \(4, 3, 2\)\)"):
        vectorised.posterior({"x": x[:, :3]})
    with pytest.raises(InputError, match="that an example lacks"):
        importance_estimates(vectorised, {"x": missing}, [everything], everything, 2)


def test_a_set_beside_a_plain_modality():
    encoder, decoder = networks()
    other = nn.Sequential(nn.Linear(1, HIDDEN), SplitLinearLayer(HIDDEN, (D, D))).double()
    model = MVAE(
        {"y": other, "x": encoder},
        {"y": nn.Linear(D, 1), "x": decoder},
        GroupedLikelihood(y=BernoulliLikelihood(), x=BernoulliLikelihood()),
        D,
    ).double()
    assert model.columns == {"y": Columns(0), "x": Columns(1, N)}
    x, y = example(), torch.rand(4, 1, dtype=torch.float64)
    goal = MvaeElbo(model, K=1)
    assert [int(subset.sum()) for subset in goal.subsets().values()] == [1] * (N + 1) + [N + 1]
    assert {"y/y", "x[0]/x", "joint/x", "joint/y", "subset1/x"} <= set(goal.bound({"x": x, "y": y}).terms)
    alone = model.posterior({"x": x, "y": y}, given=("x",))
    torch.testing.assert_close(alone.mean, model.posterior({"x": x}).mean)
    assert alone.mean[2].abs().sum() == 0, "an example without an element has the prior"
    only_y = model.posterior({"y": y}).mean
    mu, logvar = other(y)
    torch.testing.assert_close(only_y, mu / (1 + logvar.exp()))
