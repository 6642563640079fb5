"""Private latents (DMVAE, Lee & Pavlovic 2021, arXiv 2012.13024), on a model whose every quantity is known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from common.checkpoints import load
from common.data import Batch
from common.encoders_decoders import SharedNetwork, SplitLinearLayer
from common.errors import InputError
from common.estimators import log_marginal
from common.io import save_tensors
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective
from common.objectives import ArElbo, DregIwaeElbo, IwaeElbo, MmvaeElbo, MvaeElbo, StandardElbo
from common.variational_strategies import SetStrategy
from tests.helpers.fusions import learns_prior
from tests.helpers.gradients import gradients, z_scores
from tests.helpers.linear_gaussian import Decoder, Gaussian, draw, exact_log_p, exact_posterior, standard_error
from tests.helpers.objectives import gradients_agree, kl_to_prior, repeated
from tests.helpers.private_latents import LATENT_DIM, N_SHARED, PLACES, PRIVATE, SUBSETS, private_linear_gaussian

NAMES = ("a", "b", "c")
PATTERNS = [("a", "b", "c"), ("b",), ("a", "c"), ("c",), ("a",), ("a", "b")]
PER_LATENT = ("gaussian", "laplace", "softplus-laplace", "softplus-normal", "student-t")
FUSED = [  # every fusion of every family that private latents exist for
    (fusion, family)
    for fusion in ("poe", "product", "quotient", "moe", "mopoe", "mopoe-published")
    for family in PER_LATENT
    if FUSIONS[fusion].exists(FAMILIES[family])
]


def mask_of(patterns):
    return torch.tensor([[name in pattern for name in NAMES] for pattern in patterns])


def mixed(matrices, scales):
    """An example of each pattern, NaN where it lacks a modality, and the examples before that."""
    inputs = draw(matrices, scales, len(PATTERNS))
    mask = mask_of(PATTERNS)
    return {name: x.masked_fill(~mask[:, [m]], torch.nan) for m, (name, x) in enumerate(inputs.items())}, inputs


def rows(inputs, i):
    return {name: x[i : i + 1] for name, x in inputs.items()}


def with_wrong_posterior(model):
    """An encoder that is off, in its shared and in its private latents, so that the gaps of bounds are wide."""
    with torch.no_grad():
        model.encoder["a"].shared.precision *= 0.3
        model.encoder["b"].private.precision *= 3
    return model


def test_a_modality_reads_the_shared_latents_and_its_own():
    model, *_ = private_linear_gaussian()
    z = torch.arange(float(LATENT_DIM))[None]
    parts = {name: modality.part_of(z)[0].tolist() for name, modality in model.modality.items()}
    assert parts == {"a": [0, 1, 2, 3], "b": [0, 1, 4], "c": [0, 1]}
    assert [modality.name for modality in model.private] == ["a", "b"]


@pytest.mark.parametrize("given", SUBSETS)
def test_every_subsets_posterior_is_exact(given):
    model, matrices, scales = private_linear_gaussian()
    inputs = draw(matrices, scales, 5)
    mean, variance = exact_posterior(matrices, scales, inputs, given)
    for q in (model.posterior(inputs, given), model.posterior({name: inputs[name] for name in given})):
        torch.testing.assert_close(q.mean, mean)
        torch.testing.assert_close(q.variance, variance)
    for name in set(NAMES) - set(given):
        assert (q.mean[:, PLACES[name]] == 0).all() and (q.variance[:, PLACES[name]] == 1).all(), "the prior, exactly"


def test_nothing_given_is_the_prior():
    model, matrices, scales = private_linear_gaussian()
    inputs = draw(matrices, scales, 3)
    q = model.posterior(Batch(inputs, torch.zeros(3, 3, dtype=torch.bool)))
    for posterior in (q, model.posterior(inputs, ())):
        assert posterior.mean.shape == (3, LATENT_DIM)
        assert (posterior.mean == 0).all() and (posterior.variance == 1).all()


def test_a_batch_may_mix_patterns():
    model, matrices, scales = private_linear_gaussian()
    with_nan, inputs = mixed(matrices, scales)
    expected = [exact_posterior(matrices, scales, rows(inputs, i), pattern) for i, pattern in enumerate(PATTERNS)]
    masked = Batch(inputs, mask_of(PATTERNS))
    for batch in (with_nan, masked, Batch(inputs, mask_of(PATTERNS), every_row=True)):
        q = model.posterior(batch)
        torch.testing.assert_close(q.mean, torch.cat([mean for mean, _ in expected]))
        torch.testing.assert_close(q.variance, torch.cat([variance for _, variance in expected]))


@pytest.mark.parametrize("pattern", SUBSETS)
def test_elbo_of_the_exact_posterior_is_log_p(pattern):
    model, matrices, scales = private_linear_gaussian()
    one, n = draw(matrices, scales, 1), 10_000
    batch = Batch(repeated(one, n), mask_of([pattern]).expand(n, -1))
    with torch.no_grad():
        value, terms = StandardElbo(model).bound(batch)
    log_p = exact_log_p(matrices, scales, one, pattern).item()
    assert value.mean().item() == pytest.approx(log_p, abs=5 * standard_error(value))
    kl = kl_to_prior(*exact_posterior(matrices, scales, one, pattern))
    torch.testing.assert_close(terms["joint/kl"], kl.expand(n))


@pytest.mark.parametrize("objective", [IwaeElbo, DregIwaeElbo])
def test_importance_weights_of_the_exact_posterior_have_no_variance(objective):
    model, matrices, scales = private_linear_gaussian()
    with_nan, inputs = mixed(matrices, scales)
    value = objective(model, K=3).bound(with_nan).value
    for i, pattern in enumerate(PATTERNS):
        torch.testing.assert_close(value[i : i + 1], exact_log_p(matrices, scales, rows(inputs, i), pattern))


@pytest.mark.slow
def test_elbo_below_iwae_below_log_p():
    model, matrices, scales = private_linear_gaussian()
    with_wrong_posterior(model)
    one = draw(matrices, scales, 1)
    inputs = repeated(one, 4000)
    with torch.no_grad():
        bounds = [StandardElbo(model).bound(inputs).value] + [IwaeElbo(model, K).bound(inputs).value for K in (5, 100)]
    log_p = exact_log_p(matrices, scales, one, NAMES).item()
    means, errors = [x.mean().item() for x in bounds], [standard_error(x) for x in bounds]
    assert means[0] + 5 * errors[0] < means[1] - 5 * errors[1]
    assert means[1] + 5 * errors[1] < means[2] - 5 * errors[2]
    assert means[2] < log_p + 5 * errors[2]


@pytest.mark.parametrize("target", SUBSETS)
def test_log_marginal_is_exact(target):
    model, matrices, scales = private_linear_gaussian()
    inputs = draw(matrices, scales, 4)
    expected = exact_log_p(matrices, scales, inputs, target)
    torch.testing.assert_close(log_marginal(model, inputs, target, n_samples=3), expected)


@pytest.mark.parametrize(("target", "given"), [(("a",), ("a", "b")), (("a", "b"), ("a",)), (("b",), ())])
def test_log_marginal_with_another_proposal_converges(target, given):
    model, matrices, scales = private_linear_gaussian()
    inputs = draw(matrices, scales, 4)
    value = log_marginal(model, inputs, target, given, n_samples=50_000)
    torch.testing.assert_close(value, exact_log_p(matrices, scales, inputs, target), rtol=0, atol=0.15)


def test_terms_of_mvaes_elbo():
    """Each subset's ELBO is log p of it; its KL counts the private latents of what is given, and of nothing else."""
    model, matrices, scales = private_linear_gaussian()
    one, n = draw(matrices, scales, 1), 10_000
    with torch.no_grad():
        value, terms = MvaeElbo(model, weights={"a": 3.0}).bound(repeated(one, n), beta=0.4)
    subsets = {"a": ("a",), "b": ("b",), "c": ("c",), "joint": NAMES}
    total = 0
    for subset, names in subsets.items():
        mean, variance = exact_posterior(matrices, scales, one, names)
        torch.testing.assert_close(terms[f"{subset}/kl"], kl_to_prior(mean, variance).expand(n))
        elbo = sum(terms[f"{subset}/{name}"] for name in names) - terms[f"{subset}/kl"]
        log_p = exact_log_p(matrices, scales, one, names).item()
        assert elbo.mean().item() == pytest.approx(log_p, abs=5 * standard_error(elbo))
        weighted = sum({"a": 3.0}.get(name, 1.0) * terms[f"{subset}/{name}"] for name in names)
        total = total + weighted - 0.4 * terms[f"{subset}/kl"]
    torch.testing.assert_close(value, total)


