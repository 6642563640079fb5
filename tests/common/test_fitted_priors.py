"""Densities fitted to latents whose density is known."""

import math

from common import latent_priors
from common.errors import Diverged, InputError
from common.fitted_priors import latents_of, own_latents
from common.latent_priors import FIRST, MafPrior, ScorePrior, fit, signal_and_noise
from common.models.objectives import decodes_own_latents
from tests.helpers.coherence import C, examples, model

import pytest
import torch
from torch import nn

MEANS, SHARE, DEVIATION = torch.tensor([[3.0, 3.0], [-2.0, 0.0]]), 0.3, 0.5
RHO = 0.8
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]]).double()


def two_modes(n):
    """A mixture of two round Gaussians, (n, 2)."""
    second = (torch.rand(n) >= SHARE).long()
    return MEANS[second] + DEVIATION * torch.randn(n, 2)


@pytest.fixture(scope="module", params=["maf", "score"])
def fitted(request):
    torch.manual_seed(0)
    return request.param, *fit(request.param, two_modes(3000), 40)


def test_a_fit_recovers_the_moments_and_the_modes(fitted):
    _, prior, _ = fitted
    torch.manual_seed(1)
    z, known = prior.sample((4000,)), two_modes(100_000)
    torch.testing.assert_close(z.mean(dim=0), known.mean(dim=0), rtol=0, atol=0.3)
    torch.testing.assert_close(z.T.cov(), known.T.cov(), rtol=0.15, atol=0)
    first = z.sum(dim=1) > 2
    assert first.float().mean().item() == pytest.approx(SHARE, abs=0.05)
    for mode, mean in zip((z[first], z[~first]), MEANS, strict=True):
        torch.testing.assert_close(mode.median(dim=0).values, mean, rtol=0, atol=0.1)
        torch.testing.assert_close(
            (mode - mean).abs().median(dim=0).values / 0.6745, torch.full((2,), DEVIATION), rtol=0.25, atol=0
        )
    far = (z[:, None] - MEANS).norm(dim=2).min(dim=1).values > 4 * DEVIATION
    assert far.float().mean() < 0.03


def test_the_held_out_loss_of_a_flow_nears_the_entropy(fitted):
    kind, prior, losses = fitted
    if kind == "maf":
        entropy = (
            -SHARE * math.log(SHARE) - (1 - SHARE) * math.log(1 - SHARE) + math.log(2 * math.pi * math.e * DEVIATION**2)
        )
        with torch.no_grad():
            assert prior.loss(two_modes(20_000)).mean().item() == pytest.approx(entropy, abs=0.08)
        assert min(losses) < losses[0] - 0.5
    else:
        assert min(losses) < 0.9 * losses[0]


def test_a_flow_is_a_density():
    """exp(-loss) integrates to one, whatever the location and the scale."""
    torch.manual_seed(0)
    prior = MafPrior((2,)).double()
    prior.loc.copy_(torch.tensor([1.0, -2.0]))
    prior.scale.copy_(torch.tensor([0.5, 2.0]))
    grid = [torch.linspace(-8, 8, 401).double() * s + m for m, s in zip(prior.loc, prior.scale, strict=True)]
    with torch.no_grad():
        density = (-prior.loss(torch.cartesian_prod(*grid))).exp()
    assert (density.sum() * math.prod(x[1] - x[0] for x in grid)).item() == pytest.approx(1, abs=1e-3)


def gaussian_noise(z, t):
    """E[epsilon|z_t] where z_0 is N(0, COVARIANCE): (B, 1, 2) at times (B, 1)."""
    alpha, sigma = (x[..., None, None] for x in signal_and_noise(t))
    return (sigma * torch.linalg.solve(alpha**2 * COVARIANCE + sigma**2 * torch.eye(2), z[..., None])).squeeze(-1)


def least_loss():
    """The loss of `gaussian_noise`: the mean over t of tr(alpha C (alpha^2 C + sigma^2 I)^-1) / 2."""
    t = FIRST + (1 - FIRST) * (torch.arange(20_000).double() + 0.5) / 20_000
    alpha, sigma = (x[:, None] for x in signal_and_noise(t))
    eigenvalues = torch.linalg.eigvalsh(COVARIANCE)
    return (alpha * eigenvalues / (alpha**2 * eigenvalues + sigma**2)).mean().item()


def correlated(n):
    return torch.randn(n, 2).double() @ torch.linalg.cholesky(COVARIANCE).T


def test_the_loss_of_a_score_is_that_of_a_gaussians_score(monkeypatch):
    prior, z = ScorePrior((2,)).double(), correlated(200_000)
    with torch.no_grad():
        of_standard_normal = prior.loss(z).mean().item()
        monkeypatch.setattr(prior, "noise", gaussian_noise)
        exact = prior.loss(z).mean().item()
    assert exact == pytest.approx(least_loss(), rel=0.01) and of_standard_normal > 1.1 * exact


