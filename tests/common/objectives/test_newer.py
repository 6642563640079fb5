"""CoDE-VAE's entropy, MMVM's mixture, and IDMVAE's losses of shared and of swapped latents."""

import math
from functools import partial
from types import SimpleNamespace

from common.data import Batch, Examples
from common.data.splits import unpair
from common.errors import InputError
from common.likelihoods import CategoricalLikelihood
from common.models.objectives import make_objective
from common.objectives import CodeElbo, DregIwaeElbo, IdmvaeElbo, IwaeElbo, MmvaeElbo, MmvmElbo, StlElbo
from common.objectives.disentangled import TEMPERATURE, info_nce
from tests.golden.test_objectives import inputs_of, model_of
from tests.helpers.fusions import with_fusion
from tests.helpers.linear_gaussian import draw
from training.steps import Step

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

OPTIONS = SimpleNamespace(K=1, looser=True, dreg=None, approx_m=0, alpha=0.2)


def seeded(objective, inputs):
    torch.manual_seed(0)
    return objective.loss(inputs)


def test_code_adds_the_entropy_of_its_weights_to_the_loss_alone():
    model = model_of("code", "gaussian")
    inputs = inputs_of(model, complete=False)
    plain, bound = seeded(MmvaeElbo(model), inputs)
    pi = model.variational_strategy.logits.softmax(dim=0)
    for objective, c in ((make_objective("code", model, OPTIONS), 1000), (CodeElbo(model, entropy=3.0), 3)):
        loss, found = seeded(objective, inputs)
        torch.testing.assert_close(loss, plain + c * (pi * pi.log()).sum())
        torch.testing.assert_close(found.value, bound.value)
    with pytest.raises(InputError, match="needs a mixture with learned weights, the fusion code: take MmvaeElbo"):
        CodeElbo(model_of("mopoe", "gaussian"))


def test_codes_weights_without_entropy_go_to_the_better_subset_and_with_it_stay():
    model, weights, scales = with_fusion("code", 2)
    inputs, logits = draw(weights, scales, 64), model.variational_strategy.logits
    for p in model.parameters():
        p.requires_grad_(p is logits)
    learned = []
    for entropy in (0.0, 1000.0):
        logits.data.zero_()
        objective, optimizer = CodeElbo(model, entropy=entropy), torch.optim.Adam([logits], lr=0.1)
        for _ in range(50):
            optimizer.zero_grad()
            seeded(objective, inputs)[0].backward()
            optimizer.step()
        learned.append(Categorical(logits=logits.detach()))
    assert learned[0].probs.argmax() == 2 and learned[0].probs[2] > 0.8, "the subset of both modalities"
    assert learned[1].entropy() > math.log(3) - 0.01


@pytest.mark.parametrize("alpha", [0.0, 0.2])
def test_mmvm_to_the_mixture_by_other_samples_and_below_the_pairs(alpha):
    """The pairwise KLs bound those to the mixture from above."""
    model = model_of("moe", "gaussian")
    inputs = {name: x[:1] for name, x in inputs_of(model, complete=True).items()}
    for p in (*model.parameters(),):
        p.requires_grad_(False)
    n = 200_000
    many = {name: x.expand(n, -1) for name, x in inputs.items()}
    by_samples, by_pairs = (MmvmElbo(model, alpha, to_mixture=to_mixture) for to_mixture in (True, False))
    torch.manual_seed(0)
    terms = by_samples.bound(many).terms
    between = terms["mixture/kl between"]
    experts = model.posterior(inputs).components  # batch shape (1, 3)
    z = experts.sample((n,))  # (n, 1, 3, D)
    log_q = experts.log_prob(z.unsqueeze(-2).movedim(2, 0).flatten(0, 1).view(3, n, 1, 1, -1)).squeeze(2)  # (3, n, 3)
    expected = sum((log_q[m, :, m] - log_q[m].logsumexp(dim=-1) + math.log(3)).mean() for m in range(3))
    assert abs(between.mean() - expected) < 4 * between.std() * math.sqrt(2 / n)
    pairs = by_pairs.bound(inputs).terms["mixture/kl between"]
    assert between.mean() < pairs, "the convexity of the KL"
    torch.testing.assert_close(terms["mixture/kl"][:1], by_pairs.bound(inputs).terms["mixture/kl"])