def test_mvaes_elbo_with_random_subsets_and_missing_modalities():
    model, matrices, scales = private_linear_gaussian()
    with_nan, _ = mixed(matrices, scales)
    value, terms = MvaeElbo(model, K=1).bound(with_nan)
    assert value.isfinite().all()
    assert terms["joint/b"].nonzero().flatten().tolist() == [0, 5], "alone, b counts in its own term"
    assert terms["b/b"].nonzero().flatten().tolist() == [0, 1, 5]


@pytest.mark.parametrize("pattern", [NAMES, ("a", "b"), ("c",)])
def test_the_chain_rule_of_exact_posteriors_is_log_p(pattern):
    model, matrices, scales = private_linear_gaussian()
    one, n = draw(matrices, scales, 1), 20_000
    with torch.no_grad():
        value = ArElbo(model).bound(Batch(repeated(one, n), mask_of([pattern]).expand(n, -1))).value
    log_p = exact_log_p(matrices, scales, one, pattern).item()
    assert value.mean().item() == pytest.approx(log_p, abs=5 * standard_error(value))


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("b", "a"), ("c", "a")])
def test_cross_generation_draws_the_others_private_latents_from_the_prior(source, target):
    """decode(q(z|x_source))[target] has the exact mean and covariance of x_target given x_source."""
    model, matrices, scales = private_linear_gaussian()
    one, n = draw(matrices, scales, 1), 100_000
    z = model.posterior({source: one[source]}).sample((n,)).squeeze(1)
    x = model.decode(z, [target])[target].sample()  # (n, N)
    both = torch.cat([matrices[source], matrices[target]])
    noise = [torch.full((len(matrices[name]),), scales[name] ** 2, dtype=torch.float64) for name in (source, target)]
    covariance = both @ both.T + torch.cat(noise).diag()
    k = len(matrices[source])
    gain = covariance[k:, :k] @ torch.linalg.inv(covariance[:k, :k])
    mean, conditional = one[source] @ gain.T, covariance[k:, k:] - gain @ covariance[:k, k:]
    variance = conditional.diag()
    assert ((x.mean(dim=0) - mean[0]).abs() < 5 * (variance / n).sqrt()).all()
    error = ((torch.outer(variance, variance) + conditional.square()) / n).sqrt()
    assert ((x.T.cov() - conditional).abs() < 5 * error).all()