def test_the_reverse_sde_draws_from_the_density_of_its_score(monkeypatch):
    torch.manual_seed(0)
    prior = ScorePrior((2,)).double()
    monkeypatch.setattr(prior, "noise", gaussian_noise)
    prior.loc.copy_(torch.tensor([5.0, -1.0]))
    prior.scale.copy_(torch.tensor([2.0, 0.5]))
    z = (prior.sample((20_000,)) - prior.loc) / prior.scale
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(2).double(), rtol=0, atol=0.03)
    torch.testing.assert_close(z.T.cov(), COVARIANCE, rtol=0, atol=0.04)


def test_noise_is_removed_from_more_latents_than_a_layer_has_units(monkeypatch):
    """Modes of 64 latents with the deviation 0.3 each; a network of rank 16 alone would leave 0.8 of the others."""
    monkeypatch.setattr(latent_priors, "WIDTH", 16)
    torch.manual_seed(0)
    modes = torch.randn(2, 64)
    prior, _ = fit("score", modes[torch.randint(2, (1500,))] + 0.3 * torch.randn(1500, 64), 80)
    distances = (prior.sample((300,))[:, None] - modes).square().mean(dim=2).amin(dim=1)  # (300,)
    assert distances.mean().sqrt() < 0.45


def conditional_noise(z, t):
    """E[epsilon|z_t, z_1] of z_2 (B, 2, 1), where z_1 is given: its time is 0."""
    assert t[:, 0].eq(0).all() and t[:, 1].gt(0).all()
    alpha, sigma = signal_and_noise(t[:, 1, None])
    error = sigma * (z[:, 1] - alpha * RHO * z[:, 0]) / (alpha**2 * (1 - RHO**2) + sigma**2)
    return torch.stack([torch.full_like(error, torch.nan), error], dim=1)


@pytest.mark.parametrize(("score", "atol"), [("exact", 0.06), ("fitted", 0.15)])
def test_given_latents_the_others_have_their_conditional_distribution(score, atol, monkeypatch):
    """z_2 given z_1 is N(rho z_1, 1 - rho^2)."""
    torch.manual_seed(0)
    monkeypatch.setattr(latent_priors, "WIDTH", 64)
    if score == "exact":
        prior = ScorePrior((2, 1)).double()
        monkeypatch.setattr(prior, "noise", conditional_noise)
    else:
        prior, _ = fit("score", correlated(4000)[..., None], 40)
        torch.testing.assert_close(prior.sample((2000,)).squeeze(2).T.cov(), COVARIANCE, rtol=0, atol=0.15)
    given = torch.tensor([-1.0, 0.0, 1.0]).double()
    z = torch.stack([given, torch.full((3,), 100.0)], dim=1).repeat(2000, 1)  # (6000, 2)
    z = prior.sample_given(z[..., None], (0,)).view(2000, 3, 2)
    torch.testing.assert_close(z[..., 0], given.expand(2000, 3))
    torch.testing.assert_close(z[..., 1].mean(dim=0), RHO * given, rtol=0, atol=atol)
    torch.testing.assert_close(z[..., 1].var(dim=0), torch.full((3,), 1 - RHO**2).double(), rtol=0, atol=atol)


def test_training_stops_by_the_patience_at_the_best_epoch_and_the_seed_decides_it(monkeypatch, capsys):
    monkeypatch.setattr(latent_priors, "PATIENCE", 2)
    z, fits = torch.randn(60, 3), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        prior, losses = fit("maf", z, 200)
        fits.append(prior.sample((2,)))
    assert fits[0].equal(fits[1]) and not fits[0].equal(fits[2])
    assert len(losses) < 200 and losses.index(min(losses)) == len(losses) - 3
    lines = capsys.readouterr().out.splitlines()[-len(losses) :]
    assert [line.endswith(" *") for line in lines] == [x == min(losses[: i + 1]) for i, x in enumerate(losses)]


def test_too_few_and_odd_latents_are_refused():
    with pytest.raises(InputError, match=r"needs 20 examples or more \(got 19\): raise --limit"):
        fit("maf", torch.randn(19, 2), 1)
    with pytest.raises(Diverged, match="the loss is nan in epoch 1"):
        fit("score", torch.zeros(20, 2), 1)


def test_latents_are_draws_of_the_posterior_or_of_each_expert():
    train, labels = examples(600)
    mean = 10 * nn.functional.one_hot(labels.squeeze(1), C)
    joint, own = (latents_of(model(), train, own) for own in (False, True))
    torch.testing.assert_close(joint, mean.float(), rtol=0, atol=0.05)
    assert own.shape == (600, 2, C) and (own - mean[:, None]).abs().max() < 0.05 and not own[:, 0].equal(own[:, 1])
    only_b = own_latents(model(), train[:], ("b",))
    assert only_b[:, 0].eq(0).all() and (only_b[:, 1] - mean).abs().max() < 0.05


def test_models_of_mmvm_have_latents_of_each_modality():
    own = {"model": "mmvm"}, {"model": "mmvm", "obj": None}, {"fusion": "moe", "obj": "mmvm-mixture"}
    shared = {"model": "mmvm", "obj": "elbo"}, {"model": "mmvae"}, {"model": "images", "obj": "dreg"}, {}
    assert all(map(decodes_own_latents, own)) and not any(map(decodes_own_latents, shared))
