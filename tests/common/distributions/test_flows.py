"""JNF's posterior: flows against integrals and autograd; with flows that are the identity, against Gaussians."""

import math

from common.distributions import JointFlows
from common.distributions.flows import Flows, masked_autoregressive_flow
from common.distributions.hamiltonian import hamiltonian_chain
from common.distributions.location_scale import DiagonalGaussian
from common.errors import InputError
from common.estimators import importance_estimates, joint_and_each
from common.variational_posteriors import JointFlowsPosterior
from common.variational_strategies import JointFlowsStrategy
from tests.helpers.fusions import mask_of, with_fusion
from tests.helpers.linear_gaussian import draw, exact_log_p

import pytest
import torch
from torch import nn
from torch.distributions import Normal
from zuko.flows import MAF

KEYS = ("a", "b", "c", "a,b,c")
PATTERNS = [(), ("a",), ("c",), ("a", "c"), ("b", "c"), ("a", "b", "c")]


def bent(d, seed=0, by=0.4):
    """A flow with random weights, far from the identity; with by=0 it is the identity."""
    flow = MAF(d, transforms=2, hidden_features=(8, 8), activation=torch.nn.Tanh).transform.double()
    generator = torch.Generator().manual_seed(seed)
    for p in flow.parameters():
        p.data = by * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return flow


MOVES = 16  # enough for two latents


def posterior(flows, patterns, d=2, n=8, narrow=0.0):
    """q(z|x_S) for a row with each pattern, and the parameters of the experts and of the joint encoder."""
    generator = torch.Generator().manual_seed(0)
    mu, logvar = 0.7 * torch.randn(2, 4, len(patterns), d, generator=generator, dtype=torch.float64)
    logvar = logvar.abs().neg() - 0.3 - narrow  # narrower than the prior
    q = JointFlowsPosterior(flows, n, MOVES)(JointFlowsStrategy(KEYS)((mu, logvar), mask_of(patterns)))
    return q, mu, logvar


def grid(d, reach=9.0, n=700):
    """Points of a regular grid (n^d, d), and the logarithm of a cell's volume."""
    x = torch.linspace(-reach, reach, n, dtype=torch.float64)
    return torch.cartesian_prod(*[x] * d).view(-1, d), d * math.log(x[1] - x[0])


@pytest.mark.parametrize("d", [1, 7, 150])
def test_a_flow_against_autograd_and_its_own_inverse(d):
    torch.manual_seed(0)
    f = (bent(d) if d < 10 else masked_autoregressive_flow(d).double())()
    q = Flows(DiagonalGaussian(*torch.zeros(2, 2, d).double()), [f, None])
    z = torch.randn(5, 2, d, dtype=torch.float64)
    u, log_det = f.call_and_ladj(z[:, 0])
    torch.testing.assert_close(q.inverse(torch.stack([u, z[:, 1]], dim=1)), z)
    jacobian = torch.stack([torch.autograd.functional.jacobian(f, x) for x in z[:, 0]])
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet)
    expected = Normal(0.0, 1.0).log_prob(torch.stack([u, z[:, 1]], dim=1)).sum(dim=-1)
    expected[:, 0] += torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(q.log_prob(z), expected)
    torch.testing.assert_close(q.log_prob(z[:, :1])[:, 0], expected[:, 0])
    assert d == 1 or (jacobian != 0).sum() > 5 * d, "latents depend on each other"


def test_the_default_flow_reaches_all_latents():
    """In the first block the last latent depends on all groups before it, and on itself; in a layer of 128 units."""
    torch.manual_seed(0)
    block = masked_autoregressive_flow(150).transforms[0]
    jacobian = torch.autograd.functional.jacobian(block(), torch.randn(150))
    assert (jacobian[-1] != 0).sum() > 130 and not jacobian.triu(1).any()


def test_the_import_of_zuko_leaves_torchs_checks_on():
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)


