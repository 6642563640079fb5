"""Mixtures of Gaussians fitted to latents, on a model whose latents are known clusters."""

from importlib import import_module
from pathlib import Path

from common.data import Examples
from common.errors import InputError
from common.latent_priors import MafPrior
from common.priors import ClusteredPrior, StandardGaussianPrior
from common.variational_posteriors import DiagonalGaussianPosterior
from reports.metrics import joint_coherence
from reports.sampling import MAX_FITTED, cluster_of, gaussian_mixture, title_of
from tests.helpers.coherence import JUDGES, C, examples, model

import pytest
import torch
from torch.distributions import Normal


def test_the_mixture_finds_the_clusters_of_the_latents():
    """Each class has its latents near 10 times its one-hot vector; q(z|a, b) has half the variance of an expert."""
    train, labels = examples(2000)
    latents = gaussian_mixture(model(), train, C)
    assert title_of(latents) == "samples from a mixture of Gaussians"
    means = latents.component_distribution.mean
    order = means.argmax(dim=1)
    torch.testing.assert_close(means, 10 * torch.eye(C)[order], rtol=0, atol=0.02)
    shares = torch.stack([(labels == c).float().mean() for c in order])
    torch.testing.assert_close(latents.mixture_distribution.probs, shares, rtol=0, atol=0.01)
    assert latents.component_distribution.variance.max() < 1e-3
    z = latents.sample((500,))
    assert z.shape == (500, C) and (z.max(dim=1).values > 9.5).all()


def test_modalities_that_the_model_lacks_do_not_matter():
    train, labels = examples(300)
    more, means = Examples(train.modalities | {"label": labels}), []
    for given in (train, more):
        torch.manual_seed(3)
        means.append(gaussian_mixture(model(), given, 2).component_distribution.mean)
    assert means[0].equal(means[1])


def test_joint_coherence_of_a_mixture_is_that_of_its_draws():
    """Decoders that each err in 30 % of the examples agree if both are right, or both wrong."""
    train, _ = examples(500)
    latents = gaussian_mixture(model(), train, C)
    seen = []
    judges = {
        name: judge._replace(read=lambda v, j=judge: seen.append(j.read(v)) or j.read(v))
        for name, judge in JUDGES.items()
    }
    agree = joint_coherence(model(decoder=(0.3, 0.3)), 4000, judges, latents)
    assert agree.double().mean().item() == pytest.approx(0.7 * 0.7 + 0.3 * 0.3, abs=0.03)
    assert torch.cat(seen).unique().tolist() == list(range(C))


def test_only_the_first_training_examples_are_taken():
    assert MAX_FITTED == 10_000
    train, _ = examples(50)
    for n, few, message in ((51, 50, "needs 51 training examples or more .got 50"), (1, 1, "needs 2 .* .got 1")):
        with pytest.raises(InputError, match=f"--mixture {n} {message}"):
            gaussian_mixture(model(), train.take(slice(few)), n)


def test_a_cluster_of_the_prior_is_its_component_with_the_private_latents():
    prior = ClusteredPrior(DiagonalGaussianPosterior(), 3, 2, 2).double()
    prior.loc.data = torch.tensor([[5.0, 0.0], [-5.0, 1.0]]).double()
    p, z = cluster_of(prior, 1), torch.randn(4, 3, dtype=torch.float64)
    expected = Normal(torch.tensor([-5.0, 1.0, 0.0]).double(), 1).log_prob(z).sum(dim=1)
    torch.testing.assert_close(p.log_prob(z), expected)
    assert p.sample((7,)).shape == (7, 3) and (p.sample((100,))[:, 0] < 0).all()
    assert title_of(p) == "samples from a cluster of the prior" and title_of(None) == "samples from the prior"
    assert title_of(MafPrior((2,))) == "samples from a density fitted to latents"
    with pytest.raises(InputError, match="--cluster must lie between 0 and 1, it is 2"):
        cluster_of(prior, 2)
    with pytest.raises(InputError, match="--cluster needs a prior of clusters, as models of --model cmvae have"):
        cluster_of(StandardGaussianPrior(3), 0)


@pytest.mark.parametrize(
    "folder", ["mnist", "multimnist", "celeba", "vision", "cub", "translation", "mnist_svhn", "polymnist", "mfeat"]
)
def test_a_mixture_stands_in_for_the_prior_alone(folder):
    config = import_module(f"{folder}.sample").Config
    for kind in ({"mixture": 2}, {"latent_prior": "maf"}, {"latent_prior": "score"}):
        assert config(Path("run"), **kind).check() is None
    fields = set(config.__dataclass_fields__)
    given = {name for name in fields if name.startswith("condition_")} | fields & {"given", "reconstruct", "traverse"}
    assert given - {"condition_type"} == set(config.CONDITIONS)
