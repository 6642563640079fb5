"""JMVAE's, its students', JNF's, MVTCAE's and CRMVAE's objectives, by exact posteriors and formulas written out."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from common.data import Batch
from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from common.models import VAE
from common.objectives import CrmvaeElbo, JmvaeElbo, JnfElbo, MvtcaeElbo, StandardElbo
from common.variational_posteriors import JointFlowsPosterior
from common.variational_strategies import SetStrategy
from tests.common.distributions.test_flows import bent
from tests.helpers.digits import BETA, LAMBDAS, certain_joint, experts_by_hand, log_p_by_hand, mnist_inputs, model_of
from tests.helpers.fusions import mask_of, with_fusion
from tests.helpers.linear_gaussian import (
    NAMES,
    D,
    draw,
    exact_log_p,
    exact_posterior,
    expected_log_p,
    linear_gaussian,
    standard_error,
)
from tests.helpers.objectives import gradients_agree, kl_to_prior, repeated
from tests.helpers.private_latents import N_SHARED, private_linear_gaussian


def exact_jmvae(weights, scales, inputs):
    """log p(a, b), KL(joint || prior), [KL(joint || alone) of a and of b]: all analytic, (B,)."""
    joint, a, b = (
        Normal(mean, variance.sqrt())
        for mean, variance in (exact_posterior(weights, scales, inputs, s) for s in (("a", "b"), ("a",), ("b",)))
    )
    apart = [kl_divergence(joint, alone).sum(dim=-1) for alone in (a, b)]
    kl = kl_divergence(joint, Normal(torch.zeros_like(joint.mean), 1.0)).sum(dim=-1)
    return exact_log_p(weights, scales, inputs, ("a", "b")), kl, apart


@pytest.mark.parametrize("alpha", [0.0, 0.1, 2.0])
def test_jmvae_at_the_exact_posteriors_is_log_p_less_the_kls(alpha):
    model, weights, scales = with_fusion("own")
    one = draw(weights, scales, 1)
    log_p, kl, apart = exact_jmvae(weights, scales, one)
    assert min(a.item() for a in apart) > 0.01, "the posteriors differ"
    with torch.no_grad():
        value, terms = JmvaeElbo(model, alpha=alpha).bound(repeated(one, 20_000))
    expected = (log_p - alpha * sum(apart)).item()
    assert value.mean().item() == pytest.approx(expected, abs=5 * standard_error(value))
    assert standard_error(value) < 0.02, "the comparison is tight"
    assert set(terms) == {"joint/kl", "joint/a", "joint/b", "a/kl from joint", "b/kl from joint"}
    for name, exact in (("joint/kl", kl), ("a/kl from joint", apart[0]), ("b/kl from joint", apart[1])):
        torch.testing.assert_close(terms[name], exact.expand(20_000))


def test_jmvaes_weights_beta_and_alpha():
    """On mnist's networks, each written out; beta weighs the prior's KL and leaves the others alone."""
    model, alpha = model_of("jmvae"), 0.7
    inputs = mnist_inputs()
    mu, logvar = certain_joint(model, inputs)
    joint = Normal(mu, (0.5 * logvar).exp())
    apart = sum(
        kl_divergence(joint, Normal(m, v.sqrt())).sum(dim=-1) for m, v in experts_by_hand(model, inputs).values()
    )
    for beta in (1.0, BETA, 0.0):
        expected = log_p_by_hand(model, mu, inputs) - beta * kl_to_prior(mu, logvar.exp()) - alpha * apart
        bound = JmvaeElbo(model, alpha=alpha, weights=LAMBDAS).bound(inputs, beta)
        torch.testing.assert_close(bound.value, expected)


def test_students_leave_the_joint_posterior_alone_where_it_shares_their_network():
    exact, weights, scales = linear_gaussian(2)
    encoder = {name: SplitLinearLayer(3, (4,)) for name in "ab"}
    model = VAE(SetStrategy(SplitLinearLayer(4, (D, D))), encoder, dict(exact.decoder), exact.likelihood, D).double()
    inputs = draw(weights, scales, 3)
    network = list(model.variational_strategy.network.parameters())

    def gradient(alpha):
        torch.manual_seed(0)
        loss, _ = JmvaeElbo(model, alpha, students=True).loss(inputs)
        return torch.autograd.grad(loss, network)

    joint = model.posterior(inputs).detached()
    apart = sum(kl_divergence(joint, model.posterior({name: inputs[name]})) for name in "ab").mean()
    found = [with_kls - without for with_kls, without in zip(gradient(1.0), gradient(0.0), strict=True)]
    torch.testing.assert_close(found, list(torch.autograd.grad(apart, network)))


def test_jmvaes_alpha_is_suzukis_by_default():
    assert JmvaeElbo(model_of("jmvae")).alpha == 0.1


def test_jmvae_refuses_incomplete_examples():
    model = model_of("jmvae")
    inputs = mnist_inputs(3)
    lacking = {"image": inputs["image"], "text": torch.tensor([3, -1, 2])}
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    for given in (lacking, {"image": inputs["image"]}, Batch(inputs, mask), Batch({"text": inputs["text"]})):
        with pytest.raises(InputError, match="JmvaeElbo needs every modality of every example"):
            JmvaeElbo(model).bound(given)


def test_only_alpha_trains_jmvaes_unimodal_encoders():
    model, inputs = model_of("jmvae"), mnist_inputs()
    grads = []
    for alpha in (0.0, 1.0):
        model.zero_grad()
        torch.manual_seed(0)
        JmvaeElbo(model, alpha=alpha)(inputs).backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[1].items():
        assert grad.isfinite().all() and grad.any(), name
        alone = name.startswith(("encoder.image.", "encoder.text."))
        assert alone != bool(grads[0][name].any()), name
        # the alpha term draws the posteriors alone to the joint one, and the joint one to them
        assert grad.equal(grads[0][name]) == name.startswith("decoder"), name


def test_gradient_of_jmvaes_loss_against_finite_differences():
    model, weights, scales = with_fusion("own")
    inputs = draw(weights, scales, 3)
    with torch.no_grad():  # posteriors that are off, where the KLs' gradients are large
        for encoder in model.encoder.values():
            encoder.log_precision.add_(torch.randn(D))
    assert gradients_agree(JmvaeElbo(model, alpha=0.7, weights={"a": 2.0}), inputs)


# students


def test_a_joint_encoder_takes_no_notice_of_its_students():
    """Its gradient is the ELBO's, theirs JMVAE's."""
    model, inputs = model_of("jmvae"), mnist_inputs()

    def gradients(objective):
        torch.manual_seed(0)
        model.zero_grad()
        objective(inputs).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    student, jmvae, teacher = (
        gradients(JmvaeElbo(model, a, students=s)) for a, s in ((0.7, True), (0.7, False), (0, True))
    )
    for name, gradient in student.items():
        of_student = name.startswith(("encoder.image.", "encoder.text."))
        torch.testing.assert_close(gradient, jmvae[name] if of_student else teacher[name], msg=name)
    assert any(not student[name].equal(jmvae[name]) for name in student if name.startswith("encoder.image,text"))


def test_students_of_an_exact_teacher_come_to_the_exact_posteriors():
    """Over the data, the KL's gradient is zero at p(z|x_m), and not elsewhere."""
    model, weights, scales = with_fusion("own")
    objective, gradients = JmvaeElbo(model, 1.0, students=True), []
    students = [*model.encoder["a"].parameters(), *model.encoder["b"].parameters()]
    for shift in (0.0, 0.1):
        for p in students:
            p.data += shift
        chunks = []
        for _ in range(60):
            model.zero_grad()
            objective(draw(weights, scales, 300)).backward()
            chunks.append(torch.cat([p.grad.flatten() for p in students]))
        chunks = torch.stack(chunks)
        gradients.append(chunks.mean(dim=0) / (chunks.std(dim=0) / math.sqrt(60)))
    assert gradients[0].abs().max() < 4.5
    assert gradients[1].abs().median() > 8, "the comparison is tight"