def test_given_one_all_or_nothing_samples_and_densities_are_exact():
    q, mu, logvar = posterior([bent(2, seed) for seed in range(3)], [(), ("b",), ("a", "b", "c")])
    z = torch.randn(6, 3, 2, dtype=torch.float64)
    u, log_det = q.experts.maps[1].call_and_ladj(z[:, 1])
    b, joint = (Normal(mu[i, j], (0.5 * logvar[i, j]).exp()) for i, j in ((1, 1), (3, 2)))
    prior = Normal(0.0, 1.0).log_prob(z[:, 0]).sum(dim=-1)
    expected = torch.stack([prior, b.log_prob(u).sum(dim=-1) + log_det, joint.log_prob(z[:, 2]).sum(dim=-1)], dim=-1)
    for log_p in (q.log_density(z), q.log_prob(z), q.proposal.log_prob(z)):
        torch.testing.assert_close(log_p, expected)
    torch.testing.assert_close(q.log_normaliser((4,)), torch.zeros(4, 3).double(), rtol=0, atol=1e-12)
    torch.manual_seed(0)
    sample = q.sample((40_000,))
    u = q.experts.maps[1](sample[:, 1])
    for x, mean, std in ((sample[:, 0], 0.0, 1.0), (u, b.mean, b.stddev), (sample[:, 2], joint.mean, joint.stddev)):
        standardised = (x - mean) / std
        assert standardised.mean(dim=0).abs().max() < 0.03 and (standardised.std(dim=0) - 1).abs().max() < 0.03
    zeros = torch.zeros(2).double()
    of_b = q.experts.inverse(mu[:3, 1])[1]
    torch.testing.assert_close(q.point, torch.stack([zeros, of_b, mu[3, 2]]))
    torch.testing.assert_close(q.mean[[0, 2]], torch.stack([zeros, mu[3, 2]]))
    torch.testing.assert_close(q.variance[[0, 2]], torch.stack([zeros + 1, logvar[3, 2].exp()]))


def test_samples_given_one_all_or_nothing_have_gradients():
    """A joint sample moves with its mean, a flow's sample with the base's through the flow's inverse."""
    flows = [bent(2, seed) for seed in range(3)]
    q, mu, logvar = posterior(flows, [(), ("b",), ("a", "b", "c")])
    torch.manual_seed(0)
    z = q.sample((4,))
    mu.requires_grad_()
    q = JointFlowsPosterior(flows)(JointFlowsStrategy(KEYS)((mu, logvar), q.present))
    torch.manual_seed(0)
    with_gradients = q.rsample((4,))
    torch.testing.assert_close(with_gradients, z)
    (gradient,) = torch.autograd.grad(with_gradients[0].sum(), mu)
    base = flows[1]()(z[0, 1])
    expected = torch.zeros_like(mu)
    expected[1, 1] = torch.autograd.functional.jacobian(lambda u: flows[1]().inv(u), base).sum(dim=0)
    expected[3, 2] = 1
    torch.testing.assert_close(gradient, expected)
    between, *_ = posterior(flows, [("a", "b"), ("b",)])
    assert q.has_rsample and not between.has_rsample
    with pytest.raises(InputError, match="samples have no gradients"):
        between.rsample()


def test_with_the_identity_a_product_is_that_of_gaussians_over_powers_of_the_prior():
    """Of four modalities three are divided by the prior twice: a Gaussian, up to its normaliser."""
    mu, logvar = torch.randn(2, 4, 1, 2, dtype=torch.float64)
    logvar, mask = logvar.abs().neg() - 0.3, torch.tensor([[True, True, False, True]])
    q = JointFlows(mask, *(torch.cat([x, x[:1]]).movedim(0, -2) for x in (mu, logvar)), [bent(2, by=0)] * 4, 8, MOVES)
    given = mask.T.unsqueeze(-1)
    precision = (-logvar).exp() * given
    total = precision.sum(dim=0) - 2
    exact = Normal((precision * mu).sum(dim=0) / total, total.rsqrt())
    z = torch.randn(5, 1, 2, dtype=torch.float64)
    difference = q.log_density(z) - exact.log_prob(z).sum(dim=-1)
    torch.testing.assert_close(difference, difference[:1].expand(5, -1))


