"""JMVAE's objective, and its students', against exact posteriors and formulas written out."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from common.data import Batch
from common.errors import InputError
from common.objectives import JmvaeElbo
from tests.helpers.digits import BETA, LAMBDAS, certain_joint, experts_by_hand, log_p_by_hand, mnist_inputs, model_of
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import D, draw, exact_log_p, exact_posterior, standard_error
from tests.helpers.objectives import gradients_agree, kl_to_prior, repeated


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


def test_jmvaes_alpha_is_suzukis_by_default():
    assert JmvaeElbo(model_of("jmvae")).alpha == 0.1


def test_jmvae_refuses_incomplete_examples():
    model = model_of("jmvae")
    inputs = mnist_inputs(3)
    lacking = {"image": inputs["image"], "text": torch.tensor([3, -1, 2])}
    mask = torch.tensor([[True, True], [True, True], [False, True]])
    for given in (lacking, {"image": inputs["image"]}, Batch(inputs, mask), Batch({"text": inputs["text"]})):
        with pytest.raises(InputError, match="need every modality of every example"):
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
