"""MMVAE as the originals train and score it: a pass for each network, with all samples of a batch at once."""

import math

from common.data import Examples
from common.models import MultimodalVAE
from cub.captions import PADDING
from reference import mmvae
from reference.mmvae import MMVAE, dreg_looser, laplace, log_weights
from tools.benchmarks.plain import as_written

import torch
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal
from torch.nn.functional import cross_entropy, softplus

AT_ONCE = 10  # pairs whose likelihoods are estimated together
FAMILIES = {"image": Laplace, "feature": Normal, "caption": Normal}
LAMBDA = mmvae.LAMBDA | {"image": 32 / 12288, "feature": 0.002, "caption": 1.0}


class Birds(MMVAE):
    """The authors' distributions of CUB."""

    def prior(self) -> Distribution:
        loc = torch.zeros_like(self.prior_a)
        if "image" in self.encoder:
            return laplace(loc, self.prior_a, min_scale=1e-6)
        return Normal(loc, softplus(self.prior_a) + 1e-6)

    def posterior(self, name: str, x: Tensor) -> Distribution:
        loc, a = self.encoder[name](x)
        return FAMILIES[name](loc, softplus(a) + 1e-6)

    def log_likelihood(self, name: str, z: Tensor, x: Tensor) -> Tensor:
        output = self.decoder[name](z.flatten(0, 1)).unflatten(0, z.shape[:2])
        if name != "caption":
            return Laplace(output, 0.01).log_prob(x).flatten(2).sum(dim=-1)
        words = x.expand(output.shape[:-1])
        loss = cross_entropy(output.flatten(0, -2), words.flatten(), reduction="none", ignore_index=PADDING)
        return -loss.view(words.shape).sum(dim=-1)


def plain_model(model: MultimodalVAE) -> MMVAE:
    """The authors' model with copies of our networks."""
    model = as_written(model)
    plain = (Birds if "caption" in model.modalities else MMVAE)(model.encoder, model.decoder)
    plain.prior_a = model.prior.scale
    return plain


def loss(plain: MMVAE, x: dict[str, Tensor], K: int) -> Tensor:
    """The loss of `reference.mmvae.dreg_looser`, with the authors' weights."""
    return dreg_looser(plain, x, K, LAMBDA)[0]


@torch.no_grad()
def likelihoods(plain: MMVAE, x: dict[str, Tensor], K: int) -> dict[str, Tensor]:
    """The joint bound, and log p of each target with samples of each source, a pass for each pair."""
    unweighted, q = dict.fromkeys(x, 1.0), [plain.posterior(name, x[name]) for name in x]
    log_w = torch.cat([log_weights(plain, x, q, q_m.rsample((K,)), unweighted) for q_m in q])
    estimates = {"joint": log_w.logsumexp(dim=0) - math.log(len(log_w))}
    for source in x:
        for target in x:
            q_m = plain.posterior(source, x[source])
            log_w = log_weights(plain, {target: x[target]}, [q_m], q_m.rsample((K,)), unweighted)
            estimates[f"{source}, {target}"] = log_w.logsumexp(dim=0) - math.log(K)
    return estimates


def evaluate(model: MultimodalVAE, pairs: Examples, n_samples: int) -> None:
    """Estimate the likelihoods of pairs as the authors do."""
    plain = plain_model(model).eval()
    for batch in pairs.batches(AT_ONCE):
        likelihoods(plain, batch.modalities, n_samples)