def test_jmvae_takes_a_mask_of_complete_examples():
    model, inputs = model_of("jmvae"), mnist_inputs(3)
    assert JmvaeElbo(model)(Batch(inputs, torch.ones(3, 2, dtype=torch.bool))).isfinite()


# JNF


def with_flows(by):
    """The linear-Gaussian model with the exact posteriors, those of single modalities through flows."""
    model, weights, scales = with_fusion("jnf")
    model.variational_posterior = JointFlowsPosterior([bent(D, seed, by) for seed in range(2)])
    return model, weights, scales


def test_jnf_with_the_identity_is_log_p_less_the_kls():
    model, weights, scales = with_flows(by=0)
    one = draw(weights, scales, 1)
    log_p, kl, apart = exact_jmvae(weights, scales, one)
    with torch.no_grad():
        value, terms = JnfElbo(model).bound(repeated(one, 20_000))
    # q(z|a, b) is proportional to q_a q_b / p, so that the noise of the terms cancels
    torch.testing.assert_close(value, (log_p - sum(apart)).expand(20_000))
    assert set(terms) == {"joint/kl", "joint/a", "joint/b", "a/kl from joint", "b/kl from joint"}
    torch.testing.assert_close(terms["joint/kl"], kl.expand(20_000))
    for name, exact in zip(("a", "b"), apart, strict=True):
        distance = terms[f"{name}/kl from joint"]
        assert distance.mean().item() == pytest.approx(exact.item(), abs=5 * standard_error(distance))


