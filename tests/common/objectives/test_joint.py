"""What JMVAE, its students and JNF train, and what they, MVTCAE and CRMVAE bound. (Values: test_closed_forms.py.)"""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from common.objectives import JmvaeElbo, JnfElbo
from common.variational_posteriors import JointFlowsPosterior
from tests.common.distributions.test_flows import bent
from tests.helpers.digits import mnist_inputs, model_of
from tests.helpers.expected import Known
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p, standard_error
from tests.helpers.objectives import kl_to_prior, repeated
from tests.helpers.private_latents import private_linear_gaussian


def test_what_jmvae_and_its_students_train():
    """The term of alpha trains no decoder, and with students no joint encoder; without it no encoder of one."""
    model, inputs = model_of("jmvae"), mnist_inputs()

    def gradients(*args, **options):
        torch.manual_seed(0)
        model.zero_grad()
        JmvaeElbo(model, *args, **options)(inputs).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    jmvae, student, teacher = gradients(0.7), gradients(0.7, students=True), gradients(0.0)
    for name, gradient in jmvae.items():
        alone = name.startswith(("encoder.image.", "encoder.text."))
        assert alone != bool(teacher[name].any()), name
        assert gradient.equal(teacher[name]) == name.startswith("decoder"), name
        torch.testing.assert_close(student[name], gradient if alone else teacher[name], msg=name)


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


@pytest.mark.parametrize("by", [0.3, 0.8])
def test_jnf_bounds_log_p(by):
    """With flows that bend, and a joint posterior that is off; without the flows' part it is the joint ELBO."""
    model, weights, scales = with_fusion("jnf")
    model.variational_posterior = JointFlowsPosterior([bent(D, seed, by) for seed in range(2)])
    with torch.no_grad():
        model.encoder["a,b"].log_precision.add_(0.3)
        one = draw(weights, scales, 1)
        value, terms = JnfElbo(model).bound(repeated(one, 20_000))
    log_p, error = exact_log_p(weights, scales, one, ("a", "b")).item(), 5 * standard_error(value)
    elbo = value + terms["a/kl from joint"] + terms["b/kl from joint"]
    assert value.mean() < elbo.mean() < log_p + error
    assert value.mean() < log_p - error, "the comparison is tight"
    torch.testing.assert_close(elbo, terms["joint/a"] + terms["joint/b"] - terms["joint/kl"])


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


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize(("obj", "alpha"), [("mvtcae", 0.0), ("mvtcae", 5 / 6), ("crmvae", 0.0)])
def test_what_bounds_log_p(obj, alpha, private):
    """The expectations of MVTCAE with alpha 0 are below log p(X); its others, and CRMVAE's, are not."""
    model, weights, scales = private_linear_gaussian("product") if private else with_fusion("product", 3)
    names, above = tuple(weights), []
    for _ in range(20):
        one = draw(weights, scales, 1)
        known = Known(model, "product", weights, scales, one)
        value = known.expected(obj, names, dict.fromkeys(names, 1.0), 1.0, alpha)
        above.append(value > exact_log_p(weights, scales, one, names).item())
    assert any(above) == (obj == "crmvae" or alpha > 0)