def test_generate_and_reconstruct():
    model, matrices, scales = private_linear_gaussian()
    assert {name: x.shape for name, x in model.generate(7).items()} == {"a": (7, 5), "b": (7, 4), "c": (7, 3)}
    inputs = draw(matrices, scales, 3)
    for given in SUBSETS:
        mean, _ = exact_posterior(matrices, scales, inputs, given)
        for name, x in model.reconstruct(inputs, given).items():
            torch.testing.assert_close(x, mean @ matrices[name].T)
            if name not in given:  # its private latents lie at the prior's mean
                torch.testing.assert_close(x, mean[:, :N_SHARED] @ matrices[name][:, :N_SHARED].T)


def options(**changes):
    return SimpleNamespace(**{"K": 3, "looser": False, "dreg": None, "approx_m": 1, "alpha": 0.1} | changes)


def assert_gradients_reach(objective, inputs, exempt=()):
    loss, bound = objective.loss(inputs, 0.5)
    assert bound.value.isfinite().all()
    loss.backward()
    for name, parameter in objective.model.named_parameters():
        if parameter.requires_grad and name not in exempt:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize(
    ("obj", "fusion", "family"),
    [
        (obj, *fused)
        for obj, record in OBJECTIVES.items()
        for fused in FUSED
        if fused[0] in record.fusions and not record.gaussian  # mmJSD, which has no private latents
    ],
)
def test_gradients_reach_every_parameter(obj, fusion, family):
    model, matrices, scales = private_linear_gaussian(fusion, family, learn_prior=learns_prior(fusion, family))
    inputs = draw(matrices, scales, 6)
    batches, unused = (inputs, mixed(matrices, scales)[0]), ()
    if family == "laplace":  # b's only private latent has the scale 1
        unused = {*unused, "encoder.b.private.precision"}
    for batch in batches:
        model.zero_grad()
        assert_gradients_reach(make_objective(obj, model.train(), options()), batch, unused)