@pytest.mark.slow
def test_products_of_bent_flows_against_their_integrals():
    patterns = [("a", "b"), ("b", "c")]
    q, *_ = posterior([bent(2, seed, by=0.3) for seed in range(3)], patterns, n=8_000, narrow=0.5)
    z, log_cell = grid(2, reach=6.0)
    log_q = q.log_density(z.unsqueeze(1).expand(-1, 2, -1))
    log_z = (log_q + log_cell).logsumexp(dim=0)
    weight = (log_q + log_cell - log_z).exp().unsqueeze(-1)
    mean = (weight * z.unsqueeze(1)).sum(dim=0)
    variance = (weight * (z.unsqueeze(1) - mean).square()).sum(dim=0)
    torch.manual_seed(0)
    torch.testing.assert_close(q.log_normaliser(), log_z, rtol=0, atol=0.05)
    often = [(x.repeat(2000, *[1] * (x.dim() - 1))) for x in (q.present, q.mu, q.logvar)]
    few = JointFlows(*often, [bent(2, seed, by=0.3) for seed in range(3)], 8, MOVES)
    sample, means, points = (x.view(-1, 2, 2) for x in (few.sample(), few.mean, few.point))
    torch.testing.assert_close(sample.mean(dim=0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(sample.var(dim=0), variance, rtol=0.1, atol=0)
    drawn, with_it = (x.view(-1, 2, 2) for x in few.sample_and_point())
    torch.testing.assert_close(drawn.mean(dim=0), mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(dim=0), variance, rtol=0.1, atol=0)
    for x in (means, points, with_it):
        torch.testing.assert_close(x.mean(dim=0), mean, rtol=0, atol=0.03)
        assert ((x - mean).square().mean(dim=0) < 0.4 * variance).all()


class Linear(nn.Module):
    """A flow z -> L z with a lower triangular L, which correlates the latents."""

    def __init__(self, d, seed):
        super().__init__()
        noise = torch.randn(d, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        self.factor = 2 * torch.eye(d, dtype=torch.float64) + 0.8 * noise.tril(-1)

    def forward(self):
        return self

    def call_and_ladj(self, z):
        return z @ self.factor.T, self.factor.diagonal().log().sum().expand(z.shape[:-1])

    def inv(self, u):
        return torch.linalg.solve_triangular(self.factor, u.unsqueeze(-1), upper=False).squeeze(-1)


def test_chains_reach_products_of_flows_with_correlated_latents():
    """Three flows that are linear give a Gaussian with known moments, whose variances differ by a factor of 36."""
    torch.manual_seed(0)
    n, d = 60, 32
    mu, logvar = 0.7 * torch.randn(n, 5, d).double(), -1 - torch.rand(n, 5, d).double()
    flows = [Linear(d, seed) for seed in range(4)]
    precision = [
        f.factor.T @ (w.unsqueeze(-1) * f.factor) for f, w in zip(flows[:3], (-logvar).exp().unbind(1)[:3], strict=True)
    ]
    pull = [(w * m) @ f.factor for f, w, m in zip(flows, (-logvar).exp().unbind(1), mu.unbind(1), strict=False)]
    total = sum(precision) - 2 * torch.eye(d)
    mean = torch.linalg.solve(total, sum(pull[:3]))

    def distance(z):
        """The squared Mahalanobis distance to the mean, of each latent; its expectation is 1 for samples."""
        return torch.einsum("nd,nde,ne->n", z - mean, total, z - mean).mean().item() / d

    q = JointFlowsPosterior(flows, moves=100)((torch.tensor([[True] * 3 + [False]]).expand(n, -1), mu, logvar))
    assert distance(q.sample()) == pytest.approx(1, abs=0.12) and distance(q.mean) < 0.2
    assert distance(super(JointFlows, q).sample()) > 10, "weighted samples of the flows are far from it"


def test_a_hamiltonian_chain_keeps_a_density_whose_scales_are_misjudged():
    """A Gaussian with correlation 0.8; the chains start in one point, and take its scales for 1.5 and 2/3 of them."""
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]]).double()
    p = torch.distributions.MultivariateNormal(torch.tensor([1.0, -2.0]).double(), covariance)
    z = torch.zeros(20_000, 2, dtype=torch.float64)
    chain = hamiltonian_chain(p.log_prob, z, torch.tensor([1.5, 2 / 3]).double(), MOVES)
    assert chain.shape == (8, 20_000, 2) and not chain.requires_grad
    torch.testing.assert_close(chain[-1].mean(dim=0), p.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(chain[-1].T.cov(), covariance, rtol=0, atol=0.05)


def test_moves_to_where_a_density_is_not_finite_are_rejected():
    """Absolute values of a standard Gaussian's samples keep their moments; the density is NaN below 0."""
    torch.manual_seed(0)
    z = torch.randn(20_000, 1, dtype=torch.float64).abs()
    chain = hamiltonian_chain(
        lambda z: torch.where(z > 0, -z.square() / 2, torch.nan).squeeze(-1), z, torch.ones(1), MOVES
    )
    z = chain[-1]
    assert (z > 0).all()
    assert z.mean().item() == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)
    assert z.square().mean().item() == pytest.approx(1, abs=0.05)


