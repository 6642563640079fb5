"""What JMVAE, its students and JNF train, and what they, MVTCAE and CRMVAE bound. (Values: test_closed_forms.py.)"""

from common.objectives import CrmvaeElbo, JmvaeElbo, JnfElbo
from tests.helpers.digits import mnist_inputs, model_of
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw
from tests.helpers.objectives import kl_to_prior

import pytest
import torch
from torch.distributions import Normal


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


@pytest.mark.parametrize("m", [2, 3, 4])
def test_crmvaes_m_counts_all_modalities_and_absent_ones(m):
    model, weights, scales = with_fusion("product", m)
    inputs = draw(weights, scales, 5)
    inputs["a"][1:3] = torch.nan
    value, terms = CrmvaeElbo(model).bound(inputs, 0.3)
    kls = {name: term for name, term in terms.items() if name.split("/")[1].startswith("kl")}
    log_p = sum(term for name, term in terms.items() if name not in kls)
    assert len(kls) == m + 1
    torch.testing.assert_close(value, log_p / (2 * (m + 1)) - 0.3 * sum(kls.values()) / (m + 1))