@pytest.mark.parametrize("fusion", ["poe", "moe", "mopoe", "mopoe-published"])
def test_gradient_against_finite_differences(fusion):
    model, matrices, scales = private_linear_gaussian(fusion, names=("a", "b"))
    inputs = draw(matrices, scales, 3)
    inputs["b"][0], inputs["a"][1] = torch.nan, torch.nan
    objective = StandardElbo if fusion == "poe" else MmvaeElbo
    assert gradients_agree(objective(model, weights={"a": 2.0}), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("fusion", ["poe", "moe"])
def test_dregs_gradient_is_iwaes_in_expectation(fusion):
    model, matrices, scales = private_linear_gaussian(fusion, names=("a", "b"))
    with_wrong_posterior(model)
    inputs = draw(matrices, scales, 1)
    iwae, dreg = IwaeElbo(model, K=4), DregIwaeElbo(model, K=4)
    scores = z_scores(*(gradients(objective, inputs, n_chunks=60, n_rows=300) for objective in (iwae, dreg)))
    assert scores.max() < 5 and scores.square().mean() < 2.5


@pytest.mark.parametrize(("fusion", "family"), [fused for fused in FUSED if FUSIONS[fused[0]].is_mixture])
def test_components_share_the_private_posterior(fusion, family):
    model, matrices, scales = private_linear_gaussian(fusion, family)
    if family != "gaussian":  # a prior whose scales are not 1
        nn.init.constant_(model.prior.scale, 0.3)
    inputs, _ = mixed(matrices, scales)
    q = model.posterior(inputs)
    locations, deviations = q.component_distribution.mean, q.component_distribution.stddev  # (B, T, D)
    prior = model.prior()
    for i, pattern in enumerate(PATTERNS):
        for name, place in PLACES.items():
            if name in pattern:
                alone = model.posterior(rows(inputs, i), (name,))
                mean, scale = alone.mean[0, place], alone.stddev[0, place]
            else:
                mean, scale = prior.mean.expand(LATENT_DIM)[place], prior.stddev.expand(LATENT_DIM)[place]
            torch.testing.assert_close(locations[i, :, place], mean.expand(locations.shape[1], -1))
            # a Laplace posterior's smallest scale is 1e-6, its prior's 0
            torch.testing.assert_close(deviations[i, :, place], scale.expand(locations.shape[1], -1), rtol=0, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", PER_LATENT)
def test_a_mixtures_density_and_bounds(family):
    """log q(z|x_S) is the shared mixture's density times the private ones'; ELBO <= IWAE(1) <= IWAE(50) <= log p."""
    model, matrices, scales = private_linear_gaussian("moe", family, names=("a", "b"))
    one = draw(matrices, scales, 1)
    q = model.posterior(one)
    z = q.sample((11,))  # (11, 1, D)
    component = q.component_distribution.base_dist.log_prob(z.unsqueeze(-2))  # (11, 1, T, D)
    shared = component[..., :N_SHARED].sum(dim=-1).logsumexp(dim=-1) - torch.tensor(2.0).log()
    torch.testing.assert_close(q.log_prob(z), shared + component[..., 0, N_SHARED:].sum(dim=-1))
    inputs = repeated(one, 4000)
    with torch.no_grad():
        bounds = [MmvaeElbo(model).bound(inputs).value] + [IwaeElbo(model, K).bound(inputs).value for K in (1, 50)]
        estimate = log_marginal(model, one, ("a", "b"), n_samples=50_000)
    means, errors = [x.mean().item() for x in bounds], [standard_error(x) for x in bounds]
    assert means[0] < means[1] + 5 * (errors[0] + errors[1])
    assert means[1] + 5 * errors[1] < means[2] - 5 * errors[2]
    assert means[2] < estimate.item() + 5 * errors[2] + 0.05
    if family == "gaussian":  # the prior N(0, I) is the linear-Gaussian model's
        torch.testing.assert_close(estimate, exact_log_p(matrices, scales, one, ("a", "b")), rtol=0, atol=0.1)


def test_a_state_dict_comes_back(tmp_path):
    model, matrices, scales = private_linear_gaussian("moe", "softplus-laplace", learn_prior=True)
    with_wrong_posterior(model)
    save_tensors(tmp_path / "c.pth.tar", {"state_dict": model.state_dict()})
    other, *_ = private_linear_gaussian("moe", "softplus-laplace", learn_prior=True)
    other.load_state_dict(load(tmp_path / "c.pth.tar")["state_dict"])
    inputs = draw(matrices, scales, 2)
    z = torch.randn(3, 2, LATENT_DIM, dtype=torch.float64)
    assert other.posterior(inputs).log_prob(z).equal(model.posterior(inputs).log_prob(z))


# Refusals


def assembled(posterior="gaussian", private=PRIVATE, encoder=None, fusion="poe", latent_dim=LATENT_DIM):
    heads = (latent_dim,) * FAMILIES[posterior].n_params
    encoder = encoder or {name: nn.Sequential(SplitLinearLayer(4, heads)) for name in ("a", "b")}
    names = dict.fromkeys(name for key in encoder for name in key.split(","))
    return VAE(
        fusion,
        encoder,
        {name: Decoder(torch.zeros(4, latent_dim)) for name in names},
        GroupedLikelihood(**{name: Gaussian(1.0) for name in names}),
        latent_dim=latent_dim,
        posterior=posterior,
        private=private,
    )


def shared_encoder(n):
    return SharedNetwork(n, nn.Linear(4, 8), SplitLinearLayer(8, (LATENT_DIM, LATENT_DIM)))


@pytest.mark.parametrize(("posterior", "fusion"), [("vmf", "poe"), ("ebm", "poe"), ("laplace-normal", "moe")])
def test_families_without_parameters_for_private_latents_are_refused(posterior, fusion):
    with pytest.raises(InputError, match="need a family with parameters for them .gaussian, .*, and no flows"):
        assembled(posterior, fusion=fusion)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_families_that_the_refusal_names_are_those_that_exist(family):
    """And no family says that it has parameters for private latents where those move shared ones."""
    posterior = FAMILIES[family].posterior((3, 1))
    assert posterior.per_latent == (family in PER_LATENT)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"private": {"a": 3, "b": 2}}, "5 private latents leave none of 5 to share: raise latent_dim"),
        ({"private": {"a": 9}}, "9 private latents leave none of 5 to share: raise latent_dim"),
        ({"private": {"d": 1}}, r"not sets \(got d\)"),
        ({"private": {"a": 1}, "encoder": {"a": shared_encoder(3), "b": nn.Linear(4, 2)}}, r"not sets \(got a\)"),
        (
            {"private": {"a": 1}, "encoder": {"a,b": shared_encoder(2)}},
            r"an encoder of their own .* \(got a\)",
        ),
    ],
)
def test_private_latents_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        assembled(**changes)


