"""Private latents (DMVAE, Lee & Pavlovic 2021, arXiv 2012.13024), on a model whose every quantity is known."""

from common.encoders_decoders import SharedNetwork, SplitLinearLayer
from common.errors import InputError
from common.likelihoods import GroupedLikelihood
from common.models import VAE
from common.models.families import FAMILIES
from common.variational_strategies import SetStrategy
from tests.helpers.fusions import mask_of, row
from tests.helpers.linear_gaussian import Decoder, Gaussian, draw, exact_posterior
from tests.helpers.private_latents import LATENT_DIM, N_SHARED, PLACES, PRIVATE, SUBSETS, private_linear_gaussian

import pytest
import torch
from torch import nn

NAMES = ("a", "b", "c")
PATTERNS = [("a", "b", "c"), ("b",), ("a", "c"), ("c",), ("a",), ("a", "b")]


def mixed(matrices, scales):
    """An example of each pattern, NaN where it lacks a modality, and the examples before that."""
    inputs = draw(matrices, scales, len(PATTERNS))
    mask = mask_of(PATTERNS, NAMES)
    return {name: x.masked_fill(~mask[:, [m]], torch.nan) for m, (name, x) in enumerate(inputs.items())}, inputs


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


@pytest.mark.parametrize(("fusion", "family"), [("moe", "laplace"), ("mopoe", "gaussian")])
def test_components_share_the_private_posterior(fusion, family):
    model, matrices, scales = private_linear_gaussian(fusion, family)
    if family == "laplace":  # a prior whose scales are not 1
        nn.init.constant_(model.prior.scale, 0.3)
    inputs, _ = mixed(matrices, scales)
    q, prior = model.posterior(inputs), model.prior()
    locations, deviations = q.component_distribution.mean, q.component_distribution.stddev  # (B, T, D)
    for i, pattern in enumerate(PATTERNS):
        for name, place in PLACES.items():
            mean, scale = prior.mean.expand(LATENT_DIM)[place], prior.stddev.expand(LATENT_DIM)[place]
            if name in pattern:
                alone = model.posterior(row(inputs, i), (name,))
                mean, scale = alone.mean[0, place], alone.stddev[0, place]
            torch.testing.assert_close(locations[i, :, place], mean.expand(locations.shape[1], -1))
            # a Laplace posterior's smallest scale is 1e-6, its prior's 0
            torch.testing.assert_close(deviations[i, :, place], scale.expand(locations.shape[1], -1), rtol=0, atol=2e-6)
    if fusion == "moe":  # the density is the shared mixture's times the private ones'
        z = q.sample((11,))  # (11, B, D)
        component = q.component_distribution.base_dist.log_prob(z.unsqueeze(-2))
        shared = component[..., :N_SHARED].sum(dim=-1) + q.mixture_distribution.logits
        torch.testing.assert_close(q.log_prob(z), shared.logsumexp(dim=-1) + component[..., 0, N_SHARED:].sum(dim=-1))


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


JOINT = {name: nn.Linear(4, 2) for name in ("a", "b")} | {"a,b": nn.Bilinear(4, 4, 2)}


def shared_encoder(n):
    return SharedNetwork(n, nn.Linear(4, 8), SplitLinearLayer(8, (LATENT_DIM, LATENT_DIM)))


REFUSED = [  # arguments of `assembled`
    ({"posterior": "vmf"}, "need a family with parameters for them .gaussian, .*, and no flows"),
    ({"private": {"a": 3, "b": 2}}, "5 private latents leave none of 5 to share: raise latent_dim"),
    ({"private": {"a": 1}, "encoder": {"a": shared_encoder(3), "b": nn.Linear(4, 2)}}, r"not sets \(got a\)"),
    ({"private": {"a": 1}, "encoder": {"a,b": shared_encoder(2)}}, r"an encoder of their own .* \(got a\)"),
    ({"encoder": JOINT, "fusion": "joint"}, "an encoder for each modality .got one for all of a,b"),
    ({"fusion": SetStrategy(SplitLinearLayer(8, (5, 5)))}, "need a strategy that fuses each latent alone"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_private_latents_that_cannot_be_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        assembled(**changes)


def test_a_joint_decoder_is_refused():
    """It would decode all that it decodes from the private latents of one."""
    encoder = {name: nn.Linear(4, 2) for name in ("a", "b")}
    with pytest.raises(InputError, match="private latents need a decoder for each modality .got one for all of a,b"):
        VAE("poe", encoder, {"a,b": nn.Linear(2, 8)}, GroupedLikelihood(), latent_dim=LATENT_DIM, private=PRIVATE)


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
