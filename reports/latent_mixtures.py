"""What to generate from in place of the prior: mixtures fitted to latents of training examples, or one cluster."""

import torch
from torch import nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal

from common import distributed
from common.data.batches import Examples
from common.errors import require
from common.multimodal_vae import MultimodalVAE
from reports.metrics import BATCH_SIZE

MAX_FITTED = 10_000  # training examples that a mixture is fitted to


def cluster_of(prior: nn.Module, cluster: int) -> Distribution:
    """p(z|c) of one cluster c of a clustered prior, event shape (D,).

    Raises:
        InputError: the prior has no clusters, or not this one.
    """
    require(prior.is_mixture, "--cluster needs a prior of clusters, as models of --model cmvae have: leave it out")
    n = len(prior.logits)
    require(0 <= cluster < n, f"--cluster must lie between 0 and {n - 1}, it is {cluster}")
    return prior.only(torch.tensor([cluster]))()


@torch.no_grad()
def gaussian_mixture(model: MultimodalVAE, train: Examples, n_components: int) -> MixtureSameFamily:
    """Fit a mixture of Gaussians, by expectation maximisation, to one draw of q(z|X) for each training example.

    It covers the latents of the examples, which the prior may miss: MVTCAE, whose posteriors leave the prior out,
    decodes nothing recognisable from samples of the prior (Hwang et al. 2021). (GaussianMixtureSampler of the
    `multivae` package.)

    Args:
        train: examples, at most `MAX_FITTED` of them are taken, at equal distances.
        n_components: with a mean and a full covariance each.

    Returns:
        a distribution over z, event shape (D,), on the model's device.

    Raises:
        InputError: fewer examples than components, or than two.
    """
    device = model.device
    n = min(len(train), MAX_FITTED)
    few = train.only(model.modalities).take(torch.linspace(0, len(train) - 1, n).long()).to(device)
    needed = max(2, n_components)
    require(needed <= len(few), f"--mixture {n_components} needs {needed} training examples or more (got {len(few)})")

    def draw(rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"z": model.posterior(few[rows]).sample()}

    z = distributed.map_rows(len(few), BATCH_SIZE, draw, "latents for the mixture")["z"].double()
    seed = int(torch.randint(2**31, ()))

    def fit() -> tuple[torch.Tensor, ...]:
        from sklearn.mixture import GaussianMixture  # slow to import, and train.py imports sample.py

        fitted = GaussianMixture(n_components, random_state=seed).fit(z.numpy())
        weights, means, covariances = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))
        return weights, means, torch.linalg.cholesky(covariances)

    weights, means, scale_tril = (x.to(device, torch.float32) for x in distributed.on_first_process(fit))
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, scale_tril=scale_tril))
