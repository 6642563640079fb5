"""Posteriors on spheres: products of experts, mixtures, bounds and estimates against quadrature on the circle."""

import math

from common.data import Examples
from common.distributions import HypersphericalUniform, Spheres, VonMisesFisher
from common.errors import InputError
from common.estimators import log_marginal
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.multimodal_vae import MultimodalVAE
from common.objectives import IwaeElbo, MmvaeElbo, StandardElbo
from common.priors import UniformHypersphericalPrior
from common.variational_posteriors import (
    LaplacePosterior,
    MixturePosterior,
    VmfProductPosterior,
)
from common.variational_strategies import MoeStrategy, MopoeStrategy, VmfPoeStrategy
from reports.metrics import divergences

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

ANGLES = torch.linspace(0, 2 * math.pi, 721, dtype=torch.float64)[:-1]
CIRCLE = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=-1)  # (N, 2)
STRATEGIES = {"poe": VmfPoeStrategy, "moe": MoeStrategy, "mopoe": lambda: MopoeStrategy(VmfPoeStrategy())}


class Natural(nn.Module):
    """x (N, 3) -> a natural parameter (N, D)."""

    def __init__(self, d):
        super().__init__()
        self.linear = nn.Linear(3, d)

    def forward(self, x):
        return (self.linear(x) / 2,)


def circle_model(fusion, names=("a", "b"), d=2, n=1):
    """z uniform on the circle, x_m = W_m z + noise of scale 0.6."""
    torch.manual_seed(3)
    posterior = VmfProductPosterior(n)
    model = MultimodalVAE(
        encoder={name: Natural(d) for name in names},
        variational_strategy=STRATEGIES[fusion](),
        variational_posterior=posterior if fusion == "poe" else MixturePosterior(posterior),
        decoder={name: nn.Linear(d, 3) for name in names},
        likelihood=GroupedLikelihood(**{name: SphericalGaussianLikelihood(0.6) for name in names}),
        prior=UniformHypersphericalPrior(d, n),
    ).double()
    x = {name: torch.randn(4, 3, dtype=torch.float64) for name in names}
    return model, x


def log_joint(model, x):
    """log p(x, z) for all z of the circle, (N, B)."""
    z = CIRCLE[:, None].expand(-1, len(x["a"]), -1)
    return model.prior().log_prob(z) + sum(p.log_prob(x[name]) for name, p in model.decode(z).items() if name in x)


def exact_log_p(model, x):
    return log_joint(model, x).logsumexp(dim=0) + math.log(2 * math.pi / len(CIRCLE))


def spheres_log_z(eta):
    """log of the integral of exp(3 eta' z) over two spheres in R^3, (..., 6) -> (...)."""
    kappa = 3 * eta.unflatten(-1, (2, 3)).norm(dim=-1)
    return (4 * math.pi * kappa.sinh() / kappa).log().sum(dim=-1)