def test_few_samples_give_the_proposals_gaussian_the_right_precision_on_average():
    """The inverse of a variance of 8 samples is 7/5 of the precision on average; two of them are added."""
    mu, logvar = torch.zeros(10_000, 4, 2, dtype=torch.float64), torch.full((10_000, 4, 2), -3.0, dtype=torch.float64)
    present = torch.tensor([True, True, False]).expand(10_000, -1)
    torch.manual_seed(0)
    q = JointFlows(present, mu, logvar, [bent(2, by=0)] * 3, 8, MOVES)
    precision = (-q.proposal.component_distribution.base.logvar[:, -1]).exp()
    exact = 2 * math.exp(3) - 1
    assert abs(precision.mean().item() - exact) < 4 * precision.std().item() / math.sqrt(20_000) < 0.05 * exact


def test_only_flows_that_are_given_are_inverted():
    q, *_ = posterior([bent(2)] * 3, [("a", "c"), ("c",)])
    assert [f is None for f in q.proposal.component_distribution.maps] == [False, True, False, True]
    q, *_ = posterior([bent(2)] * 3, [("a", "b", "c"), ()])
    assert q.proposal.component_distribution.maps == [None] * 4


def test_log_likelihoods_take_the_proposal():
    model, weights, scales = with_fusion("jnf", 3)
    model.variational_posterior = JointFlowsPosterior([bent(2, seed, by=0.1) for seed in range(3)])
    inputs = draw(weights, scales, 3)
    torch.manual_seed(0)
    targets = [("a", "b", "c"), ("a", "b")]
    for given in (("a", "b"), ()):
        for target, estimate in zip(targets, importance_estimates(model, inputs, targets, given, 10_000), strict=True):
            exact = exact_log_p(weights, scales, inputs, target)
            torch.testing.assert_close(estimate.value, exact, rtol=0, atol=0.15)
    rows = joint_and_each(model, model.observe(inputs), n_samples=5_000)
    known = exact_log_p(weights, scales, inputs, ("b",))
    torch.testing.assert_close(rows["log p(b), z from q(z|b)"], known, rtol=0, atol=0.1)


def test_the_joint_encoder_may_stand_anywhere():
    """The modalities have the order in which the encoders name them, as in the model."""
    params = (torch.arange(4.0).view(4, 1, 1),) * 2
    _, mu, _ = JointFlowsStrategy(("c,a,b", "b", "a", "c"))(params)
    assert mu.flatten().tolist() == [3, 2, 1, 0], "c, a, b, and all"


def test_a_density_has_its_gradient_after_samples_too():
    flows, gradients = [bent(2, seed) for seed in range(3)], []
    _, mu, logvar = posterior(flows, PATTERNS)
    params = mu.requires_grad_(), logvar.requires_grad_()
    for sampled in (False, True):
        q = JointFlowsPosterior(flows, 8, MOVES)(JointFlowsStrategy(KEYS)(params, mask_of(PATTERNS)))
        if sampled:
            with torch.no_grad():
                q.sample()
        total = q.log_density(torch.ones(len(PATTERNS), 2, dtype=torch.float64)).sum()
        gradients.append(torch.autograd.grad(total, params))
    torch.testing.assert_close(*gradients)
    assert all(x.any() for x in gradients[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: masked_autoregressive_flow(10**9), "a flow takes at most 4096 latents .got 1000000000."),
        (lambda: JointFlowsStrategy(("a", "b", "c", "a,b")), "JNF needs an encoder for each modality, and one of all"),
        (lambda: JointFlowsPosterior([], n=3), "products of flows need at least 4 samples from each .got 3"),
    ],
)
def test_flows_that_cannot_be_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