@pytest.mark.parametrize("by", [0.3, 0.8])
def test_jnf_bounds_log_p(by):
    """Off the exact joint posterior too; without the flows' part it is the joint ELBO."""
    model, weights, scales = with_flows(by)
    with torch.no_grad():
        model.encoder["a,b"].log_precision.add_(0.3)
        one = draw(weights, scales, 1)
        value, terms = JnfElbo(model).bound(repeated(one, 20_000))
    log_p, error = exact_log_p(weights, scales, one, ("a", "b")).item(), 5 * standard_error(value)
    elbo = value + terms["a/kl from joint"] + terms["b/kl from joint"]
    assert value.mean() < elbo.mean() < log_p + error
    assert value.mean() < log_p - error, "the comparison is tight"
    torch.testing.assert_close(elbo, terms["joint/a"] + terms["joint/b"] - terms["joint/kl"])


def test_jnfs_weights_and_beta():
    """On mnist's networks, where the joint posterior is certain, each part written out."""
    model, inputs = model_of("jnf"), mnist_inputs()
    mu, logvar = certain_joint(model, inputs)
    joint = Normal(mu, (0.5 * logvar).exp()).log_prob(mu).sum(dim=-1)
    apart = []
    for flow, (m, v) in zip(model.variational_posterior.flows, experts_by_hand(model, inputs).values(), strict=True):
        u, log_det = flow().call_and_ladj(mu)
        apart.append(joint - Normal(m, v.sqrt()).log_prob(u).sum(dim=-1) - log_det)
    for beta in (1.0, BETA, 0.0):
        torch.manual_seed(0)
        bound = JnfElbo(model, weights=LAMBDAS).bound(inputs, beta)
        torch.manual_seed(0)
        noise = 0.5 * (torch.randn_like(mu).square().sum(dim=-1))  # of log q(z|X) at its sample
        expected = log_p_by_hand(model, mu, inputs) - beta * kl_to_prior(mu, logvar.exp()) - sum(apart) + 2 * noise
        torch.testing.assert_close(bound.value, expected)


def test_jnfs_flows_train_no_decoder_and_no_joint_encoder():
    """Those have the ELBO's gradient; flows and single encoders have log q_m's at samples of the joint posterior."""
    model, inputs = model_of("jnf"), mnist_inputs()
    torch.manual_seed(0)
    JnfElbo(model)(inputs).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    torch.manual_seed(0)
    q = model.posterior(inputs)
    z = q.joint.rsample()
    log_p = sum(p.log_prob(inputs[name]) for name, p in model.decode(z).items())
    (kl_to_prior(q.joint.mean, q.joint.logvar.exp()) - log_p).mean().backward()
    for expert, flow in zip(model.modalities, model.variational_posterior.flows, strict=True):
        u, log_det = flow().call_and_ladj(z.detach())
        m, logvar = model.encoder[expert](inputs[expert])
        (-Normal(m, (0.5 * logvar).exp()).log_prob(u).sum(dim=-1) - log_det).mean().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(gradients[name], p.grad, msg=name)
        assert p.grad.any(), name