@pytest.mark.parametrize(
    ("fusion", "objective", "plain"), [("code", CodeElbo, MmvaeElbo), ("mmvae+", IdmvaeElbo, IwaeElbo)]
)
def test_a_penalty_counts_once_for_a_batch_whatever_its_rows_and_by_the_share_of_its_process(fusion, objective, plain):
    model = model_of(fusion, "gaussian")
    inputs = inputs_of(model, complete=True)
    batch = Batch(inputs)
    doubled = Batch({name: x.repeat(2, 1) for name, x in inputs.items()})  # two rows for each of 6 examples
    doubled.mask = torch.ones(12, model.n_columns, dtype=torch.bool)
    doubled.mask[6:] = False

    def gradient(objective, batch, share):
        model.zero_grad()
        torch.manual_seed(0)
        objective.backward(batch, 1.0, 6, share)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    objective, plain = objective(model), plain(model)
    of_penalty = gradient(objective, batch, 1.0) - gradient(plain, batch, 1.0)
    assert of_penalty.norm() > 1
    torch.testing.assert_close(gradient(objective, batch, 0.25) - gradient(plain, batch, 0.25), of_penalty / 4)
    if fusion == "code":  # without draws of its own
        torch.testing.assert_close(gradient(objective, doubled, 1.0) - gradient(plain, doubled, 1.0), of_penalty)


def test_a_step_counts_a_penalty_once_for_examples_of_several_rows():
    """Of celeba --model code --paired-fraction 0.1: an example is a row for each modality, and a pair."""
    model = model_of("code", "gaussian")
    inputs = inputs_of(model, complete=True)
    examples = unpair(Examples(inputs, incomplete=()), 0.5, seed=0, unimodal=False)
    logits, steps = model.variational_strategy.logits, []
    logits.data = torch.linspace(-1, 1, len(logits), dtype=torch.float64)
    for entropy in (0.0, 1.0):
        torch.manual_seed(0)
        Step(CodeElbo(model, entropy=entropy), torch.optim.Adam(model.parameters(), lr=0.0, fused=True))(
            examples, torch.arange(6), 6, 1.0
        )
        steps.append(logits.grad.clone())
    (expected,) = torch.autograd.grad(-Categorical(logits=logits).entropy(), logits)
    torch.testing.assert_close(steps[1] - steps[0], expected)


def test_mmvms_kls_are_means_over_the_modalities_that_an_example_has():
    """By torch's KLs of Gaussians; examples have one, two or three modalities."""
    model = model_of("moe", "gaussian")
    inputs = inputs_of(model, complete=True)
    mask = torch.tensor([[True] * 3, [True, False, True], [False, True, False]] * 2)
    terms = MmvmElbo(model, 0.2).bound(Batch(inputs, mask)).terms
    experts = [model.posterior({name: inputs[name]}).components for name in model.modalities]
    q = [Independent(Normal(e.mean[:, 0], e.logvar[:, 0].div(2).exp()), 1) for e in experts]
    mean, logvar = model.prior.params
    prior = Independent(Normal(mean.expand_as(q[0].mean), logvar.div(2).exp()), 1)
    for i, row in enumerate(mask.tolist()):
        seen = [m for m, there in enumerate(row) if there]
        between = sum(kl_divergence(q[m], q[n])[i] for m in seen for n in seen) / len(seen)
        torch.testing.assert_close(terms["mixture/kl between"][i], between)
        torch.testing.assert_close(terms["mixture/kl"][i], sum(kl_divergence(q[m], prior)[i] for m in seen))


def test_mmvm_refuses_what_it_has_no_meaning_for():
    with pytest.raises(InputError, match="alpha must lie between 0 and 1, it is 1.5"):
        MmvmElbo(model_of("moe", "gaussian"), alpha=1.5)
    with pytest.raises(InputError, match="one expert for each modality, no sets and no private latents: take Mmvae"):
        MmvmElbo(model_of("moe", "gaussian", private=True))


def test_info_nce_by_hand():
    """Two modalities and three examples, of which one lacks the second; the others are told apart by an angle."""
    u = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [5.0, 5.0]], [[2.0, 0.0], [3.0, 3.0], [1.0, 0.0]]], dtype=torch.float64)
    present = torch.tensor([[True, True, True], [True, True, False]])
    half = math.sqrt(0.5)
    cosines = torch.tensor([[1.0, half], [0.0, half]], dtype=torch.float64) / TEMPERATURE
    expected = -(cosines.log_softmax(dim=1).diagonal().sum() + _second_to_first(half)) / 4
    torch.testing.assert_close(info_nce(u, present), expected)
    assert info_nce(u, present & False) == 0


def _second_to_first(half):
    """log-probabilities that the second modality's two examples find their own first one among all three."""
    cosines = torch.tensor([[1.0, 0.0, half], [half, half, 1.0]], dtype=torch.float64) / TEMPERATURE
    return cosines.log_softmax(dim=1)[[0, 1], [0, 1]].sum()


