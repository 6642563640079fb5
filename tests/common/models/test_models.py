"""Models by name: what they are made of, and which pieces do not fit."""

import math
import re
from types import SimpleNamespace

from common.data import Batch
from common.encoders_decoders import SharedNetwork, SplitLinearLayer
from common.errors import InputError
from common.estimators import importance_estimates, log_marginal
from common.execution.rows import Rows
from common.execution.score import score
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.models.choices import JointEncoder
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from mnist.model import build
from tests.helpers.fusions import STANDARD_PRIOR

import pytest
import torch
from torch import nn

D = 4


def likelihoods(names="ab"):
    return GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0) for name in names})


def linear():
    return nn.Linear(D, 3)


def encoder_of(n_params=2):
    return SplitLinearLayer(3, (D,) * n_params)


def pieces(**changed):
    encoder, decoder = ({name: make() for name in "ab"} for make in (encoder_of, linear))
    return {"encoder": encoder, "decoder": decoder, "likelihood": likelihoods(), "latent_dim": D} | changed


def model_of(fusion, posterior):
    encoder = {name: encoder_of(FAMILIES[posterior].n_params) for name in "ab"}
    return VAE(fusion, **pieces(encoder=encoder), posterior=posterior)


INPUTS = {"a": torch.randn(5, 3), "b": torch.randn(5, 3)}


def test_the_first_of_laplace_and_normal_experts_is_laplace():
    q = model_of("moe", "laplace-normal").posterior(INPUTS)
    assert q.component_distribution.base_dist.laplace[0].tolist() == [[True] * D, [False] * D]


def test_there_is_one_sphere_unless_more_are_asked_for():
    z = model_of("poe", "vmf").posterior({"a": INPUTS["a"]}).sample()
    torch.testing.assert_close(z.norm(dim=-1), torch.ones(5))
    assert FAMILIES["vmf"].posterior((D,)).n == FAMILIES["vmf"].prior((D,), False).n == 1


class Sum(nn.Module):
    """A joint encoder of N(x_1 + x_2, I)."""

    def forward(self, *xs):
        return sum(xs), 0 * xs[0]


def of_sums(fusion, encoder=None, **options):
    """A model of one latent, whose experts are N(x_m, 1)."""
    encoder = encoder or {name: Sum() for name in "ab"} | ({"a,b": Sum()} if fusion == "jnf" else {})
    return VAE(fusion, encoder, {name: nn.Linear(1, 1) for name in "ab"}, likelihoods(), 1, **options)


def test_only_fusions_with_encoders_of_several_modalities_take_one():
    """Others would take the columns of a mask, one a modality, for the experts of encoders."""
    joint, single = {"a,b": Sum()}, {"a": Sum(), "b": Sum()}
    twice = {"a": Sum(), "a,b": SharedNetwork(2, nn.Linear(1, 1), SplitLinearLayer(1, (1, 1)))}
    for fusion in (name for name, fusion in FUSIONS.items() if fusion.strategy and name != "mmvae+"):
        if fusion in ("own", "joint", "jnf"):
            q = of_sums(fusion, single | joint).posterior({name: torch.ones(2, 1) for name in "ab"})
            torch.testing.assert_close(q.mean, torch.full((2, 1), 2.0))
            continue
        for encoder in (joint, single | joint, twice):
            with pytest.raises(InputError, match=f"one expert for each modality .got encoders of {'; '.join(encoder)}"):
                of_sums(fusion, encoder)


@pytest.mark.parametrize("fusion", STANDARD_PRIOR)
def test_posteriors_that_hold_the_standard_prior_have_no_other(fusion):
    """With exact experts the posterior would not be exact: 1.333 and 0.333 for 1.895 and 0.474 in the test below."""
    for options in ({"learn_prior": True}, {"n_clusters": 3}):
        with pytest.raises(InputError, match="holds the prior N.0, I., not a learned or clustered one: leave out"):
            of_sums(fusion, **options)


def test_exact_experts_give_the_exact_posterior_with_the_prior_that_the_product_holds():
    inputs = {name: torch.full((1, 1), 2.0) for name in "ab"}
    q = of_sums("poe").posterior(inputs)
    assert (q.mean.item(), q.variance.item()) == (pytest.approx(4 / 3), pytest.approx(1 / 3))
    model = of_sums("product", learn_prior=True)  # without p(z): N(2, 1) N(2, 1)
    model.prior.scale.data.fill_(math.log(9))
    q = model.posterior(inputs)
    assert (q.mean.item(), q.variance.item()) == (pytest.approx(2), pytest.approx(1 / 2))
    assert model.posterior(inputs, ()).variance.item() == pytest.approx(9)