@pytest.mark.slow
def test_gradient_of_jnfs_flows_against_finite_differences():
    model, weights, scales = with_flows(by=0.5)
    names = ("variational_posterior", "encoder.a.", "encoder.b.")
    assert gradients_agree(JnfElbo(model, weights={"a": 2.0}), draw(weights, scales, 3), names)


@pytest.mark.slow
def test_jnfs_flows_learn_what_no_gaussian_fits():
    """Joint posteriors along a parabola, for one value of a modality."""
    torch.manual_seed(0)
    model, _, _ = with_fusion("jnf")
    model.variational_posterior = JointFlowsPosterior([bent(D, seed, by=0.3) for seed in range(2)])
    optimizer = torch.optim.Adam(model.variational_posterior.flows[0].parameters(), lr=1e-2)
    inputs = {name: torch.zeros(500, 3).double() for name in ("a", "b")}
    t = torch.linspace(-2, 2, 500, dtype=torch.float64)
    means = torch.stack([t, t.square()], dim=1)
    model.encoder["a,b"].forward = lambda a, b: (means, torch.full_like(means, -4))
    for _ in range(300):
        optimizer.zero_grad()
        JnfElbo(model)(inputs).backward()
        optimizer.step()
    z = model.posterior(inputs).sample()
    fitted = MultivariateNormal(z.mean(dim=0), z.T.cov()).log_prob(z).mean()
    assert model.posterior({"a": inputs["a"]}).log_prob(z).mean() > fitted + 0.5


def test_jnf_refuses_incomplete_examples():
    model, inputs = model_of("jnf"), mnist_inputs(3)
    lacking = Batch(inputs, torch.tensor([[True, True], [True, True], [False, True]]))
    for given in (lacking, {"image": inputs["image"]}):
        with pytest.raises(InputError, match="JnfElbo needs every modality of every example"):
            JnfElbo(model).bound(given)
    assert JnfElbo(model)(Batch(inputs, torch.ones(3, 2, dtype=torch.bool))).isfinite()


# MVTCAE and CRMVAE: products of experts without the prior

PATTERNS = [("a", "b", "c"), ("a", "c"), ("b",)]


def by_hand(weights, scales, inputs, pattern):
    """q(z|X) and each q(z|x_m): means and variances, (1 + |X|, D). Shared latents, the first ones, lack the prior."""
    exact = [exact_posterior(weights, scales, inputs, given) for given in (pattern, *((name,) for name in pattern))]
    mean, variance = (torch.cat(part) for part in zip(*exact, strict=True))
    of_prior = torch.zeros(mean.shape[1], dtype=torch.float64)
    of_prior[:N_SHARED] = 1
    precision = 1 / variance - of_prior
    return mean / variance / precision, 1 / precision


def expected_parts(weights, scales, inputs, pattern, lambdas):
    """E log p of all under q(z|X), of each under its own posterior, KL(q(z|X) || p), sum of the KLs to the others."""
    mean, variance = by_hand(weights, scales, inputs, pattern)
    joint, singles = Normal(mean[0], variance[0].sqrt()), Normal(mean[1:], variance[1:].sqrt())
    log_p = {n: lambdas.get(n, 1.0) * expected_log_p(weights, scales, inputs, n, mean, variance) for n in pattern}
    own = sum(log_p[name][1 + m] for m, name in enumerate(pattern))
    kl = kl_to_prior(mean[:1], variance[:1])
    return [x.item() for x in (sum(log_p.values())[0], own, kl, kl_divergence(joint, singles).sum())]


def expected_mvtcae(parts, alpha, beta, m=3):
    joint, _, kl, apart = parts
    return (m - alpha) / m * joint - beta * ((1 - alpha) * kl + alpha / m * apart)


def expected_crmvae(parts, _, beta, m=3):
    joint, own, kl, apart = parts
    return (joint + own) / (2 * (m + 1)) - beta / (m + 1) * (kl + apart)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("alpha", [0.0, 5 / 6, None])  # None: CRMVAE, which has no alpha