def test_a_joint_decoder_is_refused():
    """It would decode all that it decodes from the private latents of one."""
    encoder = {name: nn.Linear(4, 2) for name in ("a", "b")}
    with pytest.raises(InputError, match="private latents need a decoder for each modality .got one for all of a,b"):
        VAE("poe", encoder, {"a,b": nn.Linear(2, 8)}, GroupedLikelihood(), latent_dim=LATENT_DIM, private=PRIVATE)


@pytest.mark.parametrize(
    ("fusion", "needed"), [("joint", "an encoder for each modality .got one for all of a,b"), ("jnf", "a family")]
)
def test_a_joint_encoder_is_refused(fusion, needed):
    """It would have to give the private latents of all that it sees."""
    encoder = {name: nn.Linear(4, 2) for name in ("a", "b")} | {"a,b": nn.Bilinear(4, 4, 2)}
    with pytest.raises(InputError, match=f"private latents need {needed}"):
        assembled(encoder=encoder, fusion=fusion)


def test_a_set_encoder_is_refused():
    """It sums encodings, which are no parameters of latents."""
    with pytest.raises(InputError, match="private latents need a strategy that fuses each latent alone"):
        assembled(fusion=SetStrategy(SplitLinearLayer(8, (LATENT_DIM, LATENT_DIM))))


def test_a_set_may_stand_beside_a_modality_with_private_latents():
    """A set's encoder gives parameters of the shared latents alone, as any modality's without private latents."""
    encoder = {
        "s": SharedNetwork(3, nn.Linear(4, 8), SplitLinearLayer(8, (N_SHARED, N_SHARED))),
        "a": SplitLinearLayer(4, (N_SHARED + 1, N_SHARED + 1)),
    }
    model = assembled(private={"a": 1}, encoder=encoder, latent_dim=N_SHARED + 1)
    inputs = {"s": torch.randn(2, 3, 4), "a": torch.randn(2, 4)}
    inputs["s"][0, 1], inputs["a"][1] = torch.nan, torch.nan
    q = model.posterior(inputs)
    assert (q.mean[1, N_SHARED:] == 0).all() and (q.variance[1, N_SHARED:] == 1).all()
    mu, logvar = model.encoder["a"](inputs["a"][:1])
    torch.testing.assert_close(q.mean[:1, N_SHARED:], mu[:, N_SHARED:])
    torch.testing.assert_close(q.variance[:1, N_SHARED:], logvar[:, N_SHARED:].exp())