SET = SharedNetwork(3, nn.Linear(1, 4), SplitLinearLayer(4, (D, D)))
SHAPES = "encoders must give equally many parameters of equal shapes"
REFUSED = [  # the fusion, what differs from `pieces`, and why no model is made, or no posterior of INPUTS
    ("poe", {"decoder": {"a": linear(), "B": linear()}}, "decoders of unknown modalities: B; the encoders name a, b"),
    ("poe", {"weights": {"A": 2.0}}, "weights of unknown modalities: A; the encoders name a, b"),
    ("poe", {"weights": {"a": -1.0}}, "must not be negative, these are: {'a': -1.0}"),
    ("poe", {"likelihood": likelihoods("a")}, "there is no likelihood for b, only for a"),
    ("mop", {}, "there is no fusion mop: there are poe, "),
    ("own", {"encoder": {"a": SET, "b": linear()}}, r"a set's encoder \(a"),
    ("own", {}, "no encoder sees all modalities: add 'a,b', or choose poe or moe"),
    ("poe", {"encoder": {"a": encoder_of(), "b": nn.Linear(3, D)}}, "a tuple of parameters .* not a Tensor: SplitLin"),
    ("poe", {"encoder": {"a": encoder_of(), "b": SplitLinearLayer(3, (D + 1, D + 1))}}, SHAPES),
    ("poe", {"latent_dim": D + 1}, f"encoders give {D} latents and the prior {D + 1}"),
    (
        "moe",
        {"encoder": {name: encoder_of() for name in "abc"}, "posterior": "laplace-normal"},
        r"laplace-normal is for 2 modalities \(got 3\): choose softplus-laplace",
    ),
]


@pytest.mark.parametrize(("fusion", "changed", "message"), REFUSED)
def test_pieces_that_do_not_fit_are_refused(fusion, changed, message):
    n = len(changed.get("encoder", "ab"))
    with pytest.raises(InputError, match=message):
        VAE(fusion, **pieces(**({"likelihood": likelihoods("abc"[:n])} | changed))).posterior(
            INPUTS if n == 2 else INPUTS | {"c": INPUTS["a"]}
        )


@pytest.mark.parametrize("name", ["type", "point", "forward", "training", "a|b", "", "kl", "subset1"])
def test_names_of_networks_and_terms_are_refused(name):
    """The KL's term is joint/kl, and of two terms of one name the last would be in metrics.jsonl alone."""
    for make in (
        lambda: GroupedLikelihood(**{name: SphericalGaussianLikelihood(1.0)}),
        lambda: VAE("poe", **pieces(encoder={"a": linear(), name: linear()})),
    ):
        with pytest.raises(InputError, match=f"a modality cannot be called {re.escape(repr(name))}, .*: rename it"):
            make()
    assert "self" in GroupedLikelihood(self=SphericalGaussianLikelihood(1.0))


def test_a_pairs_modality_does_not_replace_its_joint_encoders_head():
    with pytest.raises(InputError, match="a joint encoder has a head of its own"):
        JointEncoder({"head": nn.Linear(2, 3), "b": nn.Linear(2, 3)}, 3, (D, D))


@pytest.mark.parametrize("name", ["image", "text"])
def test_values_are_not_broadcast_over_examples(name):
    """Images (B, 1, ...) for a decoder of (B, ...) and labels (B, 1) would be scored under every example."""
    model = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian"))
    inputs = {"image": torch.rand(3, 1, 28, 28), "text": torch.tensor([1, 2, 3])}
    z = torch.randn(1, 3, 4)
    rows = Rows((), torch.ones(1, 2, dtype=torch.bool), None, torch.ones(1, 1, 2, dtype=torch.bool))
    assert score(model, model.observe(inputs), z[None], rows)[name].shape == (1, 1, 3)
    looked_at = Batch(inputs | {name: inputs[name].unsqueeze(1)}, observed={})
    with pytest.raises(InputError, match=f"{name} has values of shape .* which its decoder does not give"):
        score(model, looked_at, z[None], rows)
    with pytest.raises(InputError, match=f"{name} has values of shape .*, reshape the values"):
        log_marginal(model, looked_at, (name,), ("image",) if name == "text" else ("text",), n_samples=3)


def test_targets_and_masks_are_checked():
    model = model_of("poe", "gaussian")
    refused = [
        (lambda: log_marginal(model, INPUTS, ("A",), n_samples=2), "unknown modality A: the model has a, b"),
        (lambda: model.posterior({"a": torch.tensor(3.0)}), r"a dimension of examples, \(B, ...\); these have none: a"),
        (lambda: model.posterior({"a": torch.randn(3)}), r"a has values of shape \(3,\), and its likelihood takes 1 d"),
    ]
    mask, shape = torch.ones(1, 2, dtype=torch.bool), r"a mask must be bool of shape \(5, 2\)"
    refused += [
        (lambda: model.posterior(Batch(INPUTS, mask)), shape),
        (lambda: importance_estimates(model, INPUTS, [mask], ("a",), n_samples=2), shape),
        (lambda: importance_estimates(model, INPUTS, [("a",)], mask, n_samples=2), shape),
    ]
    for call, message in refused:
        with pytest.raises(InputError, match=message):
            call()
