"""The example of poe-vae's README, as written but for the names of modules."""

import math

from common.encoders_decoders import (
    DecoderModalityEmbedding,
    EncoderModalityEmbedding,
    GatherLayer,
    ModalityEmbedding,
    NetworkList,
    SharedNetwork,
    SplitLinearLayer,
    SqueezeLayer,
    UnsqueezeLayer,
)
from common.errors import InputError
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood
from common.objectives import DregIwaeElbo, StandardElbo
from common.priors import StandardGaussianPrior
from common.variational_posteriors import DiagonalGaussianPosterior, MixturePosterior
from common.variational_strategies import GaussianPoeStrategy, MoeStrategy

import pytest
import torch
import torch.nn as nn
from torch.distributions import Independent, Normal

latent_dim, m_dim = 20, 392


def example():
    return nn.ModuleDict(
        {
            "encoder": NetworkList(
                nn.ModuleList(
                    nn.Sequential(nn.Linear(m_dim, 200), nn.ReLU(), SplitLinearLayer(200, (latent_dim, latent_dim)))
                    for _ in range(2)
                )
            ),
            "variational_strategy": GaussianPoeStrategy(),
            "variational_posterior": DiagonalGaussianPosterior(),
            "decoder": nn.Sequential(
                nn.Linear(latent_dim, 200), nn.ReLU(), SplitLinearLayer(200, (m_dim, m_dim)), GatherLayer()
            ),
            "likelihood": GroupedLikelihood(BernoulliLikelihood(), BernoulliLikelihood()),
            "prior": StandardGaussianPrior(),
        }
    )


def halves(n):
    """Two halves that go together: stripes of one of eight phases."""
    phase = torch.randint(8, (n, 1))
    stripes = ((torch.arange(2 * m_dim) + phase) % 8 < 4).float()
    return list(stripes.split(m_dim, dim=1))


@pytest.mark.slow
def test_the_example_trains():
    vae = example()
    objective = StandardElbo(vae)
    loader = [halves(50) for _ in range(20)]
    optimizer = torch.optim.Adam(objective.parameters())
    losses = []
    for _ in range(15):
        for batch in loader:
            objective.zero_grad()
            loss = objective(batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[0] > 500 and losses[-1] < 60, "nats; eight phases are 2"
    top, bottom = halves(20)
    absent = torch.full_like(bottom, torch.nan)
    completed = objective.model.eval().reconstruct([top, absent])["1"]
    assert ((completed > 0.5) == (bottom > 0.5)).float().mean() > 0.95, "the half that is not given follows"
    assert absent.isnan().all(), "the caller's tensors are left as they are"


def test_what_it_calls_mmvae_elbo_is_dreg_iwae_of_a_mixture():
    """Written out: K samples of each expert, weighted by the mixture, in one logarithm."""
    mixture = {
        "variational_strategy": MoeStrategy(),
        "variational_posterior": MixturePosterior(DiagonalGaussianPosterior()),
    }
    vae, xs, k = nn.ModuleDict(dict(example()) | mixture).double(), [x.double() for x in halves(4)], 3
    objective = DregIwaeElbo(vae, K=k)
    torch.manual_seed(0)
    value = objective.bound(xs).value
    experts = [Independent(Normal(mu, (logvar / 2).exp()), 1) for mu, logvar in vae["encoder"](xs)]
    torch.manual_seed(0)
    z = objective.model.posterior(xs).sample_components(k)  # (2, k, 4, D)
    logits = vae["decoder"](z.flatten(0, 2)).unflatten(0, z.shape[:3])
    x = torch.stack(xs, dim=1).expand_as(logits)
    log_p = -nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=(-2, -1))
    log_q = torch.stack([q.log_prob(z) for q in experts]).logsumexp(dim=0) - math.log(2)
    log_w = log_p + vae["prior"]().log_prob(z) - log_q  # (2, k, 4)
    torch.testing.assert_close(value, log_w.flatten(0, 1).logsumexp(dim=0) - math.log(2 * k))


def test_its_vectorised_layout_is_made_of_its_layers():
    """One tensor (B, 2, 392), shared networks with a modality embedding, and layers of nothing but a shape."""
    x = torch.stack(halves(3), dim=1)
    embedded = SharedNetwork(2, nn.Linear(m_dim, 30), nn.Sequential(nn.Tanh(), SplitLinearLayer(30, (latent_dim,) * 2)))
    vae = nn.ModuleDict(
        dict(example())
        | {
            "encoder": embedded,
            "decoder": nn.Sequential(
                UnsqueezeLayer(1),
                nn.Linear(latent_dim, 30),
                ModalityEmbedding(2, 30, embed_dim=4),
                nn.Tanh(),
                nn.Linear(30, m_dim),
                UnsqueezeLayer(-1),
                SqueezeLayer(-1),
            ),
            "likelihood": BernoulliLikelihood(),
        }
    )
    decoded = vae["decoder"](torch.zeros(3, latent_dim))
    assert decoded.shape == (3, 2, m_dim) and not torch.allclose(decoded[:, 0], decoded[:, 1])
    DregIwaeElbo(vae, K=4)(x).backward()
    assert all(p.grad is not None and p.grad.any() for p in vae.parameters())


def test_embeddings_that_are_appended():
    """Those of poe-vae; a half that is not there has no expert."""
    x, embed = torch.stack(halves(3), dim=1), DecoderModalityEmbedding(2, 4)
    z = torch.randn(3, latent_dim)
    assert embed(z)[1, 0].tolist() == [*z[1].tolist(), *embed.embedding[0].tolist()]
    encoder = nn.Sequential(EncoderModalityEmbedding(2, 4), SplitLinearLayer(m_dim + 4, (latent_dim,) * 2))
    decoder = nn.Sequential(embed, nn.Linear(latent_dim + 4, m_dim))
    vae = nn.ModuleDict(dict(example()) | {"encoder": encoder, "decoder": decoder, "likelihood": BernoulliLikelihood()})
    objective = DregIwaeElbo(vae, K=4)
    objective(x).backward()
    assert all(p.grad is not None and p.grad.any() for p in vae.parameters())
    x[:, 1] = torch.nan
    mu, logvar = encoder[1](torch.cat([x[:, 0], encoder[0].embedding[0].expand(3, -1)], dim=1))
    torch.testing.assert_close(objective.model.posterior(x).mean, mu / (1 + logvar.exp()))


def test_pieces_in_other_shapes():
    """A decoder for each modality, one that gives a tuple, samples in batches of (K, B), and a piece too few."""
    vae, xs = example(), halves(3)
    decoder = vae["decoder"]
    vae["decoder"] = decoder[:-1]
    p = StandardElbo(vae).model.decode(torch.zeros(5, 3, latent_dim))
    assert p["1"].log_prob(xs[1]).shape == (5, 3)
    torch.testing.assert_close(p["0"].mean[0], decoder(torch.zeros(3, latent_dim)).sigmoid()[:, 0])
    vae["decoder"] = NetworkList(nn.ModuleList([nn.Linear(latent_dim, m_dim) for _ in range(2)]))
    DregIwaeElbo(vae, K=4)(xs).backward()
    assert all(p.grad is not None and p.grad.any() for p in vae.parameters())
    vae["decoder"] = NetworkList(nn.ModuleList([nn.Linear(latent_dim, m_dim)]))
    with pytest.raises(InputError, match="there are 2 encoders and 1 decoders: give the same number of each"):
        StandardElbo(vae)
    del vae["prior"]
    with pytest.raises(InputError, match="this one lacks prior"):
        StandardElbo(vae)