def test_mvtcae_and_crmvae_in_expectation(pattern, alpha, private):
    model, weights, scales = private_linear_gaussian("product") if private else with_fusion("product", 3)
    one, n = draw(weights, scales, 1), 20_000
    batch = Batch(repeated(one, n), mask_of([pattern]).expand(n, -1))
    for lambdas, beta in (({}, 1.0), ({"a": 3.0, "c": 0.2}, 0.4)):
        crmvae = alpha is None
        objective = CrmvaeElbo(model, lambdas) if crmvae else MvtcaeElbo(model, alpha, lambdas)
        expected = expected_crmvae if crmvae else expected_mvtcae
        with torch.no_grad():
            value, terms = objective.bound(batch, beta)
        parts = expected_parts(weights, scales, one, pattern, lambdas)
        assert value.mean().item() == pytest.approx(expected(parts, alpha, beta), abs=5 * standard_error(value))
        assert standard_error(value) < 0.05, "the comparison is tight"
        scored = {f"joint/{name}" for name in NAMES[:3]} | (
            {f"{name}/{name}" for name in NAMES[:3]} if crmvae else set()
        )
        assert set(terms) == {"joint/kl", *(f"{name}/kl from joint" for name in NAMES[:3])} | scored
        torch.testing.assert_close(terms["joint/kl"], torch.full((n,), parts[2], dtype=torch.float64))
        for name in NAMES[:3]:
            assert (terms[f"{name}/kl from joint"] != 0).all() == (name in pattern and len(pattern) > 1)
            assert terms[f"joint/{name}"].any() == (name in pattern)


def test_mvtcae_without_alpha_is_the_elbo_of_the_product_without_the_prior():
    model, weights, scales = with_fusion("product", 3)
    inputs = draw(weights, scales, 5)
    inputs["b"][:2] = torch.nan
    values = []
    for objective in (MvtcaeElbo(model, 0.0, {"a": 2.0}), StandardElbo(model, {"a": 2.0})):
        torch.manual_seed(0)
        values.append(objective.bound(inputs, 0.7).value)
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 5 / 6, None])
def test_what_bounds_log_p(alpha, private):
    """The expectations of MVTCAE with alpha 0 are below log p(X); its others, and CRMVAE's, are not."""
    _, weights, scales = private_linear_gaussian("product") if private else with_fusion("product", 3)
    above = []
    for _ in range(20):
        one = draw(weights, scales, 1)
        parts = expected_parts(weights, scales, one, NAMES[:3], {})
        value = expected_crmvae(parts, alpha, 1.0) if alpha is None else expected_mvtcae(parts, alpha, 1.0)
        above.append(value > exact_log_p(weights, scales, one, NAMES[:3]).item())
    assert any(above) == (alpha != 0)


@pytest.mark.parametrize("private", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("objective", [MvtcaeElbo, CrmvaeElbo])
def test_gradient_of_mvtcaes_and_crmvaes_loss_against_finite_differences(objective, private):
    names = ("a", "b")
    model, weights, scales = private_linear_gaussian("product", names=names) if private else with_fusion("product")
    inputs = draw(weights, scales, 3)
    inputs["b"][0] = torch.nan
    assert gradients_agree(objective(model, weights={"a": 2.0}), inputs)


@pytest.mark.parametrize("objective", [MvtcaeElbo, CrmvaeElbo])
def test_terms_have_the_same_names_whatever_is_given(objective):
    model, weights, scales = with_fusion("product", 3)
    inputs = draw(weights, scales, 4)
    torch.manual_seed(0)
    bound = objective(model).bound({name: inputs[name] for name in ("a", "c")})
    torch.manual_seed(0)
    masked = objective(model).bound(Batch(inputs, torch.tensor([[True, False, True]]).expand(4, -1)))
    assert list(bound.terms) == list(objective(model).bound(inputs).terms)
    torch.testing.assert_close(bound.value, masked.value)
    assert bound.terms["joint/b"].eq(0).all() and bound.terms["joint/a"].ne(0).all()


def test_mvtcaes_alpha_is_its_authors_by_default():
    assert MvtcaeElbo(with_fusion("product")[0]).alpha == 5 / 6


@pytest.mark.parametrize(
    ("objective", "coefficients"),
    [(MvtcaeElbo, ((2 - 5 / 6) / 2, 0, 0.6 / 6, 0.6 * 5 / 12)), (CrmvaeElbo, (1 / 6, 1 / 6, 0.2, 0.2))],
)
def test_m_is_the_number_of_modalities(objective, coefficients):
    vae, *_ = with_fusion("product", 2)
    assert tuple(objective(vae).coefficients(0.6)) == pytest.approx(coefficients)