def test_idmvae_is_mmvae_plus_bound_and_two_losses():
    model = model_of("mmvae+", "gaussian")
    inputs = inputs_of(model, complete=False)
    plain, bound = seeded(make_objective("iwae", model, OPTIONS), inputs)
    objective = make_objective("idmvae", model, OPTIONS)
    assert (objective.contrast, objective.swaps) == (80, 20)
    whole, found = seeded(objective, inputs)
    torch.testing.assert_close(found.value, bound.value)
    parts = [seeded(IdmvaeElbo(model, 1, True, contrast=c, swaps=s), inputs)[0] - plain for c, s in ((1, 0), (0, 1))]
    assert all(part > 0.01 for part in parts)
    torch.testing.assert_close(whole, plain + 80 * parts[0] + 20 * parts[1])


def test_swapped_latents_are_missed_by_their_squares():
    """All that is decoded is 0, and so is what is found again; the private latents are those of the row before."""
    model = model_of("mmvae+", "gaussian")
    objective = IdmvaeElbo(model)
    n, (modality, *_) = 4, model.private
    d = model.n_shared + len(modality.private_latents)
    for name in model.modalities:
        encoder, decoder = model.encoder[name], model.decoder[model.modality[name].decoder.key]
        with torch.no_grad():
            encoder.linear.weight.zero_()
            encoder.linear.bias.zero_()
            decoder.weight.zero_()
            decoder.bias.zero_()
    z = torch.randn(3, n, model.latent_dim, dtype=torch.float64)
    everything = torch.ones(3, n, dtype=torch.bool)
    swapped = torch.cat([z[..., : model.n_shared], z[..., model.n_shared :].roll(1, dims=1)], dim=-1)
    expected = sum(x.part_of(swapped[m]).square().sum() / (n * d) for m, x in enumerate(model.private))
    torch.testing.assert_close(objective.lost(z, everything), expected)
    only_two = everything.clone()
    only_two[:, 2:] = False  # of the pairs (0, 3), (1, 0), (2, 1), (3, 2) one is left
    expected = sum(x.part_of(swapped[m, 1]).square().sum() / d for m, x in enumerate(model.private))
    torch.testing.assert_close(objective.lost(z, only_two), expected)


def test_what_is_decoded_of_swapped_latents_is_found_again():
    """Decoders show one shared latent and both private ones; encoders read these from what is decoded, and 0 else."""
    model = model_of("mmvae+", "gaussian")
    seen = [0, model.n_shared, model.n_shared + 1]  # of a modality's own latents
    for name in model.modalities:
        encoder, decoder = model.encoder[name].linear, model.decoder[model.modality[name].decoder.key]
        with torch.no_grad():
            for p in (*encoder.parameters(), *decoder.parameters()):
                p.zero_()
            for feature, latent in enumerate(seen):
                decoder.weight[feature, latent] = encoder.weight[latent, feature] = 1
    z = torch.randn(3, 4, model.latent_dim, dtype=torch.float64)
    present = torch.tensor([[True], [True], [False]]).expand(3, 4)  # the third is Bernoulli: its mean is no copy
    missed = sum(z[m, :, 1 : model.n_shared].square().sum() for m in (0, 1))
    d = model.n_shared + len(model.private[0].private_latents)
    torch.testing.assert_close(IdmvaeElbo(model).lost(z, present), missed / (4 * d))


def test_swapped_latents_are_found_again_as_they_are():
    """Their own gradient is stopped: it would draw them to what is found."""
    objective = IdmvaeElbo(model_of("mmvae+", "gaussian"))
    z = torch.randn(3, 4, objective.model.latent_dim, dtype=torch.float64, requires_grad=True)
    lost = objective.lost(z, torch.ones(3, 4, dtype=torch.bool))
    encoder = next(objective.model.encoder.parameters())
    of_z, of_encoder = torch.autograd.grad(lost, [z, encoder], allow_unused=True)
    assert of_z is None and of_encoder.abs().sum() > 0


def test_idmvae_refuses_classes_and_other_posteriors():
    with pytest.raises(
        InputError, match="needs private latents of each modality and auxiliary priors: take the fusion"
    ):
        IdmvaeElbo(model_of("moe", "gaussian", private=True))
    model = model_of("mmvae+", "gaussian")
    model.likelihood["b"] = CategoricalLikelihood()
    with pytest.raises(InputError, match="IDMVAE decodes values with gradients, and b has classes: take iwae"):
        IdmvaeElbo(model)


@pytest.mark.parametrize("fusion", ["hoelder", "code"])
@pytest.mark.parametrize("objective", [partial(MmvaeElbo, draw_one=True), DregIwaeElbo, StlElbo])
def test_objectives_without_the_gradient_of_the_weights_refuse_weights_that_are_learned(fusion, objective):
    with pytest.raises(InputError, match="leaves out the gradient of the weights of the mixture's components, which"):
        objective(model_of(fusion, "gaussian"))
