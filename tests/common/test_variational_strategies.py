"""The other ways to fuse experts than MVAE's product, against brute force and against exact posteriors."""

from types import SimpleNamespace

from common.data import Batch
from common.encoders_decoders import ConcatLayer, SplitLinearLayer
from common.errors import InputError
from common.estimators import importance_estimates
from common.models import VAE
from common.variational_strategies import (
    MoeStrategy,
    MopoeStrategy,
    OwnExpertStrategy,
    SetStrategy,
    UnstructuredStrategy,
)
from mnist.model import build
from tests.helpers.fusions import PATTERNS, Exact, components, mask_of, row, with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p, exact_posterior, linear_gaussian, standard_error

import pytest
import torch
from torch.distributions import Normal, kl_divergence


def test_a_sets_posterior_of_nothing_is_the_prior():
    strategy, h = SetStrategy(SplitLinearLayer(4, (D, D))), torch.randn(3, 2, 4)
    mask = torch.tensor([[False] * 3, [True, False, False]])
    for x in strategy((h,), mask):
        assert not x[0].any() and x[1].any()


@pytest.mark.parametrize("fusion", ["moe", "mopoe"])
def test_mixture_is_the_mean_of_the_densities_of_what_each_example_has(fusion):
    model, weights, scales = with_fusion(fusion, 3)
    inputs = draw(weights, scales, 5)
    batch = model.observe(Batch(inputs, mask_of(PATTERNS)))
    q = model.fuse(model.experts(batch), batch.mask)
    assert q.batch_shape == (5,) and q.event_shape == (D,)
    z = 2 * torch.randn(7, 5, D, dtype=torch.float64)
    log_q = q.log_prob(z)
    for i, pattern in enumerate(PATTERNS):
        mu, variance = components(fusion, weights, scales, row(inputs, i), pattern)
        n_components = {"moe": len(pattern), "mopoe": 2 ** len(pattern) - 1}[fusion]
        assert len(mu) == max(n_components, 1)
        density = Normal(mu, variance.sqrt()).log_prob(z[:, i, None]).sum(dim=-1).exp().mean(dim=1)
        torch.testing.assert_close(log_q[:, i], density.log())
        mean = mu.mean(dim=0)
        torch.testing.assert_close(q.mean[i], mean)
        torch.testing.assert_close(q.variance[i], (variance + mu.square()).mean(dim=0) - mean.square())


@pytest.mark.parametrize("strategy", [MoeStrategy(), MopoeStrategy()])
def test_mixtures_of_several_masks_at_once(strategy):
    """A mask (T, B, M) or (T, 1, M) is T masks, in one call."""
    params = tuple(torch.randn(2, 3, 4, D, dtype=torch.float64))  # M = 3, B = 4
    masks = mask_of(PATTERNS[:4])[:, None]  # (4, 1, 3)
    together = strategy(params, masks)
    for t, mask in enumerate(masks):
        alone = strategy(params, mask.expand(4, -1))
        for x, expected in zip(together, alone, strict=True):
            torch.testing.assert_close(x[t], expected)
    whole = strategy(params)
    for x, expected in zip(whole, strategy(params, torch.ones(4, 3, dtype=torch.bool)), strict=True):
        torch.testing.assert_close(x, expected)


# an encoder for each subset


def test_own_expert_picks_each_rows_encoder():
    """Each expert's parameters are its number, so that what comes out names the encoder."""
    strategy = OwnExpertStrategy(("a", "b", "a,b", "b,c")).eval()
    number = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None, None].expand(4, 5, D)  # (E, B, D)
    patterns = [("a", "b"), ("b",), ("a",), ("b", "c"), ("b",)]
    mu, logvar = strategy((number, -number), mask_of(patterns))
    assert mu.tolist() == [[e] * D for e in (3, 2, 1, 4, 2)]
    assert logvar.equal(-mu)
    mu, _ = strategy((number, -number), mask_of([("b",), ("a", "b")])[:, None])  # (2, 1, 3): for all of the batch
    assert mu.tolist() == [[[2] * D] * 5, [[3] * D] * 5]