def test_the_product_is_that_of_the_densities():
    eta = torch.randn(3, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    family, z = VmfProductPosterior(2), Spheres(HypersphericalUniform(3, (4, 2), like=eta)).sample((50,))
    product = family(VmfPoeStrategy()((eta,), mask)).log_prob(z)
    there = mask.T[:, None]  # (M, 1, B)
    of_each = torch.where(there, torch.stack([family((e,)).log_prob(z) for e in eta]), 0).sum(dim=0)
    difference = product - of_each
    torch.testing.assert_close(difference, difference[:1].expand_as(difference), msg="a constant: the normaliser")
    log_z = spheres_log_z((eta * there.movedim(1, 2)).sum(dim=0)) - (spheres_log_z(eta) * there[:, 0]).sum(dim=0)
    torch.testing.assert_close(difference[0, :3], -log_z[:3], msg="log of the integral of the product")
    torch.testing.assert_close(product[:, 3], UniformHypersphericalPrior(6, 2)().log_prob(z[:, 3]).double())
    of_subsets = family(VmfPoeStrategy()((eta,), mask.expand(2, -1, -1)))
    torch.testing.assert_close(of_subsets.log_prob(z[:, None]), product[:, None].expand(-1, 2, -1))


def test_spheres_side_by_side():
    eta = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    q = VmfProductPosterior(3)((eta,))
    z = q.rsample((7,))
    assert z.shape == (7, 5, 6)
    torch.testing.assert_close(z.unflatten(-1, (3, 2)).norm(dim=-1), torch.ones(7, 5, 3, dtype=torch.float64))
    parts = 2 * eta.unflatten(-1, (3, 2))
    kappa = parts.norm(dim=-1)
    apart = [VonMisesFisher(parts[:, i] / kappa[:, i, None], kappa[:, i]) for i in range(3)]
    torch.testing.assert_close(q.log_prob(z), sum(p.log_prob(z[..., 2 * i : 2 * i + 2]) for i, p in enumerate(apart)))
    prior = UniformHypersphericalPrior(6, 3)()
    torch.testing.assert_close(
        kl_divergence(q, prior), sum(kl_divergence(p, HypersphericalUniform(2)) for p in apart).to(eta)
    )
    torch.testing.assert_close(q.mean, torch.cat([p.mean for p in apart], dim=-1))
    torch.testing.assert_close(q.stddev**2, torch.cat([p.variance for p in apart], dim=-1))
    assert prior.expand((5,)).sample((2,)).shape == (2, 5, 6)
    with pytest.raises(InputError, match=r"4 spheres need a multiple of 4 latent dimensions \(got 6\)"):
        VmfProductPosterior(4)((eta,))
    with pytest.raises(InputError, match=r"4 spheres need a multiple of 4 latent dimensions \(got 6\)"):
        UniformHypersphericalPrior(6, 4)


def test_no_concentration_is_the_uniform_distribution():
    eta = torch.zeros(2, 4, requires_grad=True)
    q = VmfProductPosterior()((eta,))
    z = q.rsample((3,))
    torch.testing.assert_close(q.log_prob(z), UniformHypersphericalPrior(4)().log_prob(z))
    (z.sum() + q.log_prob(z.detach()).sum() + kl_divergence(q, UniformHypersphericalPrior(4)()).sum()).backward()
    assert eta.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("fusion", STRATEGIES)
def test_bounds_and_estimates_on_the_circle(fusion):
    model, x = circle_model(fusion)
    exact = exact_log_p(model, x)
    many = {name: values.repeat(2000, 1) for name, values in x.items()}
    elbo = StandardElbo if fusion == "poe" else MmvaeElbo
    with torch.no_grad():
        found = elbo(model).bound(many).value.view(2000, -1)
        q = model.fuse(model.experts(model.observe(x)))
        components = [q] if fusion == "poe" else [q.component_distribution]
        log_q = components[0].log_prob(CIRCLE[:, None] if fusion == "poe" else CIRCLE[:, None, None])  # (N, B[, T])
        log_q = log_q.view(len(CIRCLE), 4, -1)
        value = (log_q.exp() * (log_joint(model, x)[..., None] - log_q)).sum(dim=0) * 2 * math.pi / len(CIRCLE)
        assert ((found.mean(dim=0) - value.mean(dim=1)) / (found.std(dim=0) / 2000**0.5)).abs().max() < 4.5
        for given in (("a", "b"), ("b",), ()):
            torch.testing.assert_close(
                log_marginal(model, x, ("a", "b"), given, n_samples=50_000), exact, rtol=0, atol=0.06
            )
        tight = IwaeElbo(model, 500).bound({name: values.repeat(40, 1) for name, values in x.items()}).value
        assert (tight.view(40, -1).mean(dim=0) - exact).abs().max() < 0.2
        assert (found.mean(dim=0) < exact).all()


def test_a_spheres_latents_are_narrow_together_and_stopped_together():
    """DReG takes IWAE's gradient for narrow latents (test_importance.py)."""
    model, x = circle_model("moe", d=4, n=2)
    q = model.posterior(x)
    assert (q.scales[..., 0] == q.scales[..., 1]).all() and (q.scales[..., 1] != q.scales[..., 2]).all()
    z = q.sample((3,))
    stopped = q.detached(except_for=q.scales < 0)
    torch.testing.assert_close(stopped.log_prob(z), q.log_prob(z))
    (gradient,) = torch.autograd.grad(stopped.log_prob(z).sum(), model.encoder["a"].linear.weight)
    assert (gradient == 0).all()


def test_reconstructions_are_of_points_on_the_sphere():
    model, x = circle_model("moe", d=6, n=3)
    seen = []
    model.decoder["a"].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.reconstruct(x)
    torch.testing.assert_close(seen[0].unflatten(-1, (3, 2)).norm(dim=-1), torch.ones(4, 3, dtype=torch.float64))
    mean = model.posterior(x).mean.unflatten(-1, (3, 2))
    torch.testing.assert_close(seen[0], (mean / mean.norm(dim=-1, keepdim=True)).flatten(1))


@pytest.mark.parametrize("family", [LaplacePosterior(), VmfProductPosterior(2)])
def test_components_are_drawn_by_their_weights(family):
    """Of three components the second has weight 0; the drawn ones are the family's own members."""
    logits = torch.tensor([0.25, 0.0, 0.75]).log().expand(4000, -1)
    params = [
        torch.randn(3, 4).expand(4000, -1, -1) for _ in range(1 if isinstance(family, VmfProductPosterior) else 2)
    ]
    q = MixturePosterior(family)((logits, *params))
    drawn = q.drawn_component()
    means = torch.stack([family(tuple(p[0, t] for p in params)).mean for t in range(3)])
    shares = [(drawn.mean - mean).abs().amax(dim=1).lt(1e-5).float().mean().item() for mean in means]
    assert shares == pytest.approx([0.25, 0, 0.75], abs=0.03) and sum(shares) == pytest.approx(1)
    assert drawn.drawn_component() is drawn
    assert q.has_rsample and q.rsample((2,)).shape == (2, 4000, 4), "a posterior's samples have gradients"


def test_divergences_are_by_sphere():
    model, x = circle_model("moe", d=4, n=2)
    found = divergences(model, Examples(x), {name: (name,) for name in x})
    assert [(*kl.shape,) for kl in found.values()] == [(4, 2)] * 3
    q = model.variational_posterior.component(model.encoder["a"](x["a"]))
    torch.testing.assert_close(found["KL(q(z|a) || p(z))"].sum(dim=1), kl_divergence(q, model.prior()))