def test_own_expert_of_everything_is_the_default():
    params = tuple(torch.randn(2, 3, 4, D, dtype=torch.float64))
    for encoders, expected in ((("a", "b", "a,b"), 2), (("a,b", "a", "b"), 0), (("b", "b,a", "a"), 1)):
        for out, p in zip(OwnExpertStrategy(encoders).eval()(params), params, strict=True):
            torch.testing.assert_close(out, p[expected])


def test_own_experts_see_only_their_rows():
    model, weights, scales = with_fusion("own", 3)
    inputs, patterns = draw(weights, scales, 6), [*PATTERNS[:4], ("b",), ("a", "b", "c")]
    seen = {}
    for key, encoder in model.encoder.items():
        encoder.register_forward_hook(lambda _, args, __, key=key: seen.update({key: [len(x) for x in args]}))
    model.posterior(Batch(inputs, mask_of(patterns)))
    expected = {key: sum(set(key.split(",")) <= set(p) for p in patterns) for key in seen}
    assert seen == {key: [n] * len(key.split(",")) for key, n in expected.items()}


def test_an_encoder_of_two_modalities_gets_them_in_its_own_order():
    model, weights, scales = linear_gaussian(2)
    encoder = {"a": Exact(weights, scales, ("a",)), "b,a": Exact(weights, scales, ("b", "a"))}
    model = VAE("own", encoder, dict(model.decoder), model.likelihood, latent_dim=D).double().eval()
    assert model.modalities == ("a", "b")
    inputs = draw(weights, scales, 4)
    torch.testing.assert_close(model.posterior(inputs).mean, exact_posterior(weights, scales, inputs, ("a", "b"))[0])


def test_a_subset_without_an_encoder_is_refused():
    model = build(SimpleNamespace(n_latents=4, model="cvae", posterior="gaussian")).eval()
    inputs = {"image": torch.rand(2, 1, 28, 28), "text": torch.tensor([3, 4])}
    with pytest.raises(InputError, match="no encoder for just these modalities"):
        model.posterior(Batch(inputs, torch.tensor([[True, False], [True, True]])))
    assert model.posterior(inputs).mean.shape == (2, 4)


def test_a_label_alone_says_nothing_of_cvaes_latent():
    model = build(SimpleNamespace(n_latents=4, model="cvae", posterior="gaussian")).double().eval()
    q = model.posterior({"text": torch.tensor([3, 7])})
    assert (kl_divergence(q, model.prior()) == 0).all() and q.mean.shape == (2, 4) and q.mean.dtype == torch.float64


# as proposals


def test_mixtures_as_proposals_estimate_log_p():
    """p is the mean of the importance weights, without bias: the estimates' mean is p to within standard errors."""
    model, weights, scales = with_fusion("mopoe")
    repeats, targets = 200, [("a", "b"), ("b",)]
    one = draw(weights, scales, 1)
    inputs = {name: x.expand(repeats, -1) for name, x in one.items()}
    for target, estimate in zip(targets, importance_estimates(model, inputs, targets, ("a", "b"), 400), strict=True):
        ratio = (estimate.value - exact_log_p(weights, scales, one, target)).exp()
        assert standard_error(ratio) < 0.05, "the comparison is tight"
        assert ratio.mean().item() == pytest.approx(1, abs=5 * standard_error(ratio) + 1e-12)


def test_an_unstructured_encoder_sees_the_values_that_are_there_and_the_mask():
    heads = SplitLinearLayer(2 * 3 + 2, (4, 4)).double()
    strategy = UnstructuredStrategy(torch.nn.Sequential(ConcatLayer(), heads))
    x = torch.randn(2, 5, 3, dtype=torch.float64)  # (M, B, H)
    mask = torch.tensor([[True, True], [True, False], [False, True], [False, False], [True, True]])
    mu, logvar = strategy((x,), mask)
    for b, present in enumerate(mask):
        values = [x[m, b] if present[m] else torch.zeros(3).double() for m in range(2)]
        known = heads(torch.cat([*values, present.double()])) if present.any() else (torch.zeros(4).double(),) * 2
        torch.testing.assert_close((mu[b], logvar[b]), known)
    torch.testing.assert_close(strategy((x,))[0], strategy((x,), torch.ones_like(mask))[0])
    of_subsets = strategy((x,), torch.stack([mask, ~mask]))[0]
    assert of_subsets.shape == (2, 5, 4)
    torch.testing.assert_close(of_subsets[0], mu)
